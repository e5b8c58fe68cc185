"""Doubled, disordered and late bundles change nothing: neither rows nor counts nor files."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.dataset import open_dataset
from schemas.verify import verify
from tests.dataflows.conftest import Run
from tests.dataflows.test_runners import STAGES, digests
from tests.faults import duplicates, matrix


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_doubled_disordered_and_late_bundles_leave_the_same_datasets(
    small_run: Run, baseline: Path, tmp_path: Path, seed: int
) -> None:
    output = tmp_path / "out"

    def disturbed() -> None:
        duplicates.install(seed)
        small_run(output)
        print(f"seed {seed}: {duplicates.late()} calls came late")

    assert matrix.in_child(disturbed) == 0
    assert digests(output) == digests(baseline)
    for name in STAGES:
        place = open_dataset(output / name).storage
        assert verify(place) == []


def test_the_disturbance_is_noticed_where_nothing_guards_against_it() -> None:
    """A plain sum over fragments counts the doubled one twice: the harness has teeth."""
    import random

    import pyarrow as pa

    fragments = [pa.table({"n": [1]}), pa.table({"n": [2]})]
    disturbed = duplicates._disordered(fragments, random.Random(0))
    assert len(disturbed) == 3
    assert sum(t.column("n")[0].as_py() for t in disturbed) > 3
