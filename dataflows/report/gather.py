"""From a run's committed datasets to everything that its page says."""

from __future__ import annotations

from curation.page.names import language_name
from curation.page.numbers import percent, share, size, whole
from dataflows.report import lineage, stopped
from dataflows.report.balance import balance
from dataflows.report.estimates import knob
from dataflows.report.fetching import fetching
from dataflows.report.flows import faults, flows
from dataflows.report.funnel import before, funnel
from dataflows.report.languages import english, languages
from dataflows.report.model import Balance, Funnel, Languages, Report, Tile
from dataflows.report.samples import dead_letters, left_out, samples
from dataflows.report.source import Run
from dataflows.report.texts import texts, tiles

_TITLES = {
    "metaclip2": "MetaCLIP 2: a curated set of image-text pairs",
    "fetch": "Fetching: pictures from URLs",
    "metadata": "Metadata: the concept lists of each language",
    "ingest": "Ingest: records read from outside",
    "tokens": "Tokens: text for language models",
}

_ROWS = {
    **dict.fromkeys(("curated", "matched", "matches"), "pairs"),
    "fetched": "pictures",
    "tokens": "documents",
}


def gather(run: Run) -> Report:
    """Read what the page needs: all manifests, the small tables, a few rows of the large ones.

    Cost: independent of the pool's size. The shard lists of the datasets shown from, the counts of
    at most 12 languages, a curated set of at most 2 million rows (two columns), 13 row groups, 24
    pictures.
    """
    all_flows = flows(run)
    fall = funnel(run, all_flows)
    ingest, ingest_note = before(run, all_flows)
    langs = languages(run)
    heads_and_tails = balance(run)
    pairs, pairs_from = samples(run)
    facts = lineage.stages(run)
    pins, pins_total = lineage.inputs(run)
    recipe = str(run.manifest.recipe.get("name", ""))
    documents = texts(run)
    return Report(
        title=_TITLES.get(recipe, f"{recipe or 'A'} dataset: {run.head}"),
        recipe=recipe or "no recipe",
        head=next(stage for stage in facts if stage.name == run.head),
        tiles=(*_tiles(run, langs, heads_and_tails, fall), *tiles(run)),
        lede=documents.lede if documents is not None else _lede(run, langs, fall),
        warnings=(*stopped.alerts(run), *lineage.warnings(run), *faults(all_flows)),
        flows=all_flows,
        funnel=fall,
        before=ingest,
        before_note=ingest_note,
        languages=langs,
        balance=heads_and_tails,
        knob=knob(run),
        samples=pairs,
        samples_from=pairs_from,
        left_out=left_out(run),
        dead=dead_letters(run),
        dead_total=sum(dataset.manifest.rows for dataset in run.dead.values()),
        stages=facts,
        missing=lineage.missing(run),
        inputs=pins,
        inputs_total=pins_total,
        licences=lineage.licences(run),
        commands=lineage.commands(run),
        safety=None if documents is not None else lineage.safety(run),
        fetching=fetching(run),
        texts=documents,
        cost=run.tally.lines(len(run.datasets) + len(run.dead)),
    )


def _lede(run: Run, langs: Languages | None, fall: Funnel | None) -> str:
    manifest = run.manifest
    if langs is None or run.head not in ("curated", "matched"):
        return manifest.spec.doc
    start = fall.rows[0].count if fall else 0
    kept = sum(1 for row in langs.rows if (row.curated if row.curated is not None else row.matched))
    text = f"{whole(manifest.rows)} pairs in {kept} languages, out of {whole(start)} raw texts"
    row = english(langs)
    if row is not None and row.share_after is not None:
        after, before = percent(row.share_after), percent(row.share_before)
        text += f"; English makes up {after}, after {before} before"
    if langs.without_total:
        largest = " and ".join(language_name(label) for label, _ in langs.without[:2])
        text += (
            f". {whole(langs.without_total)} texts were set aside because their language, such as "
            f"{largest}, has no metadata"
        )
    return text + "."


def _tiles(
    run: Run, langs: Languages | None, found: Balance | None, fall: Funnel | None
) -> tuple[Tile, ...]:
    manifest = run.manifest
    shards = int(manifest.totals.get("shards", 0))
    word = "shard" if shards == 1 else "shards"
    tiles = [
        Tile(
            whole(manifest.rows),
            _ROWS.get(run.head, "rows"),
            f"{size(manifest.totals.get('bytes', 0))} in {whole(shards)} {word}",
        )
    ]
    if fall is not None and len(fall.rows) > 1:
        first, last = fall.rows[0], fall.rows[-1]
        tiles.append(
            Tile(
                percent(share(last.count, first.count)),
                "of the raw texts" if fall.unit == "text" else f"of the {fall.unit}s",
                f"{whole(first.count)} at the start",
            )
        )
    if langs is not None and langs.matched_total and langs.curated_total is not None:
        kept = share(langs.curated_total, langs.matched_total)
        tiles.append(
            Tile(
                percent(kept),
                "of the matched pairs",
                f"{whole(langs.matched_total)} matched an entry",
            )
        )
    if langs is not None:
        alive = sum(
            1 for row in langs.rows if (row.matched if row.curated is None else row.curated)
        )
        note = (
            f"{len(langs.without)} more without metadata"
            if langs.without
            else "all identified have metadata"
        )
        tiles.append(Tile(str(alive), "languages", note))
    row = english(langs)
    if row is not None and row.share_after is not None:
        tiles.append(
            Tile(percent(row.share_after), "English", f"{percent(row.share_before)} before")
        )
    if found is not None:
        stats = run.stats["balance"]
        t_en, threshold = stats.get("t_en"), "shared" if found.shared else "in English"
        note = "" if t_en is None else f"t = {whole(t_en)} {threshold}"
        mode = stats.get("mode") or manifest.config.get("mode")
        note += f", mode {mode}" if mode else ""
        tiles.append(Tile(percent(stats.get("p")), "tail proportion p", note.removeprefix(", ")))
    return tuple(tiles)
