"""Which classes of the generated pool a data run saw rarely: their English counts, and its t."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from curation.metaclip2.text import is_word, normalise
from schemas.dataset import Dataset, open_dataset
from schemas.errors import InputError
from schemas.storage import storage

ENGLISH = "en"


@dataclass(frozen=True)
class EnglishCounts:
    """English of a curation run: threshold t, matched texts of each counted entry, its digest."""

    t: int
    counts: dict[str, int]
    digest: str

    def of_name(self, name: str) -> int | None:
        """Return the matched texts of the rarest entry that a class's English name matches.

        The rarest decides, for a text is kept for sure as soon as one of its entries is in the tail;
        it is the whole name where that is an entry. None if no entry of the name was matched.
        """
        found = [self.counts[part] for part in parts(name) if part in self.counts]
        return min(found, default=None)

    def tail(self, names: Sequence[str]) -> list[bool]:
        """Return which classes have an English count below t; those without any count have not."""
        counts = [self.of_name(name) for name in names]
        return [count is not None and count < self.t for count in counts]


def parts(name: str) -> set[str]:
    """Return every string that occurs in a name by the rule of matching (`occurs` in
    `curation.metaclip2.reference`): no edge lies between two word characters."""
    text = normalise(name)
    word = [is_word(char) for char in text]
    edges = [i for i in range(len(text) + 1) if not (0 < i < len(text) and word[i - 1] and word[i])]
    return {text[i:j] for i in edges for j in edges if i < j}


def english_counts(run: str) -> EnglishCounts:
    """Read the `balance` dataset of a committed `dataflows run metaclip2`.

    InputError if the run has none, or English was not counted on its own (isolation=false).
    """
    balance = _dataset(run, "balance")
    stats: dict[str, Any] = balance.manifest.stats.get("languages", {})
    if ENGLISH not in stats:
        raise InputError(
            f"{balance.storage.url}: no English threshold (it has {', '.join(stats) or 'none'}); "
            "counts of English need a run with isolation=true that matched English texts"
        )
    counts: dict[str, int] = {}
    for table in balance.tables(["metadata", "text", "count"]):
        rows = table.filter(pc.equal(table["metadata"], ENGLISH))
        texts = (normalise(text) for text in rows["text"].to_pylist())
        counts.update(zip(texts, rows["count"].to_pylist(), strict=True))
    return EnglishCounts(int(stats[ENGLISH]["t"]), counts, balance.manifest.digest)


def seen(run: str, urls: Sequence[str]) -> int:
    """Return how many of the URLs are in the run's `pool`, from which every training set is drawn."""
    import pyarrow as pa

    wanted = pa.array(urls, pa.string())
    found: set[str] = set()
    for table in _dataset(run, "pool").tables(["url"]):
        column = table["url"]
        found.update(column.filter(pc.is_in(column, value_set=wanted)).to_pylist())
    return len(found)


def _dataset(run: str, name: str) -> Dataset:
    try:
        return open_dataset(storage(run).at(name))
    except InputError as error:
        raise InputError(
            f"run={run}: {error}. Give the output directory of `dataflows run metaclip2`"
        ) from None
