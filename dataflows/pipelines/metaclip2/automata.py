"""Job: one automaton file a language from the metadata; committed as blobs that workers map."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from curation.metaclip2.match import ALL
from dataflows.engine.stage import JobContext, Unit
from dataflows.transforms.results import UnitResult
from dataflows.transforms.sink import Sink, scratch_dir
from dataflows.transforms.units import Units
from kernels import matching
from schemas.dataset import open_dataset
from schemas.ledger import Ledger
from schemas.manifest import Manifest
from schemas.step import Outcome
from schemas.table_schemas import METADATA

BLOB = "automaton/{}"


def fingerprint(automata: Manifest) -> str:
    """Digest of all automata: of every entry, its number, and the matching rules.

    Entry numbers mean nothing without it; `counts` and `balance` carry it and refuse another.
    """
    digests = {name: blob["digest"] for name, blob in automata.blobs.items()}
    text = json.dumps(digests, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class _Languages:
    """One unit a metadata key; without isolation one unit for the union of all lists."""

    url: str
    isolation: bool

    def __call__(self) -> Iterator[Unit]:
        if not self.isolation:
            yield Unit(ALL, {"metadata": ALL, "url": self.url})
            return
        keys: set[str] = set()
        for table in open_dataset(self.url).tables(columns=["metadata"]):
            keys.update(pc.unique(table.column("metadata")).to_pylist())
        for key in sorted(keys):
            yield Unit(key, {"metadata": key, "url": self.url})


def union_metadata(url: str) -> pa.Table:
    """METADATA rows of the key ``ALL``: the sorted union of every language's entries."""
    texts: set[str] = set()
    for table in open_dataset(url).tables(columns=["text"]):
        texts.update(table.column("text").to_pylist())
    ordered = sorted(texts)
    columns = {
        "metadata": [ALL] * len(ordered),
        "entry": list(range(len(ordered))),
        "text": ordered,
        "source": [""] * len(ordered),
    }
    return pa.table(columns, schema=METADATA.arrow)


def entries_of(url: str, key: str) -> list[str]:
    """The entries of a metadata key in the order of their ids."""
    if key == ALL:
        return union_metadata(url).column("text").to_pylist()
    texts: list[str] = []
    for table in open_dataset(url).tables(columns=["metadata", "text"]):
        own = table.filter(pc.equal(table.column("metadata"), key))
        texts.extend(own.column("text").to_pylist())
    return texts


class _Build(beam.DoFn):
    def __init__(self, mode: Literal["repaired", "official"], sink: Sink) -> None:
        self._mode = mode
        self._sink = sink

    def process(self, element: bytes) -> Iterator[bytes]:
        unit = Unit.from_bytes(element)
        done = self._sink.finished(unit.name)
        yield (done or self._build(unit)).to_bytes()

    def _build(self, unit: Unit) -> UnitResult:
        key = unit.args["metadata"]
        entries = entries_of(unit.args["url"], key)
        with scratch_dir() as scratch:
            path = Path(scratch) / "automaton"
            matching.build(entries, mode=self._mode, path=path)
            blob = self._sink.put_blob(path)
        row = {
            "metadata": [key],
            "entries": [len(entries)],
            "blob": [blob["digest"]],
            "match": [self._mode],
        }
        ledger = Ledger()
        ledger.add("entry", "created", "derived", 1)
        outcome = Outcome(pa.table(row), ledger)
        return self._sink.write(unit.name, [outcome], blobs={BLOB.format(key): blob})


class _Automata(beam.PTransform):
    def __init__(
        self, languages: _Languages, mode: Literal["repaired", "official"], sink: Sink
    ) -> None:
        super().__init__()
        self._languages = languages
        self._mode = mode
        self._sink = sink

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        return (
            pipeline
            | "Languages" >> Units(self._languages)
            | "Build" >> beam.ParDo(_Build(self._mode, self._sink)).with_output_types(bytes)
        )


def automata(context: JobContext, sink: Sink) -> _Automata:
    """Builds every language's automaton in parallel."""
    url = context.inputs["metadata"].storage.url
    languages = _Languages(url, context.config["isolation"])
    return _Automata(languages, context.config["match"], sink)
