"""What training refuses, through the real commands; the module itself prints the cases."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.slow
def test_bad_input_is_refused_with_the_value_and_the_fix() -> None:
    command = [sys.executable, "-m", "tests.trainer.bad_input"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["faults"] == [] and done.returncode == 0
    assert found["cases"] >= 28
