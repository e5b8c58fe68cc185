"""Two runs into one place: at one time, one inside the other, and one where another began elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dataflows.cli import main
from dataflows.engine import run
from schemas.manifest import Manifest
from schemas.storage import storage
from tests.bad_input.command import dataflows, rows_of
from tests.bad_input.test_places import committed, source_of
from tests.support import ROOT


def started(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dataflows", "run", "ingest", *words]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_two_runs_into_one_place_at_one_time(tmp_path: Path, same: bool) -> None:
    source, output = source_of(tmp_path), tmp_path / "out"
    words = (f"input={source}", f"output={output}")
    runs = [started(*words), started(*words, *([] if same else ["limit=7"]))]
    said = [run.communicate(timeout=300)[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert not any("Traceback" in text for text in said)
    if same:
        assert codes == [0, 0], said
    else:  # the second to commit is told of the first
        assert sorted(codes) == [0, 4], said
        loser = said[codes.index(4)]
        assert Manifest.load(storage(str(output / "records"))).digest[:12] in loser
    rows = rows_of(output / "records").num_rows
    assert rows == (30 if same or codes[0] == 0 else 7)
    assert dataflows("verify", str(output / "records"))[0] == 0


def test_another_run_that_commits_before_our_job_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit clears our job's result away: we are told of it, and of no job without a result."""
    words = ("run", "ingest", f"input={source_of(tmp_path)}", f"output={tmp_path}/out")
    submit, others = run._submit, []

    def interleaved(*arguments: Any) -> None:
        submit(*arguments)
        if not others:
            others.append(words)
            assert dataflows(*words)[0] == 0

    monkeypatch.setattr(run, "_submit", interleaved)
    code, said = dataflows(*words, "limit=7")
    assert code == 4, said
    assert "was committed meanwhile by another run" in said
    assert rows_of(tmp_path / "out" / "records").num_rows == 30
    assert dataflows("verify", f"{tmp_path}/out/records")[0] == 0


def test_raw_input_into_the_output_of_a_run_that_began_with_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lies there was made from records elsewhere, so nothing is committed beside it unasked."""
    records = committed(tmp_path)
    words = ("run", "metaclip2", f"output={tmp_path}/next", "metadata=builtin", "p=0.06")
    assert dataflows(*words, f"input={records}")[0] == 0
    raw = (*words, f"input={tmp_path}/pool.jsonl")
    code, said = dataflows(*raw)
    assert code == 4, said
    digest = Manifest.load(storage(str(records))).digest
    assert f"{digest[:12]}, and records is not in this output" in said
    assert not (tmp_path / "next" / "records").exists()
    capsys.readouterr()
    assert main(["plan", *raw[1:]]) == 0
    assert "refused without --replace: pool" in capsys.readouterr().out
    code, said = dataflows(*raw, "--replace")
    assert code == 0, said
    assert rows_of(tmp_path / "next" / "records").num_rows == 30
