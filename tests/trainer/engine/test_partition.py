"""ZeRO-3 without a whole copy on any rank: what ranks hold while a model is made, and that its weights
are those of every other stage, bit by bit, with masters that were not rounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from schemas.errors import InputError
from tests.support import ROOT, free_port
from tests.trainer.engine.partition_rank import MODELS, UNTIED, WIDE, built, digest, stages
from tests.trainer.objectives import words
from trainer.models import decoder_model

RANKS = 2


@pytest.fixture(scope="module", autouse=True)
def _words() -> Iterator[None]:
    words.register()
    yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A tied Llama in one file of bf16, and an untied one in several of fp32."""
    base = tmp_path_factory.mktemp("folders")
    tied = decoder_model.new("llama", WIDE | {"tie_word_embeddings": True}, 5)
    tied.bfloat16().save_pretrained(base / "tied")
    decoder_model.new("llama", UNTIED, 6).save_pretrained(base / "parts", max_shard_size="60KB")
    assert len(list((base / "parts").glob("*.safetensors"))) > 4
    return [base / "tied", base / "parts"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, folders: list[Path]) -> list[dict[Any, Any]]:
    file, port = tmp_path_factory.mktemp("ranks") / "found", str(free_port())
    processes = []
    for rank in range(RANKS):
        environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": str(RANKS)}
        environment |= {"LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "tests.trainer.engine.partition_rank", str(file)]
        processes.append(
            subprocess.Popen(
                [*command, *map(str, folders)],
                cwd=ROOT,
                env=environment,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
        )
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-3000:]
    return [torch.load(f"{file}.{rank}") for rank in range(RANKS)]


def names(folders: list[Path]) -> dict[str, dict[str, Any]]:
    return MODELS | {
        f"folder {i}": {"name": "decoder", "init_from": str(folder)}
        for i, folder in enumerate(folders)
    }


@pytest.mark.slow
def test_no_rank_holds_all_weights(found: list[dict[Any, Any]], folders: list[Path]) -> None:
    """Its part, and two of the largest parameter (as made, and as cut): the old way held the total."""
    for ours in found:
        for name in names(folders):
            held, whole = ours[name, "held", 3], ours[name, "held", 0]
            assert whole["peak"] >= whole["total"] == held["total"]
            assert held["peak"] <= held["total"] / RANKS + 2.5 * held["largest"], name
            assert held["peak"] < 0.8 * held["total"], name


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_do_not_depend_on_the_stage(
    precision: str, found: list[dict[Any, Any]], folders: list[Path]
) -> None:
    for name, model in names(folders).items():
        exact = dict(built(words.run_config("unused", model=model)).named_parameters())
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        for stage in stages(name):
            ours = found[0][name, precision, stage]
            assert ours["masters"] == {n: digest(p) for n, p in exact.items()}, (name, stage)
            for rank in found:
                weights = rank[name, precision, stage]["weights"]
                assert weights == {n: digest(p.to(kind)) for n, p in exact.items()}, (name, stage)


def test_a_folder_in_parts_is_what_the_library_reads(folders: list[Path]) -> None:
    for folder in folders:
        theirs = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        ours = dict(decoder_model.from_folder(str(folder), {}).named_parameters())
        assert ours.keys() == dict(theirs.named_parameters()).keys()
        assert all(torch.equal(ours[name], p) for name, p in theirs.named_parameters())


def test_a_body_without_its_prefix(tmp_path: Path) -> None:
    """As GPT-2's published files: `wte.weight`, and no output layer, which is the input's."""
    model = decoder_model.new("gpt2", MODELS["gpt2"]["shape"] | {"n_positions": 32}, 3)
    model.transformer.save_pretrained(tmp_path)
    again = decoder_model.from_folder(str(tmp_path), {})
    assert all(map(torch.equal, again.parameters(), model.parameters()))
    assert again.lm_head.weight is again.transformer.wte.weight


def test_what_is_refused(folders: list[Path], tmp_path: Path) -> None:
    def changed(**files: Any) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for file in folders[1].iterdir():
            (folder / file.name).write_bytes(files.get(file.name, file.read_bytes()))
        return str(folder)

    index = "model.safetensors.index.json"
    listed = json.loads((folders[1] / index).read_text())
    first = min(listed["weight_map"].values())
    whole = (folders[1] / first).read_bytes()
    outside = {**listed, "weight_map": dict.fromkeys(listed["weight_map"], "../other.safetensors")}
    missing = {**listed, "weight_map": dict(list(listed["weight_map"].items())[1:])}
    shape = json.loads((folders[1] / "config.json").read_text()) | {"vocab_size": 65}
    for files, said in (
        ({first: whole[: len(whole) // 2]}, "cannot be loaded"),
        ({index: b"{}"}, "no weight_map"),
        ({index: json.dumps(outside).encode()}, "no file of the folder"),
        ({index: json.dumps(missing).encode()}, "lacks 1 weights"),
        (
            {"config.json": json.dumps(shape).encode()},
            r"shape \[64, 64\], config.json says \[65, 64\]",
        ),
    ):
        with pytest.raises(InputError, match=said):
            decoder_model.from_folder(changed(**files), {})
