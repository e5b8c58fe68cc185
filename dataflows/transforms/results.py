"""The result of a unit of work, and the record of a whole job."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from schemas.ledger import Ledger
from schemas.step import merge_stats
from schemas.writer import Shard


@dataclass
class UnitResult:
    """What one unit wrote and counted. Counts travel in here, as data: runner metrics double on retries."""

    unit: str
    shards: list[Shard] = field(default_factory=list)
    dead: list[Shard] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    stats: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    sent: tuple[int, int] = (0, 0)  # rows handed to a shuffle: count, id sum
    received: tuple[int, int] = (0, 0)  # rows taken from a shuffle

    def to_bytes(self) -> bytes:
        return json.dumps(
            {
                "unit": self.unit,
                "shards": [vars(s) for s in self.shards],
                "dead": [vars(s) for s in self.dead],
                "ledger": self.ledger.to_json(),
                "stats": self.stats,
                "blobs": self.blobs,
                "warnings": self.warnings,
                "sent": [self.sent[0], f"{self.sent[1]:x}"],
                "received": [self.received[0], f"{self.received[1]:x}"],
            },
            sort_keys=True,
        ).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> UnitResult:
        raw = json.loads(data)
        return cls(
            unit=raw["unit"],
            shards=[Shard(**s) for s in raw["shards"]],
            dead=[Shard(**s) for s in raw["dead"]],
            ledger=Ledger.from_json(raw["ledger"]),
            stats=raw["stats"],
            blobs=raw["blobs"],
            warnings=raw["warnings"],
            sent=(raw["sent"][0], int(raw["sent"][1], 16)),
            received=(raw["received"][0], int(raw["received"][1], 16)),
        )


def merge_results(results: Iterable[UnitResult]) -> UnitResult:
    """All units of a job as one result: shards in the order of unit names, each unit counted once."""
    by_name = {result.unit: result for result in results}
    total = UnitResult(unit="")
    for name in sorted(by_name):
        result = by_name[name]
        total.shards.extend(result.shards)
        total.dead.extend(result.dead)
        total.ledger.merge(result.ledger)
        total.stats = merge_stats(total.stats, result.stats)
        total.blobs.update(result.blobs)
        total.warnings.extend(w for w in result.warnings if w not in total.warnings)
        total.sent = _plus(total.sent, result.sent)
        total.received = _plus(total.received, result.received)
    return total


def _plus(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return a[0] + b[0], (a[1] + b[1]) % 2**128
