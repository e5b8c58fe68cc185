"""Job: from n-grams, titles and wordnets to the entries of each metadata key.

Every shard gives its best candidates by Wikipedia and kind; they are combined by metadata key, and
one worker selects and merges a key. What it holds is bounded by the caps, not by the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.ingest.files import open_raw
from curation.metadata import builtin, merge, select
from curation.metadata.select import Rules, Totals
from curation.metadata.wikis import metadata_key
from curation.metadata.wordnets import lemma_entries, read_lemmas, synset_entries
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.metadata.sources import Input, found_again
from dataflows.transforms.reading import DatasetUnits, Ref, unit_tables
from dataflows.transforms.shuffle import CombineUnits, TableCombine
from dataflows.transforms.sink import Sink
from schemas.errors import UsageError
from schemas.ledger import Ledger
from schemas.step import Outcome

CANDIDATES = pa.schema([("wiki", pa.string()), ("kind", pa.string()), *select.CANDIDATES])
WORDNET_UNIT = "wordnets"


@dataclass(frozen=True)
class WikiRules:
    """The rules of a Wikipedia with the sizes of its sources."""

    rules: Rules
    totals: Totals
    lemmas: int


@dataclass(frozen=True)
class Plan:
    """What every part of the job must agree on."""

    wikis: Mapping[str, WikiRules]
    keys: frozenset[str]
    english_wordnet: str
    wordnets: tuple[Input, ...] | None  # None: the shipped ones

    def lemmas(self, wiki: str) -> pa.Array:
        """Finished WordNet entries of a Wikipedia, ascending."""
        if self.wordnets is None:
            if wiki not in builtin.languages():
                return pa.array([], pa.string())
            return builtin.entries(wiki, english=self.english_wordnet)
        found = [pa.array([], pa.string())]
        for source in (one for one in self.wordnets if one.wiki == wiki):
            with open_raw(source.check().path) as raw:
                lemmas, heads = read_lemmas(source.path, raw)
            named = wiki == "en" and self.english_wordnet == "synsets"
            found.append(synset_entries(heads) if named else lemma_entries(lemmas))
        return pc.unique(pa.concat_arrays(found))


@dataclass(frozen=True)
class _Units:
    datasets: tuple[Ref, ...]

    def __call__(self) -> Iterator[Unit]:
        yield from DatasetUnits(self.datasets)()
        yield Unit(WORDNET_UNIT, {})


@dataclass(frozen=True)
class _Fold:
    """The best candidates of every (wiki, kind) of a table."""

    plan: Plan

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.concat_tables(
            [
                CANDIDATES.empty_table(),
                *(
                    _candidates(wiki, kind, self._best(wiki, kind, rows))
                    for wiki, kind, rows in _groups(table)
                ),
            ]
        )

    def _best(self, wiki: str, kind: str, rows: pa.Table) -> pa.Table:
        of = self.plan.wikis[wiki]
        limit = None if kind == "w" else select.needed(kind, of.rules, of.totals, of.lemmas)
        return select.best([rows.select(["text", "score"])], limit)


def _groups(table: pa.Table) -> Iterator[tuple[str, str, pa.Table]]:
    pairs = table.select(["wiki", "kind"]).group_by(["wiki", "kind"]).aggregate([])
    for pair in pairs.sort_by([("wiki", "ascending"), ("kind", "ascending")]).to_pylist():
        mask = pc.and_(pc.equal(table["wiki"], pair["wiki"]), pc.equal(table["kind"], pair["kind"]))
        yield pair["wiki"], pair["kind"], table.filter(mask)


def _candidates(wiki: str, kind: str, rows: pa.Table) -> pa.Table:
    tags = [pa.repeat(pa.scalar(value, pa.string()), rows.num_rows) for value in (wiki, kind)]
    return pa.table([*tags, rows["text"], rows["score"]], schema=CANDIDATES)


@dataclass(frozen=True)
class _Emit:
    plan: Plan

    def __call__(self, unit: Unit) -> Iterator[tuple[str, pa.Table]]:
        if unit.name == WORDNET_UNIT:
            for wiki in sorted(self.plan.wikis):
                texts = self.plan.lemmas(wiki)
                zeros = pa.repeat(pa.scalar(0.0), len(texts))
                rows = pa.table({"text": texts, "score": zeros}, schema=select.CANDIDATES)
                yield self._key(wiki), _candidates(wiki, "w", rows)
            return
        fold = _Fold(self.plan)
        held: dict[str, pa.Table] = {}
        for table in unit_tables(unit):
            for wiki, kind, rows in _groups(table):
                if wiki not in self.plan.wikis:
                    continue
                of = self.plan.wikis[wiki]
                found = select.candidates(kind, wiki, rows, of.rules, of.totals)
                part = _candidates(wiki, kind, found)
                key = self._key(wiki)
                held[key] = fold(pa.concat_tables([held[key], part]) if key in held else part)
        yield from sorted(held.items())

    def _key(self, wiki: str) -> str:
        return metadata_key(wiki, self.plan.keys)


@dataclass(frozen=True)
class _Select:
    """All candidates of a metadata key to its METADATA rows."""

    plan: Plan

    def __call__(self, key: str, table: pa.Table) -> Outcome:
        owned = [w for w in sorted(self.plan.wikis) if metadata_key(w, self.plan.keys) == key]
        found = {(wiki, kind): rows for wiki, kind, rows in _groups(table)}
        selections, kept = [], {}
        for wiki in owned:
            of = self.plan.wikis[wiki]
            lemmas, unigrams, bigrams, titles = (
                self._ranked(found.get((wiki, kind))) for kind in "wubt"
            )
            chosen, kept[wiki] = select.select(
                lemmas["text"].combine_chunks(), unigrams, bigrams, titles, of.rules, of.totals
            )
            selections.append(chosen)
        rows = merge.merge(key, selections)
        ledger = Ledger()
        ledger.add("entry", "created", "derived", rows.num_rows)
        about = {
            "entries": rows.num_rows,
            "fingerprint": merge.fingerprints(rows)[key],
            "wikipedias": kept,
        }
        return Outcome(rows, ledger, stats={"metadata": {key: about}})

    @staticmethod
    def _ranked(rows: pa.Table | None) -> pa.Table:
        if rows is None:
            return select.CANDIDATES.empty_table()
        return select.best([rows.select(["text", "score"])])


def _totals(context: JobContext, wiki: str) -> Totals:
    def of(name: str) -> Mapping[str, Any]:
        if name not in context.inputs:
            return {}
        found: Mapping[str, Any] = context.inputs[name].manifest.stats["wikis"].get(wiki, {})
        return found

    ngrams, titles = of("ngrams"), of("titles")
    return Totals(ngrams.get("tokens", 0), ngrams.get("unigrams", 0), titles.get("titles", 0))


def wanted_wikis(context: JobContext) -> Sequence[str]:
    """The Wikipedias of a run: those named, else all that a source has."""
    named = context.config["languages"]
    if named is not None:
        return sorted(named)
    found = set(context.config["wordnet_languages"])
    for dataset in context.inputs.values():
        found.update(dataset.manifest.stats["wikis"])
    return sorted(found)


def selected_entries(context: JobContext, sink: Sink) -> CombineUnits:
    """NGRAMS datasets and wordnets to one METADATA dataset."""
    config = context.config
    wordnets = None
    if config["wordnets"] != "builtin":
        wordnets = found_again("wordnets", context.stage.pinned) if context.stage.pinned else ()
    bare = Plan({}, frozenset(config["keys"]), config["english_wordnet"], wordnets)
    wikis = {
        wiki: WikiRules(
            Rules(**config["rules"]["english" if wiki == "en" else "others"]),
            _totals(context, wiki),
            len(bare.lemmas(wiki)),
        )
        for wiki in wanted_wikis(context)
    }
    empty = [w for w, of in wikis.items() if of.totals == Totals() and not of.lemmas]
    if empty:
        raise UsageError(
            f"languages={','.join(empty)}: no dump, page view or wordnet has anything for "
            f"{empty[0]!r}; add a source, or leave it out of languages=."
        )
    plan = Plan(wikis, bare.keys, bare.english_wordnet, wordnets)
    datasets = tuple(Ref.of(context.inputs[n]) for n in context.stage.inputs)
    return CombineUnits(
        _Units(datasets), _Emit(plan), TableCombine(_Fold(plan)), _Select(plan), sink
    )
