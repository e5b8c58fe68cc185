"""Entries to an automaton file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kernels.matching import layout
from kernels.matching.classes import (
    MODES,
    SPACINGS,
    UNICODE_VERSION,
    Mode,
    Spacing,
    paged,
)
from schemas.errors import InputError, UsageError

MAX_ENTRIES = (1 << 28) - 2
MAX_ENTRY = 4096
"""Bytes of the longest entry; it bounds what a hostile text can cost (see `search`)."""
MAX_BYTES = (1 << 31) - 64
MAX_PLACES = 1 << 29
MAX_POOL = 8 << 28
MAX_TAILS = 1 << 28


def build(
    entries: Sequence[str],
    *,
    mode: Mode,
    path: str | Path,
    spacing: Spacing = "isolating",
) -> list[int]:
    """Write the automaton file of one language's entries; the position in `entries` is the id.

    `spacing` concerns mode ``official`` only (`classes.space_entry`). The bytes written depend on
    the entries, mode, spacing and Unicode version alone.

    Returns the ids that no text can ever match, ascending: blank entries, and of entries that are
    equal after normalisation all but the first. Ids are never renumbered: counts indexed by id
    need `len(entries)` places (spec 9.2, item 11).

    Raises UsageError for an unknown mode or spacing, InputError for entries that are no text, too
    many or too long, StorageError where the file cannot be written.
    """
    from kernels.matching import compiled

    if mode not in MODES:
        raise UsageError(f"match mode {mode!r}: choose one of {', '.join(MODES)}")
    if spacing not in SPACINGS:
        raise UsageError(f"entry spacing {spacing!r}: choose one of {', '.join(SPACINGS)}")
    data, offsets = _utf8(entries)
    page_starts, pages = paged(mode, "entry")
    for seed in range(64):
        tables = compiled.build_tables(
            data, offsets, page_starts, pages, mode == "repaired", spacing == "always", seed
        )
        if tables is not None:
            break
    else:
        raise InputError("no hash seed of 64 keeps the entries' tokens apart")
    sections, counts, unreachable = tables
    for what, number, limit in (
        ("places", counts["first_spread"] + counts["pair_spread"], MAX_PLACES),
        ("bytes of long tokens", len(sections["pool"]), MAX_POOL),
        ("steps of unique tails", len(sections["tails"]), MAX_TAILS),
    ):
        if number > limit:
            raise InputError(
                f"{len(entries)} entries need {number} {what}; the limit is {limit}: "
                "split the metadata"
            )
    header: dict[str, Any] = {
        "mode": mode,
        "spacing": spacing,
        "unicode": UNICODE_VERSION,
        "entries": len(entries),
        "unreachable": len(unreachable),
        "seed": seed,
        "fingerprint": _fingerprint(data, offsets, mode, spacing),
        **counts,
    }
    sections["page_starts"], sections["pages"] = paged(mode, "text")
    sections["classes"] = compiled.byte_classes(*paged(mode, "text"))
    layout.write(Path(path), header, sections)
    return unreachable


def _utf8(entries: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Concatenated UTF-8 bytes, padded by 8, and offsets int64 [n + 1]."""
    if len(entries) > MAX_ENTRIES:
        raise InputError(f"{len(entries)} entries; the limit is {MAX_ENTRIES}: split the metadata")
    try:
        array = pa.array(entries, pa.large_string())
    except (UnicodeEncodeError, pa.ArrowException, TypeError) as error:
        raise InputError(f"entries must be text that UTF-8 can encode: {error}") from error
    if array.null_count:
        raise InputError(f"entry {array.is_null().index(True).as_py()} is null; entries are text")
    offsets = np.frombuffer(array.buffers()[1], np.int64)[: len(array) + 1]
    sizes = np.diff(offsets)
    if sizes.max(initial=0) > MAX_ENTRY:
        raise InputError(
            f"entry {sizes.argmax()} has {sizes.max()} bytes; the limit is {MAX_ENTRY}: drop it"
        )
    if offsets[-1] > MAX_BYTES:
        raise InputError(
            f"entries of {offsets[-1]} bytes in all; the limit is {MAX_BYTES}: split the metadata"
        )
    data = np.zeros(offsets[-1] + 8, np.uint8)
    if offsets[-1]:
        data[:-8] = np.frombuffer(array.buffers()[2], np.uint8)[: offsets[-1]]
    return data, offsets


def _fingerprint(data: np.ndarray, offsets: np.ndarray, mode: str, spacing: str) -> str:
    digest = hashlib.blake2b(digest_size=32)
    told = f"{layout.FORMAT_VERSION}/{mode}/{spacing}/{UNICODE_VERSION}/{len(offsets) - 1}/"
    digest.update(told.encode())
    digest.update(offsets.astype("<i8").tobytes())
    digest.update(data[:-8].tobytes())
    return digest.hexdigest()
