"""Near duplicates by MinHash and banding: signatures, candidate pairs, clusters.

The chain, each step a function of a table and nothing else:

    signatures   documents        -> band hashes, one row a document
    buckets      signatures       -> one row a document and band, keyed by the band's hash
    pairs        whole buckets    -> CANDIDATES rows: a bucket's other documents and its first one
    clusters     all candidates   -> DUPLICATES rows: those that go, and for which document

Documents that share the hash of a band (8 of 112 slots, 14 bands by default: the settings of FineWeb
and datatrove) are candidates; for Jaccard similarity s of their 5-grams with the probability
1 - (1 - s^8)^14: 0.65 at 0.72, 0.92 at 0.8. Candidates are taken as duplicates, as in FineWeb and
datatrove, which do not verify them; with ``threshold`` a pair also needs that share of equal slots.
Of each connected component one document stays: the first by (validation split, id, file, position),
an order that does not depend on shards or workers, so neither does the result.

A text of fewer words than an n-gram is one n-gram, so it is a near duplicate only of texts with the
same words in the same order; one without words is a near duplicate of none. (datatrove compares
neither.) Texts of a script without spaces are compared by 2n characters (``kernels.minhash.words``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.id_sets import Bools, Indices, sort_words
from kernels import minhash
from schemas.errors import UsageError
from schemas.text_schemas import CANDIDATES, DUPLICATES

LEADERS = 8
"""With a threshold, so many documents of one bucket get to be compared with all the others left."""
_CHUNK = 1 << 16


@dataclass(frozen=True)
class NearOptions:
    """``words`` of an n-gram, ``bands`` times ``rows`` slots of a signature, the ``seed`` of their hash
    functions, and the least estimated Jaccard similarity of a pair (0: any candidate is one)."""

    words: int = 5
    bands: int = 14
    rows: int = 8
    seed: int = 1
    threshold: float = 0.0

    def __post_init__(self) -> None:
        for name, limit in (("words", 64), ("bands", 256), ("rows", 64)):
            if not 1 <= getattr(self, name) <= limit:
                raise UsageError(f"near.{name}={getattr(self, name)}: give 1 to {limit}")
        if self.slots > 4096:
            raise UsageError(f"near.bands x near.rows = {self.slots} slots; the limit is 4096")
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"near.threshold={self.threshold}: a similarity is 0 to 1")

    @property
    def slots(self) -> int:
        """Numbers in a signature."""
        return self.bands * self.rows

    def chance(self, similarity: float) -> float:
        """The probability that a pair of this Jaccard similarity is a candidate."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; ``from_json`` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> NearOptions:
        """Read what ``to_json`` wrote."""
        return cls(**raw)


def signatures(table: pa.Table, options: NearOptions) -> pa.Table:
    """doc_id, split, file, position, bands (list of uint64) of the documents that have words.

    ``table`` has those columns and text. With a threshold there is also signature: the slots (uint32,
    little-endian) as binary. About 150 bytes a document, or 600 with signatures.
    """
    slots = minhash.signatures(table["text"], options.words, options.slots, options.seed)
    held = np.flatnonzero((slots != minhash.EMPTY).any(axis=1))
    slots = slots[held]
    hashes = minhash.band_hashes(slots, options.bands)
    bands = pa.FixedSizeListArray.from_arrays(pa.array(hashes.ravel()), options.bands)
    out = table.select(["doc_id", "split", "file", "position"]).take(pa.array(held))
    out = out.append_column("bands", bands)
    if not options.threshold:
        return out
    packed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(4 * options.slots),
        len(slots),
        [None, pa.py_buffer(slots.astype("<u4").tobytes())],
    )
    return out.append_column("signature", packed)


def buckets(signed: pa.Table) -> pa.Table:
    """A row for each document and band: bucket (uint64), doc_id, file, position, validation (bool),
    and signature where there is one.

    Rows of equal ``bucket`` must meet in one call of :func:`pairs`: shuffle by it.
    """
    bands: Any = _flat(signed["bands"])
    width = bands.type.list_size
    rows = pa.array(np.repeat(np.arange(signed.num_rows), width))
    out = signed.select([n for n in signed.column_names if n not in ("bands", "split")]).take(rows)
    validation = pc.equal(signed["split"], "validation").take(rows)
    return out.add_column(0, "bucket", bands.flatten()).append_column("validation", validation)


