"""Calling the fetcher in tests."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa

from curation.fetch import FETCH_ROWS, FetchOptions, fetch

OPTIONS: dict[str, Any] = {
    "contact": "tests@example.org",
    "timeout": 1.0,
    "deadline": 2.5,
    "max_bytes": 2**20,
    "max_pixels": 10**7,
    "requests_per_second": 1000.0,
    "max_retry_after": 4.0,
    "retries": 1,
}


def options(**values: Any) -> FetchOptions:
    return FetchOptions(**{**OPTIONS, **values})


def table(urls: list[str | None]) -> pa.Table:
    ids = [hashlib.sha256(str((i, url)).encode()).digest()[:16] for i, url in enumerate(urls)]
    return pa.table({"image_id": pa.array(ids, pa.binary(16)), "url": pa.array(urls, pa.string())})


def ask(urls: list[str | None], share: int = 1, **values: Any) -> list[dict[str, Any]]:
    """The rows for the URLs in the order given; there is exactly one for each."""
    asked = table(urls)
    parts = list(fetch(asked, options(**values), share))
    assert all(part.schema == FETCH_ROWS for part in parts)
    rows = [row for part in parts for row in part.to_pylist()]
    assert len(rows) == asked.num_rows
    by_id = {row["image_id"]: row for row in rows}
    return [by_id[image_id] for image_id in asked["image_id"].to_pylist()]
