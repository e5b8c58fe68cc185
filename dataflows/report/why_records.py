"""Texts that never reached the pool: their record is exploded again, text by text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.evaluation_sets import EvaluationSets
from curation.metaclip2.explode import clean_texts, explode
from dataflows.report import lookup
from dataflows.report.source import Run
from dataflows.report.traces import ImageTrace, TextTrace, reason
from dataflows.report.why_ingest import ingested
from schemas.dataset import Dataset
from schemas.ids import pair_ids
from schemas.table_schemas import ID, RECORDS


def from_records(run: Run, image: bytes, pool: pa.Table, found: ImageTrace) -> None:
    """Add texts that never reached the pool: the records are exploded again, text by text."""
    for source, name in enumerate(sources(run)):
        dataset = run.get(name)
        if dataset is None:
            found.notes.append(
                f"the records {name} lie outside of this output: give --with {name}=LOCATION to "
                "look at them"
            )
            continue
        # Not only the records that the pool names: others hold what was refused, or was there twice.
        for shard, row in _search(run, name, image):
            _explode_again(run, dataset, name, (source, shard, row), pool, found)


def image_of_lost_pair(run: Run, pair: bytes) -> bytes | None:
    """The image id of a pair that is in no pool, or None.

    Cost: the texts of all records at hand are read and hashed, about a million a second.
    """
    wanted = pa.scalar(pair, ID)
    for name in sources(run):
        for table in run.tables(name, ["image_id", "texts"]):
            lists = table["texts"].combine_chunks()
            texts = clean_texts(pc.struct_field(lists.flatten(), "text"))
            images = table["image_id"].take(pc.list_parent_indices(lists))
            place = pc.index(pair_ids(images, texts), wanted).as_py()
            if place >= 0:
                return bytes(images[place].as_py())
    return None


def _search(run: Run, name: str, image: bytes) -> Iterator[tuple[int, int]]:
    table = lookup.rows_of_image(run, name, image)
    assert table is not None
    yield from zip(table["_shard"].to_pylist(), table["_row"].to_pylist(), strict=True)


def _explode_again(
    run: Run,
    dataset: Dataset,
    name: str,
    place: tuple[int, int, int],
    pool: pa.Table,
    found: ImageTrace,
) -> None:
    source, shard, row = place
    columns = [column for column in RECORDS.arrow.names if column != "image"]
    record = run.take(name, shard, [row], columns)
    values = record.to_pylist()[0]
    settings = run.datasets["pool"].manifest.config
    settings = {**settings, **settings.get("replay", {})}
    where = f"{name}, shard {shard}, row {row}{origin(dataset, values)}"
    columns = ["pair_id", "key", "source", "shard", "row"]
    in_pool = {tuple(values.values()) for values in pool.select(columns).to_pylist()}
    evaluation, unknown = _evaluation(run)
    for item in values["texts"]:
        one = {**values, "texts": [item], "image": None}
        table = RECORDS.validate(pa.Table.from_pylist([one], schema=RECORDS.arrow))
        outcome = explode(
            table,
            source,
            shard,
            row,
            max_text_bytes=settings.get("max_text_bytes") or 100_000,
            min_score=settings.get("min_score"),
            evaluation=evaluation,
        )
        pair = pair_ids(table["image_id"], clean_texts(pa.array([item["text"]])))[0].as_py()
        text = TextTrace(item["text"], item["key"], pair, values["url"])
        text.note("records", where)
        why = reason(outcome.ledger)
        if why:
            error = outcome.dead["error"][0].as_py() if outcome.dead is not None else ""
            text.reject("pool", why, error)
        elif (pair, item["key"], *place) in in_pool:
            continue  # told from the pool on
        else:
            _missing_from_pool(run, text, pair, place, pool, unknown)
        found.texts.append(text)


def _missing_from_pool(
    run: Run,
    text: TextTrace,
    pair: bytes,
    place: tuple[int, int, int],
    pool: pa.Table,
    unknown: bool,
) -> None:
    """A text that no rule of the record rejects and that is not in the pool."""
    rows = [row for row in pool.to_pylist() if row["pair_id"] == pair]
    if rows:
        kept = rows[0]
        at = f"source {kept['source']}, shard {kept['shard']}, row {kept['row']}, {kept['key']}"
        text.reject("pool", "duplicate_pair", at)
        return
    letter = _letter(run, "pool", f"{place[0]}/{place[1]}", place[2])
    if letter:
        text.reject("pool", letter[0], letter[1])
    elif unknown:
        text.note("pool", "not there; the evaluation sets lie outside of this output (--with)")
        text.verdict = "not kept: by the evaluation sets, or by limit="
    else:
        text.note("pool", "not there, and no rule rejects it: it may lie beyond limit=")
        text.verdict = "not kept: not read (limit=), or the datasets are not of one run"


def _evaluation(run: Run) -> tuple[EvaluationSets | None, bool]:
    """The evaluation sets, and whether some were applied that are not at hand."""
    names = {p["name"] for p in run.datasets["pool"].manifest.parents}
    dataset = run.get("evaluation")
    if dataset is None:
        return None, "evaluation" in names
    columns = [c for c in ("url", "sha256", "phash") if c in dataset.schema.names]
    return EvaluationSets.of(dataset.tables(columns)), False


def origin(dataset: Dataset, record: Mapping[str, Any]) -> str:
    """Where in the input a record stood, in brackets; empty if the manifest names no files."""
    pins = dataset.manifest.inputs
    if record["file"] >= len(pins):
        return ""
    return f" ({pins[record['file']].get('path')}, record {record['position']})"


def _letter(run: Run, stage: str, source: str, position: int) -> tuple[str, str] | None:
    for table in run.tables(f"{stage}.dead_letters", ["reason", "error", "source", "position"]):
        for row in table.to_pylist():
            if row["source"] == source and row["position"] == position:
                return row["reason"], row["error"]
    return None


def sources(run: Run) -> list[str]:
    """Names of the pool's input datasets in the order of their ordinals; without a pool, of all records."""
    pool = run.get("pool")
    if pool is None:
        return ingested(run)
    return [p["name"] for p in pool.manifest.parents if p["name"].startswith("records")]
