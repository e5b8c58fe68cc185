"""Units of work that read a file which the dataset itself will carry: a tokenizer, an index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam

from dataflows.engine.stage import Unit
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import ListUnits, Units, UnitStep
from schemas.dataset import Dataset
from schemas.manifest import Manifest
from schemas.storage import storage
from schemas.table_schemas import SCHEMAS


@dataclass(frozen=True)
class Carried:
    """A blob that was stored before the job starts: where, its name, digest and size."""

    url: str
    schema: str
    name: str
    digest: str
    bytes: int

    @classmethod
    def store(cls, sink: Sink, name: str, path: Path) -> Carried:
        """Store a local file as a blob of the dataset in the making."""
        entry = sink.put_blob(path)
        return cls(sink.storage.url, sink.schema, name, entry["digest"], entry["bytes"])

    def entries(self) -> dict[str, dict[str, Any]]:
        """As manifests name it."""
        return {self.name: {"digest": self.digest, "bytes": self.bytes}}

    def local(self) -> Path:
        """A checked copy on this machine."""
        schema: Mapping[str, Any] = {"name": self.schema, "version": SCHEMAS[self.schema].version}
        head = Manifest(schema=dict(schema), blobs=self.entries())
        return Dataset(storage(self.url), head).blob(self.name)


class _Run(beam.DoFn):
    def __init__(self, step: UnitStep, carried: Carried, sink: Sink) -> None:
        self._step = step
        self._carried = carried
        self._sink = sink

    def process(self, element: bytes) -> Iterator[bytes]:
        unit = Unit.from_bytes(element)
        done = self._sink.finished(unit.name)
        if done is None:
            blobs = self._carried.entries()
            done = self._sink.write(unit.name, self._step(unit), blobs=blobs)
        yield done.to_bytes()


class RunWithBlob(beam.PTransform):
    """Pipeline -> bytes (unit results): as ``RunUnits``, and every result names the blob."""

    def __init__(self, units: ListUnits, step: UnitStep, carried: Carried, sink: Sink) -> None:
        super().__init__()
        self._units = units
        self._run = _Run(step, carried, sink)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        return (
            pipeline
            | "Units" >> Units(self._units)
            | "Run" >> beam.ParDo(self._run).with_output_types(bytes)
        )
