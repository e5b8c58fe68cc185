"""Checkpoints in another place than the run directory: object stores among them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import IntegrityError
from schemas.storage import storage
from tests.schemas import servers
from tests.support import ROOT
from tests.trainer.evaluation.token_data import corpus, trained
from trainer.engine import checkpoint
from trainer.evaluation import language


@pytest.fixture
def s3() -> Iterator[dict[str, str]]:
    with servers.moto() as environment, servers.variables(environment):
        yield environment


@pytest.mark.slow
def test_ranks_save_to_an_object_store_and_continue_from_it(
    tmp_path: Path, s3: dict[str, str]
) -> None:
    place = f"s3://{servers.BUCKET}/runs/one"
    data, output = corpus(tmp_path), tmp_path / "run"
    words = [f"data.path={data}", f"output={output}", f"checkpoint.path={place}", "zero=3"]
    words += ["length.steps=6", "checkpoint.every=2", "batch.size=8", "schedule.warmup=1"]
    words += ["model.shape.hidden_size=32", "model.shape.intermediate_size=48", "loaders=0"]
    words += ["model.shape.num_hidden_layers=2", "model.shape.num_attention_heads=2"]
    words += ["model.context=64", "data.sequence_length=32", "evaluate=null"]
    command = [sys.executable, "-m", "trainer", "launch", "llama-tiny", *words]
    environment = {**os.environ, **s3}
    for ranks in ("2", "1"):
        subprocess.run([*command, "--ranks", ranks], check=True, cwd=ROOT, env=environment)
        assert checkpoint.latest(storage(place)) == "step-00000006"
        if ranks == "2":  # continued from the fourth step by one rank
            weights = checkpoint.read_weights(storage(place), "step-00000006")
            for key in storage(place).list("step-00000006"):
                storage(place).delete(key)
    assert not (output / "checkpoints").exists()
    events = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e.get("event") == "continued"] == [4]
    again = checkpoint.read_weights(storage(place), "step-00000006")
    assert all(abs(again[name] - weights[name]).max() < 1e-2 for name in weights)
    assert language.load_language(str(output)).facts["checkpoint"] == "step-00000006"


def test_a_folder_that_another_run_uses_is_refused(tmp_path: Path) -> None:
    data, place = corpus(tmp_path), f"checkpoint.path={tmp_path / 'kept'}"
    trained(tmp_path / "one", data, place, "evaluate=null")
    assert checkpoint.latest(storage(tmp_path / "kept")) == "step-00000006"
    with pytest.raises(IntegrityError, match="it is of another run"):
        trained(tmp_path / "two", data, place, "evaluate=null", "optimizer.lr=0.001")
