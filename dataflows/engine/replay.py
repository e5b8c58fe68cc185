"""Replay of dead letters: just those rows, by today's code and settings, into a new dataset.

The new head stands where the old one stood; its parents are the old head and the dead letters, so
every stage downstream becomes due. Rows that fail again are the new dead letters. The new ledger
and statistics are those of the whole: the rows that came back moved from ``rejected`` to ``out``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.commit import commit, retire
from schemas.dataset import Dataset, open_dataset
from schemas.errors import InputError, UsageError
from schemas.ledger import Ledger
from schemas.manifest import Manifest
from schemas.step import Outcome, merge_stats
from schemas.storage import Storage
from schemas.table_schemas import DEAD_LETTERS, SCHEMAS
from schemas.writer import Shard, ShardWriter

AGAIN = {
    "fetched": "dataflows.pipelines.fetch.replay:again",
    "records": "dataflows.pipelines.ingest.replay:again",
    "documents": "dataflows.pipelines.tokens.replay:again",
    "pool": "dataflows.pipelines.metaclip2.replay:pool",
    "matches": "dataflows.pipelines.metaclip2.replay:matches",
}
"""Schema -> function (old dataset, its dead letters, settings) -> :class:`Replayed`."""


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What a replay made: rows to add, and how they join the old ones.

    ``before`` is how the old ledger had counted the letters: what it says is taken out, what the
    outcome's ledger says comes in, and its statistics are added.
    ``merge`` is None when rows go to shards of their own; otherwise it takes an old shard's rows with
    the new ones of its range (by ``image_id``) and returns the shard's new rows.
    """

    outcome: Outcome
    before: Ledger
    merge: Callable[[pa.Table], Outcome] | None = None


def letter_rows(letters: pa.Table) -> pa.Table:
    """The input rows that dead letters carry, one row a letter, in the letters' order."""
    parts = []
    for row in letters.column("row"):
        with pa.ipc.open_stream(pa.py_buffer(row.as_py())) as reader:
            parts.append(reader.read_all())
    return pa.concat_tables(parts, promote_options="default").combine_chunks()


def replay(place: Storage, settings: Mapping[str, Any], run: Mapping[str, Any]) -> Manifest:
    """Replay the dead letters of the dataset at ``place``; returns the new head.

    Raises InputError where there is nothing to replay, UsageError for a stage that cannot.
    """
    old = open_dataset(place)
    letters_place = place.sibling(f"{place.name}.dead_letters")
    if not letters_place.exists("manifest.json"):
        raise InputError(f"{place.url}: no row failed (no {letters_place.url}); nothing to replay")
    letters = open_dataset(letters_place)
    if letters.manifest.digest in {p["digest"] for p in old.manifest.parents}:
        # A replay was cut off after its commit: its rows are in, what it left is written down.
        left = [Shard(**shard) for shard in old.manifest.run.get("letters", [])]
        _settle_letters(letters, left, old.manifest)
        return old.manifest
    schema = old.manifest.schema["name"]
    if schema not in AGAIN:
        raise UsageError(
            f"{place.url}: rows of {schema} are not replayed; known: {', '.join(AGAIN)}"
        )
    module, _, function = AGAIN[schema].partition(":")
    table = pa.concat_tables(list(letters.tables()))
    replayed: Replayed = getattr(import_module(module), function)(old, table, dict(settings))
    outcome = replayed.outcome
    if not outcome.table.num_rows and _rows(outcome.dead) == table.num_rows:
        return old.manifest  # nothing came back: nothing downstream is due for that
    shards, ledger, stats = _write(old, replayed)
    left = _letter_shards(letters, replayed.outcome.dead)
    manifest = dataclasses.replace(
        old.manifest,
        counts=ledger.rows(),
        parents=[
            *(p for p in old.manifest.parents if p["name"] not in (place.name, letters_place.name)),
            {"name": place.name, "digest": old.manifest.digest},
            {"name": letters_place.name, "digest": letters.manifest.digest},
        ],
        config={
            **old.manifest.config,
            "replay": {**old.manifest.config.get("replay", {}), **settings},
        },
        stats=stats,
        run={
            **run,
            "inputs": old.manifest.run.get("inputs", {}),
            "runtime": old.manifest.run.get("runtime", {}),
            "letters": [vars(shard) for shard in left],
        },
    )
    # The rows first: a letter goes only when what came of it is committed.
    committed = commit(place, manifest, shards, supersede=old.manifest.digest)
    _settle_letters(letters, left, committed)
    return committed


