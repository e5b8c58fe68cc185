"""Answers of a unit: pictures pass through a file, each to its row, in order and in pieces."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pyarrow as pa
import pytest

import curation.fetch
from curation.fetch.rows import Row, table_of
from dataflows.pipelines.fetch import answers
from dataflows.pipelines.fetch.replay import _slices
from schemas.errors import IntegrityError
from schemas.ids import image_ids_of_urls
from schemas.table_schemas import FETCHED

OPTIONS = {"contact": "curator@example.org"}


def unit_of(count: int) -> pa.Table:
    urls = [f"https://x.example/{n}" for n in range(count)]
    return pa.table(
        {
            "unit": ["00000000-000000"] * count,
            "image_id": image_ids_of_urls(pa.array(urls)),
            "url": urls,
            "host": ["x.example"] * count,
            "share": pa.array([1] * count, pa.int32()),
        }
    )


def answering(monkeypatch: pytest.MonkeyPatch, size: int, missing: int = 0) -> None:
    """Every seventh URL is refused; the picture of another is its URL, ``size`` bytes long."""

    def fetch(rows: pa.Table, options: object, share: int = 1) -> Iterator[pa.Table]:
        found = [Row(row["image_id"], row["url"]) for row in rows.to_pylist()]
        random.Random(0).shuffle(found)
        for start in range(0, len(found) - missing, 8):
            some = found[start : min(start + 8, len(found) - missing)]
            for row in some:
                assert row.url is not None
                if int(row.url.rpartition("/")[2]) % 7 == 0:
                    row.reason, row.error = "fetch_dns", "no such host"
                else:
                    row.image = row.url.encode().ljust(size)
                    row.sha256, row.phash, row.http_status = bytes(32), 1, 200
                    row.width = row.height = row.original_width = row.original_height = 1
            yield table_of(some)

    monkeypatch.setattr(curation.fetch, "fetch", fetch)


def test_each_picture_comes_to_its_row_in_order_and_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering(monkeypatch, size=1000)
    monkeypatch.setattr(answers, "_PIECE_BYTES", 10_000)
    rows = unit_of(200)
    seen: list[int] = []
    first, *pieces = answers.ask(rows, OPTIONS, 1, seen.append)
    assert seen[-1] == 200 and seen == sorted(seen)
    good = {row["image_id"]: row["url"] for row in rows.to_pylist()
            if int(row["url"].rpartition("/")[2]) % 7}  # fmt: skip
    assert first.table.num_rows == 0
    assert first.dead is not None and first.dead.num_rows == 200 - len(good)
    assert first.ledger.count("image", "rejected", "fetch_dns") == 200 - len(good)
    assert all(piece.table.nbytes < 15_000 for piece in pieces) and len(pieces) > 10
    table = pa.concat_tables(piece.table for piece in pieces)
    assert table.schema.equals(FETCHED.arrow)
    ids = table["image_id"].to_pylist()
    assert ids == sorted(good)
    for row in table.to_pylist():
        assert (
            row["image"]["bytes"].rstrip() == row["url"].encode() == good[row["image_id"]].encode()
        )
    assert sum(piece.stats["bytes"] for piece in pieces) == 1000 * len(good)
    assert sum(piece.stats["with_image"] for piece in pieces) == len(good)


def test_nothing_fetched_and_an_answer_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, size=10)
    (only,) = answers.ask(unit_of(1), OPTIONS, 1)
    assert only.stats == {"with_image": 0, "bytes": 0}
    answering(monkeypatch, size=10, missing=1)
    with pytest.raises(IntegrityError, match="20 URLs were asked for and 19 answers"):
        list(answers.ask(unit_of(20), OPTIONS, 1))


def test_an_image_of_two_hosts_is_asked_for_apart() -> None:
    """Answers are told apart by image id."""
    rows = unit_of(30)
    twice = rows.set_column(1, "image_id", rows["image_id"].take([n // 3 for n in range(30)]))
    slices = list(_slices(twice))
    assert sorted(url for some in slices for url in some["url"].to_pylist()) == sorted(
        rows["url"].to_pylist()
    )
    for some in slices:
        assert len(set(some["image_id"].to_pylist())) == some.num_rows == 10
    assert list(_slices(rows.slice(0, 0))) == []
