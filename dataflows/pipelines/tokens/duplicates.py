"""Job: of each cluster of duplicates, the documents that go. One unit of work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.text.documents import in_validation
from curation.text.near import clusters
from dataflows.engine.stage import JobContext, Unit
from dataflows.transforms.reading import Ref
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import RunUnits
from schemas.ledger import Ledger
from schemas.step import Outcome


def _one() -> Iterator[Unit]:
    yield Unit("all", {})


@dataclass(frozen=True)
class _Cluster:
    """Held in memory: about 250 bytes a candidate pair, of documents without a duplicate nothing."""

    candidates: Ref
    validation: float

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        tables = list(self.candidates.open().tables())
        if not tables:
            return
        found = clusters(pa.concat_tables(tables), self._held_out)
        ledger = Ledger()
        ledger.add("entry", "created", "derived", found.num_rows)
        stats = {how["values"]: how["counts"] for how in found["how"].value_counts().to_pylist()}
        yield Outcome(found, ledger, stats=stats)

    def _held_out(self, ids: pa.Array) -> np.ndarray:
        return in_validation(ids, self.validation)


def duplicates(context: JobContext, sink: Sink) -> RunUnits:
    """Connected components of all candidates."""
    share = context.inputs["documents"].manifest.config["validation"]
    return RunUnits(_one, _Cluster(Ref.of(context.inputs["candidates"]), share), sink)