def _rows(table: pa.Table | None) -> int:
    return table.num_rows if table is not None else 0


def _write(old: Dataset, replayed: Replayed) -> tuple[list[Shard], Ledger, dict[str, Any]]:
    """All shards of the new dataset, its ledger and its statistics."""
    spec = SCHEMAS[old.manifest.schema["name"]]
    ledger = _less(old.manifest.ledger, replayed.before)
    ledger.merge(replayed.outcome.ledger)
    ledger.remove(spec.unit, "out")
    stats = merge_stats(old.manifest.stats, replayed.outcome.stats)
    rows = spec.validate(replayed.outcome.table)
    if replayed.merge is None:
        with ShardWriter(old.storage, spec) as writer:
            writer.write(rows)
            shards = [*old.shards(), *writer.close()]
    else:
        shards, images = _merged(old, rows, replayed.merge, ledger)
        if "images" in stats:
            stats["images"] += images
    written = sum(shard.rows for shard in shards)
    ids = sum(int(shard.id_sum or "0", 16) for shard in shards) % 2**128
    ledger.add(spec.unit, "out", "", written, ids)
    return [s for s in shards if s.rows], ledger, stats


def _less(whole: Ledger, part: Ledger) -> Ledger:
    """A ledger without the rows of a part of it. ValueError if it is no part."""
    left = {(r["unit"], r["kind"], r["reason"]): dict(r) for r in whole.rows()}
    for row in part.rows():
        mine = left.get((row["unit"], row["kind"], row["reason"]), {"count": 0, "id_sum": "0"})
        if row["count"] > mine["count"]:
            raise ValueError(f"{row} is to be taken out of {mine['count']} rows")
        mine["count"] -= row["count"]
        mine["id_sum"] = f"{(int(mine['id_sum'], 16) - int(row['id_sum'], 16)) % 2**128:032x}"
    return Ledger.from_json(row for row in left.values() if row["count"])


def _merged(
    old: Dataset, rows: pa.Table, merge: Callable[[pa.Table], Outcome], ledger: Ledger
) -> tuple[list[Shard], int]:
    """Old shards, those whose range of image ids has new rows written anew with them; new images."""
    spec = SCHEMAS[old.manifest.schema["name"]]
    shards = [(n, s) for n, s in enumerate(old.shards()) if s.rows]
    first = [old.take(n, [0], ["image_id"]).column(0)[0].as_py() for n, _ in shards]
    ids = rows.column("image_id").to_pylist()
    result: list[Shard] = []
    images = 0
    for place, (number, shard) in enumerate(shards or [(None, None)]):
        low = first[place] if place and shards else b""
        high = first[place + 1] if place + 1 < len(first) else None
        mine = [i for i, x in enumerate(ids) if x >= low and (high is None or x < high)]
        if not mine and shard is not None:
            result.append(shard)
            continue
        parts = [rows.take(pa.array(mine, pa.int64()))]
        if number is not None:
            parts.insert(0, old.read_shard(number))
            images -= len(pc.unique(parts[0]["image_id"]))
        outcome = merge(pa.concat_tables(parts))
        images += len(pc.unique(outcome.table["image_id"]))
        outcome.ledger.remove(spec.unit, "in")
        outcome.ledger.remove(spec.unit, "out")
        ledger.merge(outcome.ledger)
        with ShardWriter(old.storage, spec) as writer:
            writer.write(outcome.table)
            result.extend(writer.close())
    return result, images


def _letter_shards(letters: Dataset, dead: pa.Table | None) -> list[Shard]:
    """The rows that failed again, written beside the old letters; not committed yet."""
    if dead is None or dead.num_rows == 0:
        return []
    with ShardWriter(letters.storage, DEAD_LETTERS) as writer:
        writer.write(dead)
        return writer.close()


def _settle_letters(letters: Dataset, left: list[Shard], manifest: Manifest) -> None:
    """Rows that failed again replace the old dead letters; without any, those are withdrawn."""
    if not left:
        retire(letters.storage, letters.manifest.digest)
        return
    again = dataclasses.replace(
        letters.manifest, parents=manifest.parents, config=manifest.config, run=dict(manifest.run)
    )
    commit(letters.storage, again, left, supersede=letters.manifest.digest)
