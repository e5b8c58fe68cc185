"""`trainer eval` from the command line: what it writes, prints and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.trainer.evaluation.test_layouts import cvqa_table
from trainer.cli import main
from trainer.evaluation.registry import EVALUATIONS


@pytest.fixture
def cvqa(tmp_path: Path, picture: Callable[[int], bytes]) -> Path:
    pq.write_table(cvqa_table(picture), tmp_path / "test.parquet")
    return tmp_path / "test.parquet"


def test_a_result_is_written_printed_and_repeatable(
    cvqa: Path, tmp_path: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", str(clip_folder), "cvqa", f"path={cvqa}", "--to", str(tmp_path / "out")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    file = tmp_path / "out" / "eval" / "cvqa.json"
    assert str(file) in printed and "('Japanese', 'Japan')" in printed
    first = file.read_bytes()
    result = json.loads(first)
    head = result["headline"]
    assert f"{head['mean']:.4f} [{head['low']:.4f}, {head['high']:.4f}], chance 0.2500" in printed
    assert result["settings"] == {"path": str(cvqa)} and result["evaluation"] == "cvqa"
    assert main([*command, "--batch", "3"]) == 0
    assert json.loads(file.read_bytes())["overall"] == result["overall"]
    assert main(command) == 0
    assert file.read_bytes() == first


def test_random_weights_are_not_above_chance(
    cvqa: Path, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", str(clip_folder), "cvqa", f"path={cvqa}", "--to", str(tmp_path / "out")]
    assert main([*command, "--above-chance"]) == 1
    assert "is not above chance, 0.2500" in capsys.readouterr().err
    assert (tmp_path / "out" / "eval" / "cvqa.json").exists()  # the numbers are kept all the same


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["xm36000", "path=x"], 2, "unknown evaluation. Did you mean 'xm3600'?"),
        (["xm3600"], 2, "path: must be given"),
        (["xm3600", "pth=x"], 2, "pth: unknown setting of xm3600; did you mean path?"),
        (["pool", "images=0"], 2, "images=0"),
        (["pool", "--batch", "0"], 2, "--batch 0"),
        (["pool"], 3, "neither a run of `trainer launch`"),
    ],
)
def test_what_is_wrong_is_named(
    words: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(tmp_path), *words]) == code
    assert message in capsys.readouterr().err


def test_the_list_documents_every_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--list"]) == 0
    printed = capsys.readouterr().out
    for name in EVALUATIONS:
        assert f"\n{name}: " in f"\n{printed}"
    assert "images of each class (default: 8)" in printed and "None" not in printed
    assert main(["eval", "--list", "cvqa"]) == 0
    assert capsys.readouterr().out.startswith("cvqa: questions of 30 countries")
    assert main(["eval", "--list", "cvq"]) == 2
    assert "Did you mean 'cvqa'" in capsys.readouterr().err
