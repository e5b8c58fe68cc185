"""The small experiments: the directions they must show, and the command that prints them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from curation.metaclip2 import experiments
from curation.metaclip2.counts import by_language, count
from curation.metadata import builtin
from dataflows.cli import main
from schemas.errors import InputError


@pytest.fixture(scope="module")
def table():
    return experiments.run_synthetic(0)


def test_one_seed_shows_the_directions(table) -> None:
    assert experiments.synthetic_faults(table) == []
    rows = {row["language"]: row for row in table.to_pylist()}
    tails = [rows[key]["tail_shared"] for key in ("en", "es", "vi", "sw")]
    assert tails == sorted(tails)
    assert all(abs(row["tail"] - row["p"]) <= 0.01 for row in rows.values())
    assert rows["en"]["share"] > rows["en"]["share_shared"] + 0.05
    # The reference run of the spec (section 11 A): keep rates within a few points.
    for key, shared, own in (("en", 0.466, 0.466), ("es", 0.688, 0.468), ("sw", 0.875, 0.549)):
        assert rows[key]["keep_shared"] == pytest.approx(shared, abs=0.03)
        assert rows[key]["keep"] == pytest.approx(own, abs=0.03)


def test_the_generator_does_what_it_says() -> None:
    matches = experiments.synthetic_matches(1)
    counts = by_language(count(matches))
    lengths = np.array([len(e) for e in matches["entries"].to_pylist()])
    assert lengths.min() == 1
    assert lengths.max() == experiments.MOST_MATCHES
    for key, texts, entries in experiments.LANGUAGES:
        own = counts[key]
        assert len(own.entries) == entries
        # Zipf: deep in the list a count is matches / (rank * H); equal entries of a text merge.
        draws = 3.5 * texts
        harmonic = (1 / np.arange(1, entries + 1)).sum()
        rank = np.arange(entries // 2, entries)
        expected = draws / harmonic / (rank + 1)
        assert np.abs(own.counts[rank] - expected).max() <= 0.05 * expected.max() + 1.5
    assert not matches.equals(experiments.synthetic_matches(2))


def test_a_table_that_shows_the_opposite_is_told(table) -> None:
    rows = table.to_pylist()
    wrong = [{**row, "tail_shared": -row["tail_shared"], "gap": 0.02, "share": 0.1} for row in rows]
    faults = experiments.synthetic_faults(type(table).from_pylist(wrong))
    assert len(faults) == 6
    assert "tail should rise en < es < vi < sw" in faults[0]
    assert "English share should rise" in faults[-1]


def test_french_stamp_captions(shared_data: Path) -> None:
    path = shared_data / "tuxpaint-captions" / "images_captions.parquet"
    captions = experiments.read_captions(path, "fr")
    found = experiments.run_captions(captions, builtin.load(["fr"])["text"].to_pylist(), "fr")
    assert (found.texts, found.entries) == (598, 55_366)
    assert 2 < found.matches_per_text < 10
    assert found.unmatched < 0.1
    assert {"Un", "de"} <= set(found.top_entries)
    # So few texts on so many entries leave the threshold nothing to work on, and it is said.
    assert [row["t"] for row in found.thresholds] == [1, 1, 1, 1]
    (warning,) = found.warnings
    assert "t = 1" in warning


def test_captions_that_cannot_be_read(tmp_path: Path) -> None:
    good = tmp_path / "good.jsonl"
    good.write_text('{"captions": {"fr": "Un chat."}}\n{"captions": {"en": "A cat."}}\n')
    assert experiments.read_captions(good, "fr") == ["Un chat."]
    with pytest.raises(InputError, match="no caption in language 'xx'"):
        experiments.read_captions(good, "xx")
    for name, content in (("a.jsonl", b"{"), ("b.jsonl", b"[1]"), ("c.parquet", b"no")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=name):
            experiments.read_captions(path, "fr")
    with pytest.raises(InputError, match="absent"):
        experiments.read_captions(tmp_path / "absent.jsonl", "fr")


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "numbers" / "x.json"
    assert main(["experiments", "metaclip2", "--seeds", "1", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    for expected in ("seed 0, p = 0.05", "t from p", "B. Captions (fr)", "Shown for each of 1"):
        assert expected in printed
    numbers = json.loads(out.read_text())
    assert [row["language"] for row in numbers["synthetic"]["rows"]] == ["en", "es", "vi", "sw"]
    assert numbers["synthetic"]["faults"] == []
    assert numbers["captions"]["texts"] > 300


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiments", "metaclip2", "--seeds", "0"]) == 2
    assert "0 is not a number of at least 1" in capsys.readouterr().err
    assert main(["experiments", "metaclip2", "--language", "xx"]) in (2, 3)
    assert "xx" in capsys.readouterr().err
    assert main(["experiments", "cocomix"]) == 2