def pairs(table: pa.Table, options: NearOptions, how: str = "near") -> pa.Table:
    """CANDIDATES rows of whole buckets (rows as of :func:`buckets`, in any order), each pair once.

    All documents of a bucket are joined to its first one, so there are fewer pairs than rows, however
    full a bucket is. With a threshold those too far from the first are compared with the next of
    them, and so on for ``LEADERS`` rounds; what is then left stays apart. Equal for equal rows.
    """
    threshold = options.threshold if how == "near" else 0.0
    bucket = table["bucket"].to_numpy()
    keys = _order_keys(table, ~_flat(table["validation"]).to_numpy(zero_copy_only=False))
    order = np.lexsort((*keys, bucket))
    file, position = table["file"].to_numpy(), table["position"].to_numpy()
    seconds, firsts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for _ in range(LEADERS if threshold else 1):
        begins = _changes(bucket[order])
        leaders = order[np.flatnonzero(begins)][np.cumsum(begins) - 1]
        # A row that came twice is no pair.
        others = (file[order] != file[leaders]) | (position[order] != position[leaders])
        leaders, order = leaders[others], order[others]
        near = np.ones(len(order), bool)
        if threshold:
            near = _similarity(table["signature"], leaders, order) >= threshold
        firsts.append(leaders[near])
        seconds.append(order[near])
        order = order[~near]
        if not len(order):
            break
    second, first = np.concatenate(seconds), np.concatenate(firsts)
    places = (position[first], file[first], position[second], file[second])
    distinct = np.lexsort(places)
    distinct = distinct[_changes(*(key[distinct] for key in places))]
    place = table.select(["doc_id", "file", "position"])
    left, right = (place.take(pa.array(rows[distinct])) for rows in (second, first))
    kind = pa.repeat(pa.scalar(how), len(distinct))
    columns = [*left.columns, *right.columns, kind]
    return CANDIDATES.validate(pa.table(columns, names=CANDIDATES.arrow.names[: len(columns)]))


def clusters(candidates: pa.Table, validation: Callable[[pa.Array], Bools]) -> pa.Table:
    """DUPLICATES rows, by (file, position), of all CANDIDATES of a data set in any order.

    ``validation`` says of ids whether they are of the validation split. A document is its place; of
    each connected component all but the first are in the result, as exact if one of its exact
    candidates says so. One process: about 250 bytes a candidate.
    """
    left = candidates.select(["doc_id", "file", "position"])
    right = candidates.select(["other", "other_file", "other_position"])
    ends = pa.concat_tables([left, right.rename_columns(left.column_names)]).combine_chunks()
    count = candidates.num_rows
    keys = _order_keys(ends, ~validation(_flat(ends["doc_id"])))
    order = np.lexsort(keys)
    fresh = _changes(*(key[order] for key in keys))
    nodes = np.empty(2 * count, np.int64)
    nodes[order] = np.cumsum(fresh) - 1
    # Nodes are numbered in the order of preference: the smallest of a component stays.
    places = order[fresh]
    stays = minhash.components(nodes[:count], nodes[count:], len(places))
    exact = np.zeros(len(places), bool)
    exact[nodes[:count][pc.equal(candidates["how"], "exact").to_numpy()]] = True
    goes = np.flatnonzero(stays != np.arange(len(places)))
    rows = ends.take(pa.array(places[goes]))
    kept = _flat(ends["doc_id"]).take(pa.array(places[stays[goes]]))
    how = pa.array(np.where(exact[goes], "exact", "near"), pa.string())
    out = rows.append_column("kept", kept).append_column("how", how)
    return DUPLICATES.validate(out.sort_by([("file", "ascending"), ("position", "ascending")]))


def _order_keys(table: pa.Table, train: Bools) -> tuple[npt.NDArray, ...]:
    """Keys of the order of preference, the last the most important, as ``np.lexsort`` has them."""
    high, low = sort_words(table["doc_id"])
    return table["position"].to_numpy(), table["file"].to_numpy(), low, high, train


def _similarity(signatures: pa.ChunkedArray, first: Indices, second: Indices) -> npt.NDArray:
    """The share of equal slots of pairs of rows: float64[n]."""
    flat: Any = _flat(signatures)
    width = flat.type.byte_width // 4
    slots = np.frombuffer(flat.buffers()[1], "<u4")[flat.offset * width :].reshape(-1, width)
    out = np.empty(len(first))
    for at in range(0, len(first), _CHUNK):
        part = slice(at, at + _CHUNK)
        out[part] = (slots[first[part]] == slots[second[part]]).mean(axis=1)
    return out


def _changes(*keys: npt.NDArray) -> Bools:
    """bool[n]: the rows that differ from the one before in any of the keys, and the first."""
    begins = np.zeros(len(keys[0]), bool)
    begins[:1] = True
    for key in keys:
        begins[1:] |= key[1:] != key[:-1]
    return begins


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()
