"""Where the rows of a unit go: canonical shards, dead letters, and the log that fixes the result."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataflows.transforms.results import UnitResult
from schemas.dataset import BLOBS, put_blob
from schemas.ids import id128
from schemas.step import Outcome, merge_stats
from schemas.storage import Storage
from schemas.table_schemas import SCHEMAS
from schemas.writer import ShardWriter

SHARD_BYTES = 256 * 2**20
JOB = ""
"""Name under which the result of a whole job is fixed."""


@dataclass(frozen=True)
class Sink:
    """Destination of a stage's rows; picklable, opened in the worker.

    ``key`` is the stage key: attempts of another configuration or code never mix with these.
    """

    storage: Storage
    dead_letters: Storage
    schema: str
    key: str
    target_bytes: int = SHARD_BYTES
    progress_dir: str | None = None

    def log_key(self, unit: str) -> str:
        """Key of a unit's log. Names hold languages of metadata, so they are hashed, not trusted."""
        name = "result" if unit == JOB else f"unit-{id128(unit.encode()).hex()}"
        return f".headrace/attempts/{self.key}/{name}.json"

    def finished(self, unit: str) -> UnitResult | None:
        """The fixed result of ``unit`` if an earlier attempt finished it and its files are there.

        Another configuration's commit removes files that it does not name, and may leave their logs.
        """
        try:
            result = UnitResult.from_bytes(self.storage.read_bytes(self.log_key(unit)))
        except FileNotFoundError:
            return None
        if self._all_there(result):
            return result
        self.storage.delete(self.log_key(unit))
        return None

    def _all_there(self, result: UnitResult) -> bool:
        blobs = (f"{BLOBS}/{blob['digest']}" for blob in result.blobs.values())
        mine = [*(shard.file for shard in result.shards), *blobs]
        return all(self.storage.exists(key) for key in mine) and all(
            self.dead_letters.exists(shard.file) for shard in result.dead
        )

    def fix(self, result: UnitResult) -> UnitResult:
        """Make ``result`` the unit's result by one exclusive create; of two attempts the first wins."""
        if self.storage.create(self.log_key(result.unit), result.to_bytes()):
            return result
        return self.finished(result.unit) or result

    def write(
        self,
        unit: str,
        outcomes: Iterable[Outcome],
        *,
        blobs: Mapping[str, dict[str, Any]] | None = None,
        warnings: Sequence[str] = (),
        received: bool = False,
    ) -> UnitResult:
        """Write every outcome's rows in order, and return the fixed result of the unit.

        The ``out`` side of the ledger is taken from what the footers of the written shards say.
        With ``received`` the rows came through a shuffle: what the steps have ``in`` must be what
        the other side sent, and is compared with that instead of the input's total.
        """
        done = self.finished(unit)
        if done is not None:
            return done
        spec = SCHEMAS[self.schema]
        result = UnitResult(unit, blobs=dict(blobs or {}), warnings=list(warnings))
        seen = 0
        with ShardWriter(self.storage, spec, target_bytes=self.target_bytes) as rows:
            with ShardWriter(self.dead_letters, SCHEMAS["dead_letters"]) as dead:
                for outcome in outcomes:
                    rows.write(outcome.table)
                    seen += outcome.table.num_rows
                    self.report_progress(unit, seen)
                    if outcome.dead is not None and outcome.dead.num_rows:
                        dead.write(outcome.dead)
                    outcome.ledger.remove(spec.unit, "out")
                    result.ledger.merge(outcome.ledger)
                    result.stats = merge_stats(result.stats, outcome.stats)
                result.dead = dead.close()
            result.shards = rows.close()
        written = sum(shard.rows for shard in result.shards)
        ids = sum(int(shard.id_sum or "0", 16) for shard in result.shards)
        if received:
            result.received = result.ledger.remove(spec.unit, "in")
        result.ledger.add(spec.unit, "out", "", written, ids % 2**128)
        self.report_progress(unit, written, done=True)
        return self.fix(result)

    def put_blob(self, path: Path) -> dict[str, Any]:
        """Store a local file as a blob of the dataset, named by its digest."""
        return put_blob(self.storage, path)

    def report_progress(self, unit: str, rows: int, done: bool = False) -> None:
        """Append a line to this worker's progress file; the command that waits shows the sum.

        ``rows`` are those of the unit so far.
        """
        if self.progress_dir is None:
            return
        os.makedirs(self.progress_dir, exist_ok=True)
        name = f"{socket.gethostname()}-{os.getpid()}.jsonl"
        line = json.dumps({"unit": unit, "rows": rows, "done": done})
        with open(os.path.join(self.progress_dir, name), "a", encoding="utf-8") as file:
            file.write(line + "\n")


def scratch_dir() -> tempfile.TemporaryDirectory[str]:
    """Worker-local scratch for files on their way to the store."""
    return tempfile.TemporaryDirectory(prefix="headrace-")
