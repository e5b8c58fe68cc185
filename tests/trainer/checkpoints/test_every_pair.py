"""Some of the pairs of ZeRO stages and ranks; the module itself does all 288."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.trainer.checkpoints import every_pair

HELD = {"tensors": {"w": dict.fromkeys(("masters", "exp_avg", "exp_avg_sq", "forward"), "a")}}


@pytest.mark.slow
def test_some_pairs_continue_as_the_run_that_went_on() -> None:
    command = [sys.executable, "-m", "tests.trainer.checkpoints.every_pair", "--slice", "6"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout
    found = json.loads(done.stdout)
    assert found["faults"] == [] and found["pairs"] == 6 and found["mismatched_hashes"] == 0
    assert 0 < found["later_losses_apart"]["fp32"] <= 1e-6


def test_every_pair_is_there_once() -> None:
    keys = every_pair.pairs()
    assert len(keys) == len(set(keys)) == 2 * 12 * 12


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda on: on["held"]["tensors"]["w"].update(forward="b"), "forward of w"),
        (lambda on: on["held"].update(steps=[4]), "is not what was saved"),
        (lambda on: on.update(ranks_apart=[1]), "ranks [1] hold something else"),
        (lambda on: on["losses"].__setitem__(0, 5.00001), "losses differ by 2.0e-06"),
        (lambda on: on["losses"].__setitem__(20, 5.00001), "then 2.0e-06"),
    ],
)
def test_what_is_not_as_promised_is_a_fault(change: object, says: str) -> None:
    key = ("on", "fp32", 2, 1, 4, 3)
    whole = {"held": {**HELD, "steps": [3]}, "ranks_apart": [], "losses": [5.0] * 21}
    done = {("whole", "fp32", 2, 1): whole, key: copy.deepcopy(whole)}
    assert every_pair.compared(done, [key])["faults"] == []
    assert callable(change)
    change(done[key])
    (fault,) = every_pair.compared(done, [key])["faults"]
    assert says in fault
