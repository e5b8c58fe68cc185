"""The corpus itself: many cases, each with what must be said."""

from __future__ import annotations

from tests.bad_input import (
    test_captions,
    test_folder,
    test_images,
    test_jsonl_rows,
    test_parquet_rows,
    test_places,
    test_refused,
    test_tar,
    test_wat,
)

TABLES = (
    test_captions.CASES, test_folder.ROWS, test_images.CASES, test_jsonl_rows.CASES,
    test_parquet_rows.CASES, test_parquet_rows.KEYED, test_places.SPOILT, test_refused.CASES,
    test_tar.SAMPLES, test_tar.DAMAGE, test_wat.ENVELOPES, test_wat.DAMAGE,
)  # fmt: skip


def test_there_are_at_least_a_hundred_cases() -> None:
    assert sum(len(table) for table in TABLES) >= 100


def test_each_says_what_must_be_said() -> None:
    silent = [
        name
        for table in TABLES
        for name, case in table.items()
        if not any(isinstance(part, str) and part for part in case[1:]) and name != "nothing known"
    ]
    assert silent == []
