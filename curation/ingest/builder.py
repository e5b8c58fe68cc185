"""Collecting records one by one into bounded RAW tables, for formats that are not columnar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curation.ingest.options import TABLE_BYTES, TABLE_ROWS
from curation.ingest.records import Bad, Raw, raw_table
from curation.ingest.texts import as_lists

Pairs = Sequence[tuple[str, bytes | None]]


class Builder:
    """Rows until a table is full: ``add`` and ``refuse``, then ``take`` when ``full``."""

    def __init__(self, max_bytes: int = TABLE_BYTES, max_rows: int = TABLE_ROWS) -> None:
        self._max_bytes, self._max_rows = max_bytes, max_rows
        self._clear()

    def _clear(self) -> None:
        self._columns: dict[str, list] = {
            name: [] for name in ("position", "url", "image", "path", "id", "sha256", "score")
        }
        self._counts: list[int] = []
        self._keys: list[str] = []
        self._texts: list[bytes | None] = []
        self._bad: list[Bad] = []
        self._wrong: list[tuple[int, str, str]] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._counts) + len(self._bad)

    @property
    def full(self) -> bool:
        """Whether the next row should go to another table."""
        return self._bytes >= self._max_bytes or len(self) >= self._max_rows

    def fits(self, size: int) -> bool:
        """Whether a row of ``size`` bytes fits in beside those at hand; the first always does."""
        return not len(self) or self._bytes + size <= self._max_bytes

    def add(
        self,
        position: int,
        texts: Pairs,
        *,
        url: bytes | None = None,
        image: bytes | None = None,
        path: str | None = None,
        id: bytes | None = None,  # noqa: A002 - the column's name
        sha256: bytes | None = None,
        score: float | None = None,
        wrong: tuple[str, str] | None = None,
    ) -> None:
        """Add a record; ``wrong`` is the (reason, error) of one that parsed but may not pass."""
        if wrong is not None:
            self._wrong.append((len(self._counts), *wrong))
        values = (position, url, image, path, id, sha256, score)
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)
        self._counts.append(len(texts))
        self._bytes += 64 + len(url or b"") + len(image or b"")
        for key, text in texts:
            self._keys.append(key)
            self._texts.append(text)
            self._bytes += len(text or b"") + len(key)

    def refuse(self, bad: Bad) -> None:
        """Add a piece of input that is no record."""
        self._bad.append(bad)
        self._bytes += 64 + len(bad.raw)

    def take(self) -> Raw:
        """The table so far; the builder is empty afterwards."""
        types = {"position": pa.int64(), "path": pa.string(), "score": pa.float64()}
        arrays = {
            name: pa.array(values, types.get(name, pa.binary()))
            for name, values in self._columns.items()
            if name != "sha256"
        }
        arrays["sha256"] = pa.array(self._columns["sha256"], pa.binary(32))
        arrays["texts"] = as_lists(
            np.array(self._counts, np.int64),
            pa.array(self._keys, pa.string()),
            pa.array(self._texts, pa.binary()),
        )
        raw = Raw(raw_table(arrays, len(self._counts)), self._bad, self._wrong)
        self._clear()
        return raw
