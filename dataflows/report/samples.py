"""A few pairs with pictures, a few that the draw left out, a few dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.id_sets import run_starts
from curation.page.names import RIGHT_TO_LEFT
from curation.page.thumbnails import Thumbnail, thumbnails
from dataflows.report.entries import entry_texts
from dataflows.report.model import DeadRow, LeftOut, Sample
from dataflows.report.source import Run
from schemas.ids import SALT_DRAW, SALT_PICK, uniform

PAIRS = 24
LANGUAGES = 12
LEFT_OUT = 8
DEAD = 12
CHIPS = 8
_GROUPS = 12
_ROWS = 20_000
_SALT = 7_001  # of this page's choice of rows; no stage uses it

_TEXT_COLUMNS = ("pair_id", "image_id", "url", "text", "texts", "language", "metadata", "entries")
_SHOWN = ("curated", "matched", "matches", "pool", "records")


@dataclass(frozen=True)
class _Row:
    """A row of interest and where its picture lies."""

    values: dict[str, Any]
    shard: int
    row: int


def samples(run: Run) -> tuple[tuple[Sample, ...], str]:
    """Up to PAIRS pairs, several of each of the largest languages, and the dataset they are from.

    Cost: at most 12 row groups without their pictures, then the pictures of the chosen rows.
    """
    name = next((name for name in _SHOWN if run.get(name) is not None), None)
    if name is None:
        return (), ""
    sizes = run.stats[name].get("languages", {})
    rows = _chosen(list(_candidates(run, name)), {key: n["texts"] for key, n in sizes.items()})
    pictures = _pictures(run, name, rows)
    texts = _entry_texts(run, [row.values for row in rows])
    rare = _rare(run, rows)
    return tuple(
        _sample(row.values, picture, texts, rare)
        for row, picture in zip(rows, pictures, strict=True)
    ), name


def left_out(run: Run) -> tuple[LeftOut, ...]:
    """Pairs of the first row group of `matched` that the draw did not keep, with their number."""
    matched, curated = run.get("matched"), run.get("curated")
    shards = matched.shards() if matched is not None else []
    first = next((number for number, shard in enumerate(shards) if shard.rows), None)
    if matched is None or curated is None or first is None:
        return ()
    config, seed = curated.manifest.config, curated.manifest.seed or 0
    epoch = int(config.get("epoch", 0))
    columns = [
        "pair_id",
        "image_id",
        "text",
        "language",
        "metadata",
        "image_texts",
        "keep_probability",
    ]
    table = matched.read_row_group(first, 0, columns).slice(0, _ROWS)
    run.tally.add("matched", table)
    draws = uniform(seed, epoch, table["pair_id"], SALT_DRAW)
    gone = draws >= table["keep_probability"].to_numpy()
    if config.get("mode", "image") == "image":
        gone &= _picked(table, seed, epoch)
    rows = np.flatnonzero(gone)
    order = rows[np.argsort(uniform(0, 0, table["pair_id"], _SALT)[rows], kind="stable")]
    seen: Counter[str] = Counter()
    found: list[LeftOut] = []
    picks = table.take(pa.array(order[: LEFT_OUT * 50])).to_pylist()
    for row, u in zip(picks, draws[order], strict=False):
        key = row["metadata"]
        if seen[key] < 2 and len(found) < LEFT_OUT:
            seen[key] += 1
            chance = row["keep_probability"]
            found.append(LeftOut(row["text"], row["language"], key, chance, float(u)))
    return tuple(found)


def _picked(table: pa.Table, seed: int, epoch: int) -> npt.NDArray[np.bool_]:
    """Which rows their image picked: rows sorted by (image id, pair id), from an image's first on."""
    starts = run_starts(table["image_id"])
    place = np.arange(table.num_rows) - np.repeat(starts, np.diff(starts, append=table.num_rows))
    texts = table["image_texts"].to_numpy()
    chosen = np.floor(uniform(seed, epoch, table["image_id"], SALT_PICK) * texts).astype(np.int64)
    return place == np.minimum(chosen, texts - 1)


def dead_letters(run: Run) -> tuple[DeadRow, ...]:
    """Some dead letters of each dataset, at most three of a reason."""
    found: list[DeadRow] = []
    columns = ["stage", "reason", "error", "source", "position"]
    for name in run.dead:
        seen: Counter[str] = Counter()
        for table in run.tables(name, columns):
            for row in table.slice(0, 2000).to_pylist():
                if seen[row["reason"]] < 3 and len(found) < DEAD:
                    seen[row["reason"]] += 1
                    found.append(DeadRow(**row))
            break
    return tuple(found)


