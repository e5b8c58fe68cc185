from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dataflows.cli import main
from tests.dataflows.report.build import STAGES, Builder
from tests.page.html import numbers

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def copy(few: Builder, tmp_path: Path) -> Path:
    """A run of one's own to damage."""
    shutil.copytree(few.root.url, tmp_path / "run")
    return tmp_path / "run"


def test_report_writes_one_file_and_says_where(copy: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["report", str(copy)]) == 0
    assert capsys.readouterr().out.startswith(f"{copy}/report.html (")
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    out = tmp_path / "deep" / "er" / "page.html"
    assert main(["report", str(copy), "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == page
    assert main(["report", str(copy / "curated")]) == 0
    assert (copy / "curated.report.html").is_file()
    assert not list((copy / "curated").glob("*.html"))
    assert main(["verify", str(copy)]) == 0  # pages are no strangers


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["report", "{}/nowhere"], 3, "is not a directory"),
        (["report", "{}/empty"], 3, "holds no committed dataset"),
        (["report", "{}/run", "--out", "{}/empty"], 2, "is a directory; name a file"),
        (["verify", "{}/empty"], 3, "holds no committed dataset"),
        (["inspect", "{}/nowhere"], 3, "is not a directory"),
        (["inspect", "{}/run/pool", "--rows", "-1"], 2, "give a number from 0"),
        (["what-if", "{}/run", "q=3"], 2, "give p=0.03 or t_en=500"),
        (["what-if", "{}/run", "p=x"], 2, "p must be a number"),
        (["what-if", "{}/run", "t_en=1.5"], 2, "t_en must be a whole number"),
        (["what-if", "{}/run", "p=7"], 2, "give a number from 0 to 1"),
        (["what-if", "{}/run/pool", "p=0.1"], 3, "has no automata, counts, sample, balance"),
        (["what-if", "{}/run"], 2, "required: p=P | t_en=T"),
    ],
)
def test_errors_name_the_value_and_the_fix(
    copy: Path, tmp_path: Path, capsys: Capture, words: list[str], code: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    assert main([word.format(tmp_path) for word in words]) == code
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_verify_of_a_run_names_each_dataset(copy: Path, capsys: Capture) -> None:
    assert main(["verify", str(copy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == sorted([*STAGES, "pool.dead_letters"])
    assert all(": as committed, " in line for line in lines)


def test_verify_finds_a_changed_byte_a_stranger_and_an_edited_manifest(
    copy: Path, capsys: Capture
) -> None:
    [shard] = (copy / "matched" / "data").iterdir()
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(data)
    (copy / "pool" / "data" / "stranger.parquet").write_bytes(b"x")
    head = copy / "counts" / "manifest.json"
    edited = json.loads(head.read_text(encoding="utf-8"))
    edited["totals"]["rows"] += 1
    head.write_text(json.dumps(edited), encoding="utf-8")
    assert main(["verify", str(copy)]) == 1
    told = capsys.readouterr()
    assert f"{shard} was changed" in told.out
    assert "stranger.parquet is a stranger" in told.out
    assert "counts: " in told.out and "edited by hand" in told.out
    assert "3 faults in 3 of 11 datasets" in told.err
    assert main(["verify", str(copy / "balance")]) == 0
    # A page from damaged data is refused, with the field that disagrees.
    assert main(["report", str(copy)]) == 5
    assert "edited by hand" in capsys.readouterr().err


def test_inspect_shows_a_dataset_on_a_safe_terminal(few: Builder, capsys: Capture) -> None:
    assert main(["inspect", few.root.at("curated").url, "--rows", "20"]) == 0
    told = capsys.readouterr().out
    manifest = few.open("curated").manifest
    assert manifest.digest in told and few.open("matched").manifest.digest in told
    assert f"{manifest.rows} rows" in told
    for row in manifest.counts:
        assert f"{row['count']:>14,}" in told
    assert told.count("\nrow ") == manifest.rows
    assert not set(told) & set("\x1b\x07\x9b\u202e\u2066\x00\ufeff")
    assert max(map(len, told.splitlines())) < 2100
    for column in few.open("curated").schema:
        assert f"column    {column.name}" in told


def test_inspect_of_a_run_lists_its_datasets(few: Builder, capsys: Capture) -> None:
    assert main(["inspect", few.root.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(STAGES) + 1
    for stage in STAGES:
        [line] = [line for line in lines if line.split()[0] == stage]
        assert numbers(line)[0] == few.open(stage).manifest.rows


def test_inspect_reads_no_more_than_asked(few: Builder, capsys: Capture) -> None:
    assert main(["inspect", few.root.at("metadata").url, "--rows", "0"]) == 0
    assert "row 0" not in capsys.readouterr().out


def test_what_if_at_the_run_s_own_p_is_the_expectation(hostile: Builder, capsys: Capture) -> None:
    assert main(["what-if", hostile.root.url, "p=0.01,0.06", "t_en=20"]) == 0
    tables = capsys.readouterr().out.split("\n\n")
    assert len(tables) == 3
    assert "p = 0.06 (this run's)" in tables[1] and "t_en = 20" in tables[2]
    expected = hostile.open("matched").manifest.stats["total"]["expected"]
    assert f"  {round(expected):,} of " in tables[1]
    for key, facts in hostile.open("balance").manifest.stats["languages"].items():
        [line] = [line for line in tables[1].splitlines() if line.startswith(f"  {key} ")]
        assert numbers(line)[0] == facts["t"]


def test_the_commands_start_no_beam(few: Builder) -> None:
    script = (
        "import sys; from dataflows.cli import main\n"
        f"for words in (['report', {few.root.url!r}, '--out', '/dev/null'], "
        f"['inspect', {few.root.url!r}]):\n"
        "    assert main(words) == 0\n"
        "assert 'apache_beam' not in sys.modules and 'torch' not in sys.modules\n"
    )
    script = script.replace("'--out', '/dev/null'", "'--out', sys.argv[1]")
    out = Path(few.root.url).parent / "no-beam.html"
    subprocess.run([sys.executable, "-c", script, str(out)], check=True, capture_output=True)
