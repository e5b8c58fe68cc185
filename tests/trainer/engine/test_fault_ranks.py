"""Faults met by one rank of two, at every stage and precision: nothing of them is left on any rank."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.trainer.engine.fault_ranks import BEFORE, FAULTS, STEPS, cases
from tests.trainer.engine.test_two_ranks import run_module

pytestmark = pytest.mark.slow
Found = dict[str, dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    file = tmp_path_factory.mktemp("faults") / "found.json"
    ended = run_module("tests.trainer.engine.fault_ranks", str(file), seconds=280)
    assert [code for code, _ in ended] == [0, 0], ended
    return json.loads(file.read_text())  # type: ignore[no-any-return]


SAID = {
    "loss": "the loss is not finite",
    "gradient": "the gradient is not finite",
    "large": "is a spike: above",
    "steep": "the gradient's norm",
}


@pytest.mark.parametrize("case", list(cases()))
def test_a_fault_is_decided_by_both_ranks_and_changes_nothing(found: Found, case: str) -> None:
    for rank in found[case]["faulty"]:
        assert set(rank["raised"]) == {str(step) for step in FAULTS}
        for step, kind in FAULTS.items():
            assert SAID[kind] in rank["raised"][str(step)]
        assert rank["changed"] == []
    first, second = found[case]["faulty"]
    assert first["raised"] == second["raised"]
    assert first["held"] == second["held"]


@pytest.mark.parametrize("case", list(cases()))
def test_later_steps_are_bit_for_bit_those_of_a_run_without_the_faults(
    found: Found, case: str
) -> None:
    for faulty, plain in zip(found[case]["faulty"], found[case]["plain"], strict=True):
        assert len(plain["held"]) == STEPS - len(FAULTS) - BEFORE - 1
        assert faulty["losses"] == plain["losses"]
        assert faulty["held"] == plain["held"]
