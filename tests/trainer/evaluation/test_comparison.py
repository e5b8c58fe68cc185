"""The difference between two models, paired by class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import InputError, UsageError
from trainer.cli import main
from trainer.evaluation.comparison import against, check, read


def a_result(per_class: list[float | None], **settings: Any) -> dict[str, Any]:
    return {
        "evaluation": "pool",
        "settings": {"classes": "all", "images": 4, "languages": ["en"], **settings},
        "model": {"place": "b"},
        "classes": [f"class {i}" for i in range(len(per_class))],
        "tail": [i % 2 == 0 for i in range(len(per_class))],
        "languages": {"en": {"per_class": per_class}},
    }


def test_classes_are_paired_and_missing_ones_left_out() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(40)
    b = np.clip(a + rng.normal(0.1, 0.02, 40), 0, 1)
    mine, theirs = [*a.tolist(), None, 0.0], [*b.tolist(), 0.5, None]
    found = against(a_result(mine), a_result(theirs), "other")["languages"]["en"]
    assert found["mean"] == pytest.approx((a - b).mean(), abs=1e-6) and found["n"] == 40
    # The classes differ much more than the models: unpaired, nothing would be seen.
    assert -0.12 < found["low"] < found["mean"] < found["high"] < -0.08
    tail = against(a_result(mine, classes="tail"), a_result(theirs, classes="tail"), "other")
    assert tail["languages"]["en"]["mean"] == pytest.approx((a - b)[::2].mean(), abs=1e-6)


def test_only_the_same_questions_are_paired(tmp_path: Path) -> None:
    result = a_result([0.1, 0.2, 0.3])
    with pytest.raises(UsageError, match="asked with images=8, and this with images=4"):
        against(result, a_result([0.1, 0.2, 0.3], images=8), "x")
    japanese = {**result, "languages": {"ja": {"per_class": [0.1, 0.2, 0.3]}}}
    assert against(result, japanese, "x")["languages"] == {}
    with pytest.raises(UsageError, match="cvqa has no classes to pair by"):
        check("cvqa", {}, {"evaluation": "cvqa"}, "x")
    with pytest.raises(InputError, match="run `trainer eval"):
        read(str(tmp_path), "pool")


def test_a_model_against_itself_differs_by_nothing(
    clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", str(clip_folder), "pool", "concepts=20", "images=2", "size=32"]
    assert main([*words, "languages=[en,de]", "--to", str(tmp_path)]) == 0
    to = ["--to", str(tmp_path / "second"), "--against", str(tmp_path)]
    assert main([*words, "languages=[en]", *to]) == 0
    printed = capsys.readouterr().out
    assert f"accuracy minus that of {tmp_path}, paired by class:" in printed
    result = json.loads((tmp_path / "second" / "eval" / "pool.json").read_text())
    assert result["against"]["languages"] == {
        "en": {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 20.0}
    }
    assert main([*words, "--against", str(tmp_path / "none")]) == 3
