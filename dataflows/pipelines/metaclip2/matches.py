"""Job: the language of every text of the pool, and the metadata entries that occur in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.guard import guard
from curation.metaclip2.language import Identifier
from curation.metaclip2.match import match
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.automata import BLOB, fingerprint
from dataflows.pipelines.metaclip2.pool import ROW
from dataflows.transforms.reading import DatasetUnits, Ref, unit_tables
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import RunUnits
from kernels.matching import Automaton
from schemas.dataset import Dataset
from schemas.step import Outcome


class _Automata(Mapping[str, Automaton]):
    """The automata of a committed dataset, each copied to this machine and mapped on first use."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        prefix = BLOB.format("")
        self._keys = {n.removeprefix(prefix): n for n in self._dataset.manifest.blobs}
        self._open: dict[str, Automaton] = {}

    def __getitem__(self, key: str) -> Automaton:
        if key not in self._open:
            self._open[key] = Automaton.open(self._dataset.blob(self._keys[key]))
        return self._open[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys


@lru_cache(maxsize=1)
def automata_of(ref: Ref) -> _Automata:
    """The automata by metadata key; opened once a process."""
    return _Automata(ref.open())


@lru_cache(maxsize=1)
def _identifier() -> Identifier:
    return Identifier()


def _match(table: pa.Table, *args: Any, **settings: Any) -> Outcome:
    """``match`` of a table that carries its row numbers, which dead letters name."""
    return match(table.drop_columns([ROW]), *args, **settings)


@dataclass(frozen=True)
class Match:
    """The step over a shard of the pool."""

    automata: Ref
    isolation: bool
    fingerprint: str

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        row = 0
        for table in unit_tables(unit):
            numbers = pa.array(np.arange(row, row + table.num_rows))
            row += table.num_rows
            outcome = guard(
                _match,
                table.append_column(ROW, numbers),
                automata_of(self.automata),
                _identifier(),
                isolation=self.isolation,
                stage="matches",
                unit="text",
                id_column="pair_id",
                source=unit.name,
                position_column=ROW,
            )
            entries = pc.sum(pc.list_value_length(outcome.table["entries"])).as_py()
            outcome.stats["entries"] = entries or 0
            outcome.stats["fingerprint"] = self.fingerprint
            yield outcome


def matches(context: JobContext, sink: Sink) -> RunUnits:
    """Shard by shard, without a shuffle."""
    units = DatasetUnits((Ref.of(context.inputs["pool"]),))
    automata = context.inputs["automata"]
    step = Match(Ref.of(automata), context.config["isolation"], fingerprint(automata.manifest))
    return RunUnits(units, step, sink)
