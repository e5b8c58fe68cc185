"""The probability with which each entry keeps its texts, and with which each text is kept.

A text with matched entries i is kept with probability 1 - prod(1 - prob[i]): the closed form of
drawing entry by entry until one says keep (MetaCLIP 2, algorithm 1; curation/curate.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.metaclip2.counts import LanguageCounts, by_language
from curation.metaclip2.thresholds import Thresholds, entry_probability
from schemas.errors import IntegrityError

Entries = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]
_FIELDS = pa.schema(
    [
        ("metadata", pa.string()),
        ("entries", pa.list_(pa.uint32())),
        ("probability", pa.list_(pa.float64())),
    ]
)


class Probabilities:
    """Entry probabilities of every language, sparse: ascending entries and float64 beside them.

    Made from counts and thresholds or from a BALANCE table; ``write`` puts them in a file that
    ``open`` maps, so that all workers of a machine share its pages.
    """

    def __init__(self, languages: Mapping[str, tuple[Entries, Floats]]) -> None:
        self._languages = dict(sorted(languages.items()))

    @classmethod
    def of_counts(
        cls, counts: Mapping[str, LanguageCounts], thresholds: Thresholds
    ) -> Probabilities:
        """Return the probabilities that the thresholds give the counted entries."""
        return cls(
            {
                key: (counts[key].entries, entry_probability(counts[key].counts, found.t))
                for key, found in thresholds.languages.items()
            }
        )

    @classmethod
    def of_table(cls, balance: pa.Table) -> Probabilities:
        """Return those of a whole BALANCE table, sorted by (metadata, entry)."""
        probability = balance["probability"].to_numpy()
        languages, start = {}, 0
        for key, counts in by_language(balance).items():
            end = start + len(counts.entries)
            languages[key] = (counts.entries, probability[start:end])
            start = end
        return cls(languages)

    def write(self, path: Path) -> None:
        """Write one Arrow file; equal probabilities give equal bytes."""
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _FIELDS) as writer:
            for key, (entries, probability) in self._languages.items():
                columns = [
                    pa.array([key], pa.string()),
                    _one_list(entries, pa.uint32()),
                    _one_list(probability, pa.float64()),
                ]
                writer.write_batch(pa.record_batch(columns, schema=_FIELDS))

    @classmethod
    def open(cls, path: Path) -> Probabilities:
        """Map a file that ``write`` wrote; nothing is read until it is looked up."""
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        languages = {}
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            entries, probability = (batch.column(c).flatten().to_numpy() for c in (1, 2))
            languages[batch.column(0)[0].as_py()] = (entries, probability)
        return cls(languages)

    def languages(self) -> Iterator[str]:
        """Yield the metadata keys, sorted."""
        yield from self._languages

    def look_up(self, metadata: str, entries: Entries) -> Floats:
        """Return float64[n], the probability of each entry; IntegrityError for one not counted."""
        known, probability = self._languages.get(metadata, (np.empty(0, np.uint32), np.empty(0)))
        at = np.searchsorted(known, entries)
        at[at == len(known)] = 0
        missing = (known[at] != entries) if len(known) else np.ones(len(entries), bool)
        if missing.any():
            raise IntegrityError(
                f"entry {entries[missing][0]} of {metadata!r} is matched but was never counted: "
                "these matches and these counts do not belong together"
            )
        return probability[at]


def keep_probability(
    metadata: pa.Array | pa.ChunkedArray,
    entries: pa.Array | pa.ChunkedArray,
    probabilities: Probabilities,
) -> Floats:
    """Return float64[n]: 1 - prod(1 - prob[i]) over the entries (list<uint32>) of each text.

    Exactly 1.0 as soon as one entry has probability 1. The product runs in ascending order of
    entries with plain IEEE multiplications, so every machine gets the same bits; the absolute
    error is below 1e-15, the resolution of the draw 1e-16.
    """
    lists = entries.combine_chunks() if isinstance(entries, pa.ChunkedArray) else entries
    lengths = pc.list_value_length(lists).to_numpy()
    if len(lengths) == 0:
        return np.empty(0)
    if lengths.min() == 0:
        raise IntegrityError(
            f"row {int(lengths.argmin())} has no matched entry; drop such texts first"
        )
    keys = metadata.combine_chunks() if isinstance(metadata, pa.ChunkedArray) else metadata
    encoded = keys.dictionary_encode()
    codes = np.repeat(encoded.indices.to_numpy(), lengths)
    values = lists.flatten().to_numpy()
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
    miss = np.empty(len(values))
    for key, a, b in zip(encoded.dictionary.to_pylist(), edges[:-1], edges[1:], strict=True):
        rows = order[a:b]
        miss[rows] = 1.0 - probabilities.look_up(key, values[rows])
    starts = np.cumsum(lengths) - lengths
    return 1.0 - np.multiply.reduceat(miss, starts)


def _one_list(values: npt.NDArray, kind: pa.DataType) -> pa.Array:
    # 32-bit offsets hold every list of entry numbers, which are 32-bit themselves and unique.
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), pa.array(values, kind))
