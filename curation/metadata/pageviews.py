"""Titles and their views from hourly page-view files (Meta CLIP, spec sections 3.1 and 3.5).

A line is `project title views bytes`. Sister projects (`en.b`, `fr.d`, ...) are added to the
Wikipedia of their language, as in the released code: only what stands before the first "." of the
project counts, with "-" turned into "_".
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc

from curation.metadata.ngrams import add
from curation.metadata.strings import strip
from curation.metadata.wikis import WIKIPEDIAS
from schemas.errors import InputError

BLOCK_BYTES = 8 << 20
MINIMUM_HOURLY: Mapping[str, int] = {"en": 50}
"""A line of these Wikipedias counts only with at least so many views in its hour (section 3.1)."""

TITLE_SCHEMA = pa.schema(
    [("wiki", pa.string()), ("text", pa.string()), ("count", pa.uint64())],
)


def blocks(name: str, raw: BinaryIO, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Whole lines of a file, plain or gzip, in blocks. InputError for a damaged file."""
    head = raw.read(2)
    raw.seek(0)
    stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if head == b"\x1f\x8b" else raw
    rest = b""
    while True:
        try:
            block = stream.read(block_bytes)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"{name}: the page-view file cannot be read to its end ({error}); it is truncated "
                "or corrupt: fetch it again."
            ) from error
        if not block:
            break
        lines, newline, rest_of = (rest + block).rpartition(b"\n")
        rest = rest_of
        if newline:
            yield lines
    if rest:
        yield rest


def first_lines(found: Iterable[bytes], limit: int | None) -> Iterator[bytes]:
    """The same blocks, ended after the first `limit` lines."""
    for block in found:
        if limit is None:
            yield block
            continue
        lines = block.split(b"\n")[:limit]
        limit -= len(lines)
        if lines:
            yield b"\n".join(lines)
        if limit == 0:
            return


def views(
    block: bytes,
    wikis: Collection[str] = WIKIPEDIAS,
    minimum_hourly: Mapping[str, int] = MINIMUM_HOURLY,
) -> tuple[pa.Table, Counter[str]]:
    """Views of every title in a block of lines, and how many lines were left out by reason.

    Returns a TITLE_SCHEMA table (distinct (wiki, text), ascending, exact sums). Reasons:
    "bad_utf8", "malformed", "zero_views", "colon", "other_project", "few_views". Titles are not
    stripped or filtered further here: the cap of section 3.2 counts them all.
    """
    left_out: Counter[str] = Counter()
    lines = strip(_lines(block, left_out))
    lines = _keep(lines, pc.invert(pc.starts_with(lines, '"" ')), left_out, "malformed")
    parts = pc.split_pattern(lines, " ")
    parts = _keep(parts, pc.equal(pc.list_value_length(parts), 4), left_out, "malformed")
    digits = pc.match_substring_regex(pc.list_element(parts, 2), r"\A[0-9]{1,18}\z")
    parts = _keep(parts, digits, left_out, "malformed")
    rows = pa.table(
        {
            "wiki": _wiki(pc.list_element(parts, 0)),
            "text": pc.replace_substring(strip(pc.list_element(parts, 1)), "_", " "),
            "count": pc.cast(pc.list_element(parts, 2), pa.uint64()),
        },
        schema=TITLE_SCHEMA,
    )
    rows = _keep(rows, pc.greater(rows["count"], 0), left_out, "zero_views")
    rows = _keep(rows, pc.invert(pc.match_substring(rows["text"], ":")), left_out, "colon")
    known = pc.is_in(rows["wiki"], value_set=pa.array(sorted(wikis), pa.string()))
    rows = _keep(rows, known, left_out, "other_project")
    for wiki, least in sorted(minimum_hourly.items()):
        enough = pc.or_(pc.not_equal(rows["wiki"], wiki), pc.greater_equal(rows["count"], least))
        rows = _keep(rows, enough, left_out, "few_views")
    return add([rows], by=("wiki", "text")), +left_out


def _wiki(projects: pa.Array) -> pa.Array:
    mobile = pc.replace_substring(projects, ".m", "")
    return pc.replace_substring(pc.replace_substring_regex(mobile, r"\..*", ""), "-", "_")


def _lines(block: bytes, left_out: Counter[str]) -> pa.Array:
    whole = pa.array([block], pa.large_binary())
    try:
        text = whole.cast(pa.large_string())
    except pa.ArrowInvalid:
        good = []
        for line in block.split(b"\n"):
            try:
                good.append(line.decode("utf-8"))
            except UnicodeDecodeError:
                left_out["bad_utf8"] += 1
        return pa.array(good, pa.string())
    return pc.cast(pc.list_flatten(pc.split_pattern(text, "\n")), pa.string())


def _keep(rows: pa.Table, mask: pa.Array, left_out: Counter[str], reason: str) -> pa.Table:
    kept = rows.filter(mask)
    left_out[reason] += len(rows) - len(kept)
    return kept
