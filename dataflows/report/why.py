"""What became of an image and its texts, stage by stage, and by which number each was decided.

Rows that a policy rejected are gone from the datasets, so the step that rejected them is run again
on them: the steps are pure functions of row and settings, and the settings are in the manifests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from curation.metaclip2.explode import clean_texts
from curation.metaclip2.language import Identifier
from curation.metaclip2.match import Matcher, match
from dataflows.report import lookup
from dataflows.report.draws import Draw
from dataflows.report.entries import entry_facts
from dataflows.report.source import Run
from dataflows.report.traces import KEPT, ImageTrace, TextTrace, reason
from dataflows.report.why_ingest import ingested, refused
from dataflows.report.why_records import from_records, origin, sources
from schemas.dataset import Dataset
from schemas.ids import pair_id
from schemas.table_schemas import POOL


def trace(run: Run, image: bytes, given: str = "") -> ImageTrace:
    """Follow every text of an image through the stages that the run has, from ingest on.

    ``given`` is the id as the user wrote it, for what ingest could not even parse.
    """
    found = ImageTrace(image)
    found.refused = refused(run, image, given)
    pool = lookup.rows_of_image(run, "pool", image)
    if pool is None:
        _from_ingest(run, image, found)
        return found
    from_records(run, image, pool, found)
    if pool.num_rows:
        _from_pool(run, image, pool, found)
    return found


def _from_ingest(run: Run, image: bytes, found: ImageTrace) -> None:
    """The texts of an output that holds records and nothing made from them."""
    for name in ingested(run):
        rows = lookup.rows_of_image(run, name, image)
        for row in rows.to_pylist() if rows is not None else []:
            said = clean_texts(pa.array([item["text"] or "" for item in row["texts"]], pa.string()))
            for item, clean in zip(row["texts"], said.to_pylist(), strict=True):
                pair = pair_id(image, clean)
                text = TextTrace(item["text"] or "", item["key"] or "", pair, row["url"])
                where = f"{name}, shard {row['_shard']}, row {row['_row']}"
                text.note("records", where + origin(run.datasets[name], row))
                text.verdict = "in the records; this output goes no further"
                found.texts.append(text)


def _from_pool(run: Run, image: bytes, pool: pa.Table, found: ImageTrace) -> None:
    matches = lookup.rows_of_image(run, "matches", image)
    matched = lookup.rows_of_image(run, "matched", image)
    curated = lookup.rows_of_image(run, "curated", image)
    draw = Draw.of(run, matched, curated)
    names = sources(run)
    for number, row in enumerate(pool.to_pylist()):
        text = TextTrace(row["text"], row["key"], row["pair_id"], row["url"])
        found.texts.append(text)
        name = names[row["source"]] if row["source"] < len(names) else f"source {row['source']}"
        text.note("records", f"{name}, shard {row['shard']}, row {row['row']}")
        text.note("pool", f"shard {row['_shard']}, row {row['_row']}")
        text.verdict = "in the pool; this output goes no further"
        if matches is None:
            continue
        hit = _row(matches, row["pair_id"])
        if hit is None:
            _match_again(run, pool.slice(number, 1), text)
            continue
        _tell_match(run, hit, text)
        if matched is None:
            text.verdict = "matched; this output goes no further"
            continue
        kept = _row(matched, row["pair_id"])
        if kept is None:
            text.reject("matched", "not_in_valid_list")
            continue
        _tell_draw(draw, kept, text)


def _tell_match(run: Run, hit: Mapping[str, Any], text: TextTrace) -> None:
    entries = hit["entries"]
    text.note(
        "matches",
        f"identified as {hit['language']!r}, metadata {hit['metadata']!r}, "
        f"{len(entries)} entr{'y' if len(entries) == 1 else 'ies'}",
    )
    t = run.stats.get("balance", {}).get("languages", {}).get(hit["metadata"], {}).get("t")
    facts = entry_facts(run, hit["metadata"], entries)
    for entry in entries:
        fact = facts[entry]
        line = f"  {fact.text!r} (entry {entry})"
        if fact.count is not None:
            line += f": count {fact.count:,}, t {t:,}, probability {fact.probability:.6g}"
        text.note("balance" if fact.count is not None else "matches", line)


def _tell_draw(draw: Draw | None, kept: Mapping[str, Any], text: TextTrace) -> None:
    probability, pair = kept["keep_probability"], kept["pair_id"]
    text.note(
        "matched",
        f"keep probability {probability:.6g} = 1 - product of (1 - probability); one of "
        f"{kept['image_texts']} matched texts of its image",
    )
    text.verdict = "has a keep probability; this output has no draw"
    if draw is None:
        return
    if draw.picked is not None:
        which = "this one" if pair == draw.picked else "another one"
        text.note(
            "curated",
            f"u = {draw.pick_u:.6f} of the image picks text {draw.pick_place + 1} of {draw.texts}: "
            f"{which}",
        )
    number = draw.number(pair)
    if draw.picked in (None, pair):
        sign = "<" if number < probability else ">="
        text.note(
            "curated",
            f"u = {number:.6f} of the pair {sign} {probability:.6f} (seed {draw.seed}, epoch "
            f"{draw.epoch})",
        )
    if pair in draw.kept:
        text.verdict = KEPT
    else:
        lost = draw.picked not in (None, pair)
        text.reject("curated", "image_has_another_text" if lost else "not_drawn")
    if (pair in draw.there) != (pair in draw.kept):
        text.note("curated", "the dataset says otherwise: it is not the child of this matched")
        text.verdict = f"contradiction: {text.verdict}, but not so in the dataset"


def _match_again(run: Run, row: pa.Table, text: TextTrace) -> None:
    """A pool row without a match: identified and matched again for its reason."""
    letter = _letter_of_pair(run, "matches", text.pair)
    if letter:
        text.reject("matches", letter[0], letter[1])
        return
    automata = run.get("automata")
    if automata is None:
        text.note("matches", "no match; the automata are not in this output to say why")
        text.verdict = "not kept: no match (matches)"
        return
    table = row.drop_columns(["_shard", "_row"]).cast(POOL.arrow)
    isolation = run.datasets["matches"].manifest.config.get("isolation", True)
    identifier = Identifier()
    label = identifier.identify(table["text"])[0].as_py()
    outcome = match(table, Automata(automata), identifier, isolation=isolation)
    why = reason(outcome.ledger)
    text.note("matches", f"identified as {label!r}")
    if why:
        text.reject("matches", why)
    else:
        text.note("matches", "matches now: code or model differ from those of the run")
        text.verdict = "contradiction: matches now, but not in the dataset"


class Automata(Mapping[str, Matcher]):
    """The automata of a committed dataset by metadata key, mapped when asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        names = {str(blob["digest"]): name for name, blob in dataset.manifest.blobs.items()}
        self._names = {
            row["metadata"]: names[row["blob"]]
            for table in dataset.tables(["metadata", "blob"])
            for row in table.to_pylist()
        }

    def __getitem__(self, key: str) -> Matcher:
        from kernels.matching import Automaton

        return Automaton.open(self._dataset.blob(self._names[key]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _row(table: pa.Table, pair: bytes) -> dict[str, Any] | None:
    return next((row for row in table.to_pylist() if row["pair_id"] == pair), None)


def _letter_of_pair(run: Run, stage: str, pair: bytes | None) -> tuple[str, str] | None:
    for table in run.tables(f"{stage}.dead_letters", ["reason", "error", "row"]):
        for row in table.to_pylist():
            with pa.ipc.open_stream(row["row"]) as stream:
                values = stream.read_all()
            if pair in values["pair_id"].to_pylist():
                return row["reason"], row["error"]
    return None
