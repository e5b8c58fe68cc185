"""Job: the language of every text of the pool, and the metadata entries that occur in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from curation.guard import guard
from curation.metaclip2.language import Identifier
from curation.metaclip2.match import match
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metaclip2.automata import BLOB, fingerprint
from dataflows.transforms.reading import DatasetUnits, unit_tables
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import RunUnits
from kernels.matching import Automaton
from schemas.dataset import open_dataset
from schemas.step import Outcome


class _Automata(Mapping[str, Automaton]):
    """The automata of a committed dataset, each copied to this machine and mapped on first use."""

    def __init__(self, url: str) -> None:
        self._dataset = open_dataset(url)
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
def automata_of(url: str) -> _Automata:
    """The automata by metadata key; opened once a process."""
    return _Automata(url)


@lru_cache(maxsize=1)
def _identifier() -> Identifier:
    return Identifier()


@dataclass(frozen=True)
class Match:
    """The step over a shard of the pool."""

    automata: str
    isolation: bool
    fingerprint: str

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        for table in unit_tables(unit):
            outcome = guard(
                match,
                table,
                automata_of(self.automata),
                _identifier(),
                isolation=self.isolation,
                stage="matches",
                unit="text",
                id_column="pair_id",
                source=unit.name,
            )
            outcome.stats["fingerprint"] = self.fingerprint
            yield outcome


def matches(context: JobContext, sink: Sink) -> RunUnits:
    """Shard by shard, without a shuffle."""
    units = DatasetUnits((context.inputs["pool"].storage.url,))
    automata = context.inputs["automata"]
    step = Match(automata.storage.url, context.config["isolation"], fingerprint(automata.manifest))
    return RunUnits(units, step, sink)
