"""Captions that no pair can be made of: refused by reason in the stages after ingest."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.dataset import open_dataset
from schemas.manifest import Manifest
from tests.bad_input.command import dataflows, rows_of
from tests.bad_input.making import jsonl
from tests.dataflows.conftest import write_metadata

# caption -> (stage that refuses it, reason, dead letter)
CASES: dict[str, tuple[str, str, str, bool]] = {
    "NUL": ("a dog\0 and a cat", "pool", "nul_in_text", True),
    "only NUL": ("\0", "pool", "nul_in_text", True),
    "1 MB": ("dog " * 262_144, "pool", "text_too_long", True),
    "100,001 bytes": ("x" * 100_001, "pool", "text_too_long", True),
    "white space": (" \t\n\u3000", "pool", "empty_text", False),
    "unknown language": ("แมวนอนอยู่บนโต๊ะในบ้าน", "matches", "language_without_metadata", False),
    "nothing known": ("zxqv zxqw zxqy", "matches", "", False),
}


@pytest.fixture(scope="module")
def output(place: Path) -> Path:
    write_metadata(place / "metadata", ("en",))
    rows = [
        {"url": f"http://example.org/{n}.jpg", "text": text}
        for n, (text, _, _, _) in enumerate(CASES.values())
    ]
    good = [{"url": f"http://example.org/good{n}.jpg", "text": "a dog and a cat"} for n in range(5)]
    source = jsonl(place / "pool.jsonl", [*rows, *good])
    code, said = dataflows(
        "run", "metaclip2", f"input={source}", f"metadata={place / 'metadata'}",
        f"output={place / 'out'}", "p=0.5", "buckets=2",
    )  # fmt: skip
    assert code == 0, said
    return place / "out"


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_refused_by_reason(output: Path, name: str) -> None:
    _, stage, reason, letter = CASES[name]
    manifest: Manifest = open_dataset(str(output / stage)).manifest
    counted = {row["reason"]: row["count"] for row in manifest.counts if row["kind"] == "rejected"}
    if reason:
        alike = sum(1 for _, s, r, _ in CASES.values() if (s, r) == (stage, reason))
        assert counted[reason] == alike
    else:  # what no language identifier agrees on is refused for one of two reasons
        assert counted["language_without_metadata"] + counted.get("no_entry_matched", 0) == 2
    if letter:
        found = rows_of(output / f"{stage}.dead_letters").column("reason").to_pylist()
        assert found.count(reason) == counted[reason]


@pytest.mark.slow
def test_the_others_arrive(output: Path) -> None:
    assert rows_of(output / "pool").num_rows == 7
    matched = rows_of(output / "matched").column("url").to_pylist()
    assert sorted(matched) == [f"http://example.org/good{n}.jpg" for n in range(5)]
