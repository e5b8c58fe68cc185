"""`trainer claims`: records, the tables of a README, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer.claims import fake_claim
from trainer.claims import records
from trainer.cli import main


def claims(*words: str) -> int:
    return main(["claims", *words])


@pytest.fixture
def recorded(checkout: Path, tmp_path: Path) -> Path:
    """A checkout with the record of the fake claim."""
    assert claims("run", "fake", "words=two words", "--work", str(tmp_path / "work")) == 0
    return checkout


def test_a_record_says_how_it_came_about(recorded: Path) -> None:
    record = records.load("fake")
    assert record.command == "trainer claims run fake 'words=two words'"
    assert (record.seeds, record.sources) == ([0, 1], ["fake.py"])
    assert record.values["scores"]["high-1"] == 0.625
    assert records.stale("fake") is None
    (recorded / "fake.py").write_text("x = 2\n")
    assert "is stale" in str(records.stale("fake"))


def test_the_readme_shows_the_record(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = recorded / "README.md"
    assert claims("report", "--check") == 1
    assert "run `trainer claims report --write`" in capsys.readouterr().err
    assert claims("report", "--write") == 0
    text = readme.read_text()
    head, _, rest = text.partition("<!-- claim fake -->")
    body, _, tail = rest.partition("<!-- end of claim fake -->")
    assert (head, tail) == ("# Title\n\n", "\n\nThe end\n")
    assert "**Fake: one is above the other.** Metric, fixed before the run: a number. " in body
    assert "| high-1 | 0.625 |" in body and "old" not in body
    assert claims("report", "--check") == 0
    assert claims("report", "--write") == 0 and readme.read_text() == text
    (recorded / "fake.py").write_text("x = 2\n")
    assert claims("report", "--check") == 1
    assert claims("report") == 0  # shows it, and says so
    assert "is stale" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        "<!-- claim fake --> and no end",
        "<!-- end of claim fake --><!-- claim fake -->",
    ],
)
def test_a_readme_without_markers_is_refused(
    recorded: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (recorded / "README.md").write_text(text)
    assert claims("report", "--write") == 1
    assert "README.md has no `<!-- claim fake -->`" in capsys.readouterr().err
    assert (recorded / "README.md").read_text() == text


def test_a_claim_that_does_not_hold_is_recorded_and_exits_with_1(
    checkout: Path, tmp_path: Path
) -> None:
    values = tmp_path / "new" / "values.json"
    work = ("--work", str(tmp_path / "work"))
    assert claims("run", "fake", "words=reversed", "--json", str(values), *work) == 1
    assert json.loads(values.read_text())["holds"] is False
    assert not (checkout / "records").exists()  # --json writes no record
    assert claims("run", "fake", "words=reversed", *work) == 1
    assert records.load("fake").values["holds"] is False


def test_a_slice_does_its_tasks_again(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    path = recorded / "records" / "fake.json"
    changed = json.loads(path.read_text())
    changed["values"]["scores"]["high-1"] = 0.5
    path.write_text(json.dumps(changed))
    capsys.readouterr()
    # In the folder that made the record: its results are not taken for new ones.
    words = ("--slice", "high-1,low-0", "--lanes", "1", "--work", str(work))
    assert claims("run", "fake", *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "scores": {"high-1": [0.625, 0.5], "low-0": [0.25, 0.25]},
        "largest_difference": 0.125,
    }
    made = next(work.glob("slice-*/fake"))
    assert [e for e in fake_claim.events(made) if e.startswith("begin")] == [
        "begin data",
        *[f"begin {task}" for task in ("low-0", "high-1")],
    ]


def test_what_cannot_be_run_is_named(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        ("run", "fke"): "fke: unknown claim.",
        ("run", "fake", "--lanes", "0"): "--lanes 0: give 1 or more",
        ("run", "fake", "--slice", "data"): "--slice data: the record has no score",
        ("run", "fake", "--slice", ""): "the record has no score",
        ("run", "fake", "--slice", "high-0", "--lanes", "0"): "--lanes 0: give 1 or more",
        ("run", "fake", "words=x", "--slice", "high-0"): "leave out words=x",
        ("run", "fake", "seeds=x"): "(see `trainer claims list`)",
        ("task", "fake", "other"): "no task 'other'",
    }
    for words, message in cases.items():
        assert claims(*words, "--work", str(tmp_path / "other")) == 2, words
        said = capsys.readouterr().err
        assert message in said and "fault of this program" not in said
