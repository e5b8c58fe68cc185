"""`trainer where`: the samples of a step, compared with what the dataset's reader serves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.dataset import open_dataset
from tests.support import ROOT
from tests.trainer.evaluation.runs import curated
from trainer.cli import main
from trainer.config import load
from trainer.engine import directory
from trainer.reader import Reader

BATCH = 16


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return curated(tmp_path_factory.mktemp("where") / "curated", 100)


def _run(output: Path, dataset: Path, *events: dict[str, Any]) -> Path:
    """A run directory of two ranks and two epochs, as a run leaves it."""
    words = [f"data.path={dataset}", f"output={output}", f"batch.size={BATCH}", "seed=9"]
    words += ["length.epochs=2"]
    config = load("metaclip2-tiny", [*words, "data.window=32", "schedule.warmup=1"])
    output.mkdir()
    digest = open_dataset(dataset).manifest.digest
    directory.record(config, ranks=2, parameters=1, digest=digest)
    lines = [json.dumps(event) + "\n" for event in events]
    (output / "metrics.jsonl").write_text("".join(lines) + '{"event": "sav')
    return output


def _where(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["where", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_sample_of_a_step_is_the_one_that_the_reader_serves(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = open_dataset(dataset)
    rows = len(data)
    run = _run(tmp_path / "run", dataset)
    step = rows // BATCH + 1  # crosses the end of the first epoch
    assert rows % BATCH and (step - 1) * BATCH < rows < step * BATCH
    found = _where(capsys, str(run), "--step", str(step))
    assert (found["step"], found["steps"]) == (step, 2 * rows // BATCH)
    assert found["positions"] == [(step - 1) * BATCH, step * BATCH]
    readers = [Reader(data, seed=9, epoch=epoch, window=32) for epoch in (0, 1)]
    assert [s["position"] for s in found["samples"]] == list(range(*found["positions"]))
    for i, sample in enumerate(found["samples"]):
        epoch, at = divmod(sample["position"], rows)
        served = readers[epoch].take([at]).to_pylist()[0]
        assert sample["epoch"] == epoch and sample["rank"] == i // (BATCH // 2)
        assert sample["ids"]["pair_id"] == served["pair_id"].hex()
        assert sample["ids"]["url"] == served["url"]
        place = data.take(sample["shard"], [sample["row"]], ["pair_id"]).to_pylist()[0]
        assert place["pair_id"] == served["pair_id"]
        assert sample["file"] == data.shards()[sample["shard"]].file
        first = sum(data.row_group_rows(sample["shard"])[: sample["group"]])
        size = data.row_group_rows(sample["shard"])[sample["group"]]
        assert first <= sample["row"] < first + size


def test_ranks_are_those_that_made_the_step_last(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced = {"position": 17, "id": "00", "reason": "not_an_image", "error": "", "by": 3}
    run = _run(
        tmp_path / "run",
        dataset,
        {"event": "started", "step": 0, "ranks": 2},
        {"event": "continued", "step": 4, "ranks": 1},
        {"event": "replaced", "step": 2, **replaced},
        {"event": "continued", "step": 2, "ranks": 4},
    )
    for step, ranks in ((1, 2), (2, 2), (3, 4), (5, 4)):
        assert _where(capsys, str(run), "--step", str(step))["ranks"] == ranks
    last = _where(capsys, str(run), "--step", "3", "--rank", "3")["samples"]
    assert [s["position"] for s in last] == [44, 45, 46, 47]
    second = _where(capsys, str(run), "--step", "2")["samples"]
    told = {s["position"]: s["replaced"] for s in second if "replaced" in s}
    assert told == {17: {"reason": "not_an_image", "by": 3}}
    assert main(["where", str(run), "--step", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("samples 16 to 31 of the run, on 2 ranks") and len(lines) == 17
    assert "replaced by sample 3 (not_an_image)" in lines[2] and "url=" in lines[2]


def test_a_step_that_was_left_out_says_so(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the fault in step 4 the run left out steps 3 and 4."""
    fault = {"event": "left_out", "step": 4, "first": 3, "fault": "the loss is nan", "file": "F"}
    run = _run(tmp_path / "run", dataset, {"event": "started", "step": 0, "ranks": 1}, fault)
    told = [_where(capsys, str(run), "--step", str(n))["left_out"] for n in (2, 3, 4, 5)]
    assert told == [None, "the loss is nan; see F", "the loss is nan; see F", None]
    assert main(["where", str(run), "--step", "3"]) == 0
    assert "left out of the run" in capsys.readouterr().out.splitlines()[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--step", "0"), "--step 0: the run has"),
        (("--step", "1000"), "--step 1000: the run has"),
        (("--step", "1", "--rank", "2"), "--rank 2: step 1 ran on 2 ranks, give 0 to 1"),
    ],
)
def test_what_the_run_has_not_is_refused(
    tmp_path: Path,
    dataset: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    says: str,
) -> None:
    assert main(["where", str(_run(tmp_path / "run", dataset)), *words]) == 2
    assert says in capsys.readouterr().err


def test_other_data_and_no_run_are_refused(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(tmp_path / "run", curated(tmp_path / "data", 40))
    (tmp_path / "data").rename(tmp_path / "old")
    curated(tmp_path / "data", 41)
    assert main(["where", str(run), "--step", "1"]) == 5
    assert "bring the run's dataset back" in capsys.readouterr().err
    assert main(["where", str(tmp_path), "--step", "1"]) == 3
    assert "has no run.json" in capsys.readouterr().err
    (run / "run.json").write_text("{}")
    assert main(["where", str(run), "--step", "1"]) == 3
    assert "is no record of a run" in capsys.readouterr().err


def test_no_model_and_no_torch_is_loaded(tmp_path: Path, dataset: Path) -> None:
    run = _run(tmp_path / "run", dataset)
    code = (
        "import sys; from trainer.cli import main; "
        f"assert main(['where', {str(run)!r}, '--step', '1']) == 0; "
        "print({'torch', 'transformers', 'deepspeed'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
