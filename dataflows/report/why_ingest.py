"""Records that ingest itself rejected: found in its dead letters, or counted without a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from curation.metaclip2.explode import clean_texts
from dataflows.report.source import DEAD_LETTERS, Run
from dataflows.report.traces import Refused
from schemas.ids import image_id, pair_id
from schemas.reasons import REASONS

_EVALUATION = "evaluation"
"""Records by schema, but of what is to be left out."""

# What ends a URL or a hash in JSON, a WARC header, a table or a tag.
_ENDS = {b"", *(bytes([byte]) for byte in b"\0\t\r\n \"'\\<>,")}


def ingested(run: Run) -> list[str]:
    """Names of the datasets at hand that an ingest made."""
    return [
        name
        for name, dataset in run.datasets.items()
        if dataset.manifest.schema["name"] == "records" and name != _EVALUATION
    ]


def refused(run: Run, image: bytes, given: str = "") -> list[Refused]:
    """Records of the image (or of the pair with this id) that ingest put into dead letters.

    ``given`` is the id as the user wrote it: a URL or a hash is also looked for in the bytes of what
    could not be parsed. Cost: all dead letters of the records at hand are read, and images among
    them hashed.
    """
    found = []
    # What the command line could not decode comes as surrogates, which give the bytes back.
    word = given.encode("utf-8", "surrogateescape")
    escaped = json.dumps(given).encode()[1:-1]
    words = {word, escaped, escaped.replace(b"/", b"\\/")} if word else set()
    for name in ingested(run):
        columns = ["reason", "error", "source", "position", "row"]
        for table in run.tables(f"{name}{DEAD_LETTERS}", columns):
            for letter in table.to_pylist():
                with pa.ipc.open_stream(letter["row"]) as stream:
                    row = stream.read_all().to_pylist()[0]
                if not _is_it(row, image, words):
                    continue
                url = (row["url"] or b"").decode("utf-8", "replace")
                texts = tuple(t["text"].decode("utf-8", "replace") for t in _texts(row))
                place = (letter["source"], letter["position"])
                why = (letter["reason"], letter["error"])
                found.append(Refused(name, *place, *why, url or None, row["path"], texts))
    return found


def _is_it(row: Mapping[str, Any], image: bytes, words: set[bytes]) -> bool:
    if row["raw"] is not None and any(_holds(row["raw"], word) for word in words):
        return True
    if row["url"] in words:
        return True
    ids = list(_image_ids(row))
    if image in ids:
        return True
    texts = clean_texts(
        pa.array([t["text"].decode("utf-8", "replace") for t in _texts(row)], pa.string())
    )
    return any(pair_id(i, text) == image for i in ids for text in texts.to_pylist())


def _holds(raw: bytes, word: bytes) -> bool:
    """Whether a whole word stands there: not only the beginning of a longer URL or hash."""
    at = raw.find(word)
    while at >= 0:
        if raw[at + len(word) : at + len(word) + 1] in _ENDS:
            return True
        at = raw.find(word, at + 1)
    return False


def _image_ids(row: Mapping[str, Any]) -> Iterator[bytes]:
    """Every id that the record could have got, by what its letter holds."""
    if row["url"]:
        yield image_id(url=row["url"].decode("utf-8", "surrogateescape"))
    if row["image"]:
        yield image_id(sha256=hashlib.sha256(row["image"]).digest())
    if row["sha256"]:
        yield image_id(sha256=row["sha256"])
    if row["id"]:
        yield image_id(key=row["id"])


def _texts(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [text for text in row["texts"] or () if text["text"]]


def without_row(run: Run) -> list[str]:
    """Per dataset of records: what ingest rejected and left neither a row nor a dead letter of.

    Cost: the reasons of all their dead letters are read.
    """
    lines = []
    for name in ingested(run):
        left: dict[str, int] = {}
        for row in run.datasets[name].manifest.counts:
            if (row["unit"], row["kind"]) == ("record", "rejected"):
                left[row["reason"]] = row["count"]
        for table in run.tables(f"{name}{DEAD_LETTERS}", ["reason"]):
            for item in table["reason"].value_counts().to_pylist():
                left[item["values"]] = left.get(item["values"], 0) - item["counts"]
        counts = [
            f"{count:,} record{'' if count == 1 else 's'} as {reason} ({REASONS[reason]})"
            for reason, count in sorted(left.items(), key=lambda item: (-item[1], item[0]))
            if count > 0
        ]
        if counts:
            lines.append(
                f"ingest ({name}) rejected {', '.join(counts)} and keeps no row of these: the id may be "
                "one of them, and only the input files can tell"
            )
    return lines
