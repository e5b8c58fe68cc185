"""URLs into units of whole hosts. Plain functions on Arrow tables; no Beam here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.fetch import host_of
from curation.id_sets import order_by, run_starts
from schemas.ids import id128, id_array
from schemas.table_schemas import FETCH_UNITS

MOST = 2_000
"""URLs of one unit at most: what a killed worker loses."""

LARGE = 200_000
"""URLs of one host that a worker packs at once."""

_HOST = r"^[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#\\]*@)?(?P<host>\[[^\]/?#]*\]|[^:/?#\\]*)"


def hosts_of(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """The host of each URL as ``curation.fetch.host_of`` spells it; "" where there is none."""
    found = pc.struct_field(pc.extract_regex(urls, _HOST), "host")
    encoded = pc.fill_null(found, "").combine_chunks().dictionary_encode()
    spelled = [host_of(f"http://{host}/") for host in encoded.dictionary.to_pylist()]
    return pa.chunked_array([pa.array(spelled, pa.string()).take(encoded.indices)])


def host_ids(hosts: pa.ChunkedArray) -> pa.Array:
    """A 128-bit hash of each host, by which hosts are spread and ordered: binary(16)[n]."""
    encoded = hosts.combine_chunks().dictionary_encode()
    hashed = id_array(id128(b"host", host.encode()) for host in encoded.dictionary.to_pylist())
    return hashed.take(encoded.indices)


def once(table: pa.Table) -> pa.Table:
    """One row an image id, that of its first URL by bytes; rows sorted by image id."""
    table = table.sort_by([("image_id", "ascending"), ("url", "ascending")])
    return table.take(pa.array(run_starts(table["image_id"])))


def large_parts(urls: int) -> int:
    """In how many parts a large host of so many URLs is packed."""
    return -(-urls // LARGE)


def units_at_most(urls: int, most: int) -> int:
    """Units that the parts of a large host of at most so many URLs are packed into, at most."""
    return -(-urls // most) + large_parts(urls)


def pack(bucket: str, table: pa.Table, most: int = MOST, share: int = 0) -> pa.Table:
    """FETCH_UNITS rows, by (unit, image_id), of the (image_id, url, host) rows of a bucket.

    Hosts follow each other in the order of their hashes; a unit takes the next one while it stays
    within ``most`` URLs. A host of more has ceil(n / most) units of its own, equal but for one URL,
    and ``share`` says how many (if the bucket is a part of a host, ``share`` as given). So the units
    are a function of the rows alone.
    """
    order = order_by(host_ids(table["host"]), table["image_id"])
    table = table.take(pa.array(order))
    numbers, shares = _units(_lengths(table["host"]), most)
    names = pa.array([f"{bucket}-{number:06d}" for number in range(int(numbers[-1]) + 1)])
    columns = {
        "unit": names.take(pa.array(numbers)),
        "image_id": table["image_id"],
        "url": table["url"],
        "host": table["host"],
        "share": pa.array(np.full_like(shares, share) if share else shares, pa.int32()),
    }
    packed = pa.table(columns).select(FETCH_UNITS.arrow.names)
    return packed.take(pa.array(order_by(numbers, packed["image_id"])))


def _lengths(hosts: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Lengths of the runs of equal hosts."""
    runs = pc.run_end_encode(hosts.combine_chunks())
    return np.diff(runs.run_ends.to_numpy(), prepend=0).astype(np.int64)


def _units(
    lengths: npt.NDArray[np.int64], most: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The number of each row's unit, and how many units share its host: int64[n] twice."""
    numbers, shares = [], []
    unit, filled = -1, most
    for length in lengths.tolist():
        parts = -(-length // most)
        if parts > 1:
            numbers.append(unit + 1 + np.arange(length) * parts // length)
            unit, filled = unit + parts, most
        else:
            if filled + length > most:
                unit, filled = unit + 1, 0
            filled += length
            numbers.append(np.full(length, unit, np.int64))
        shares.append(np.full(length, parts, np.int64))
    return np.concatenate(numbers), np.concatenate(shares)


def unit_runs(units: pa.ChunkedArray) -> Iterator[tuple[str, int]]:
    """(unit, rows) of each run of equal unit names."""
    runs = pc.run_end_encode(units.combine_chunks())
    lengths = np.diff(runs.run_ends.to_numpy(), prepend=0).tolist()
    yield from zip(runs.values.to_pylist(), lengths, strict=True)