def _candidates(run: Run, name: str) -> Iterator[_Row]:
    """Rows of a few row groups, spread over the shards; columns of text only."""
    dataset = run.datasets[name]
    columns = [column for column in _TEXT_COLUMNS if column in dataset.schema.names]
    columns += [c for c in ("keep_probability",) if c in dataset.schema.names]
    shards = [i for i, shard in enumerate(dataset.shards()) if shard.rows]
    if not shards:
        return
    spread = sorted({shards[int(i)] for i in np.linspace(0, len(shards) - 1, 4)})
    for shard in spread:
        with dataset.storage.open_input(dataset.shards()[shard].file) as file:
            reader = pq.ParquetFile(file)
            groups = reader.num_row_groups
            starts = np.cumsum([0] + [reader.metadata.row_group(g).num_rows for g in range(groups)])
            picks = sorted({int(g) for g in np.linspace(0, groups - 1, _GROUPS // len(spread))})
            for group in picks:
                table = reader.read_row_group(group, columns=columns).slice(0, _ROWS)
                run.tally.add(name, table)
                yield from _of_table(table, shard, int(starts[group]))


def _of_table(table: pa.Table, shard: int, start: int) -> Iterator[_Row]:
    """The rows of a table that come first in this page's own order, a handful of each language."""
    ids = table["pair_id"] if "pair_id" in table.column_names else table["image_id"]
    order = np.argsort(uniform(0, 0, ids, _SALT), kind="stable")
    if "metadata" in table.column_names:
        keys = np.array(table["metadata"].to_pylist(), dtype=object)
        taken: Counter[str] = Counter()
        picked = []
        for i in order:
            if taken[keys[i]] < PAIRS // 2:
                taken[keys[i]] += 1
                picked.append(i)
        order = np.array(picked, dtype=np.int64)
    else:
        order = order[: 2 * PAIRS]
    for values, i in zip(table.take(pa.array(order)).to_pylist(), order, strict=True):
        yield _Row(values, shard, start + int(i))


def _chosen(rows: list[_Row], texts: Mapping[str, int]) -> list[_Row]:
    """Round robin over the largest languages (by `texts`), one pair an image."""
    by_key: dict[str, list[_Row]] = {}
    for row in rows:
        by_key.setdefault(row.values.get("metadata") or "", []).append(row)
    ordered = sorted(by_key, key=lambda key: (-texts.get(key, len(by_key[key])), key))
    keys = ordered[:LANGUAGES]
    # One language of the other direction is worth a look however small it is.
    turned = [key for key in ordered if key in RIGHT_TO_LEFT]
    if turned and turned[0] not in keys:
        keys[-1] = turned[0]
    chosen: list[_Row] = []
    images: set[bytes] = set()
    while len(chosen) < PAIRS and any(by_key[key] for key in keys):
        for key in keys:
            fresh = [row for row in by_key[key] if row.values["image_id"] not in images]
            by_key[key] = fresh[1:]
            if fresh and len(chosen) < PAIRS:
                images.add(fresh[0].values["image_id"])
                chosen.append(fresh[0])
    chosen.sort(key=lambda row: keys.index(row.values.get("metadata") or ""))
    return chosen


def _pictures(run: Run, name: str, rows: list[_Row]) -> list[Thumbnail]:
    if "image" not in run.datasets[name].schema.names:
        return thumbnails([None] * len(rows))
    data: dict[tuple[int, int], bytes | None] = {}
    for shard in sorted({row.shard for row in rows}):
        numbers = np.array(sorted(row.row for row in rows if row.shard == shard), np.int64)
        taken = run.take(name, shard, numbers, ["image"])["image"].to_pylist()
        for number, image in zip(numbers, taken, strict=True):
            data[shard, int(number)] = None if image is None else image["bytes"]
    return thumbnails([data[row.shard, row.row] for row in rows])


def _entry_texts(run: Run, rows: list[dict[str, Any]]) -> dict[str, dict[int, str]]:
    wanted: dict[str, set[int]] = {}
    for row in rows:
        wanted.setdefault(row.get("metadata") or "", set()).update(row.get("entries") or ())
    return {key: entry_texts(run, key, ids) for key, ids in wanted.items() if ids}


def _rare(run: Run, rows: list[_Row]) -> set[tuple[str, int]]:
    """(language, entry) among the rows' entries whose pairs are all kept: probability 1."""
    wanted: dict[str, set[int]] = {}
    for row in rows:
        key = row.values.get("metadata") or ""
        wanted.setdefault(key, set()).update(row.values.get("entries") or ())
    found: set[tuple[str, int]] = set()
    columns = ["metadata", "entry", "probability"]
    for table in run.tables_of("balance", "metadata", sorted(wanted), columns):
        sure = table.filter(pc.equal(table["probability"], 1.0))
        for key in set(pc.unique(sure["metadata"]).to_pylist()) & set(wanted):
            entries = sure.filter(pc.equal(sure["metadata"], key))["entry"].to_numpy()
            here = np.isin(entries, np.fromiter(wanted[key], np.uint32))
            found.update((key, int(entry)) for entry in entries[here])
    return found


def _sample(
    row: dict[str, Any],
    picture: Thumbnail,
    texts: dict[str, dict[int, str]],
    rare: set[tuple[str, int]],
) -> Sample:
    key = row.get("metadata") or ""
    entries = row.get("entries") or []
    # The rare entries first: they are why the pair was worth keeping.
    order = sorted(entries, key=lambda entry: ((key, entry) not in rare, entry))
    caption = row["text"] if "text" in row else next((t["text"] for t in row["texts"] or ()), "")
    return Sample(
        pair_id=(row.get("pair_id") or row["image_id"]).hex(),
        key=key,
        label=row.get("language") or key,
        caption=caption,
        url=row.get("url"),
        picture=picture.uri or None,
        picture_note=picture.note,
        width=picture.width,
        height=picture.height,
        entries=tuple((texts[key][entry], (key, entry) in rare) for entry in order[:CHIPS]),
        entries_total=len(entries),
        keep_probability=row.get("keep_probability"),
    )
