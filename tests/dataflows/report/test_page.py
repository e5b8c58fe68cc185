from __future__ import annotations

import re
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from dataflows.report.render import report
from dataflows.report.samples import left_out
from dataflows.report.source import open_run
from dataflows.report.why import trace
from schemas.ledger import Ledger
from schemas.reasons import REASONS
from tests.dataflows.report import hostile as captions
from tests.dataflows.report.build import STAGES, Builder
from tests.dataflows.report.conftest import Make
from tests.page.html import Element, numbers, parse

CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@pytest.fixture(scope="module")
def page(hostile_page: str) -> Element:
    return parse(hostile_page)


def section(page: Element, name: str) -> Element:
    return page.one("section", id=name)


def rows(table: Element) -> list[list[str]]:
    body = table.one("tbody")
    return [[c.text for c in row.children if isinstance(c, Element)] for row in body.all("tr")]


def test_nothing_on_the_page_can_act_or_load(page: Element, hostile_page: str) -> None:
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy.attributes["content"] == CSP
    tags = Counter(element.tag for element in page.all())
    assert not set(tags) & {"script", "iframe", "object", "embed", "form", "base", "foreignobject"}
    assert tags["style"] == tags["title"] - tags["svg"] == 1
    for element in page.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                assert value.startswith(("#", "data:image/jpeg;base64,", "data:,")), value
    css = page.one("style").text
    assert "url(" not in css and "@import" not in css and "<" not in css
    assert len(hostile_page.encode()) < 3_000_000


def test_hostile_text_is_shown_and_inert(page: Element, hostile_page: str) -> None:
    assert "<script>window" not in hostile_page and "<img src=x" not in hostile_page
    assert "<b>bold</b>" not in hostile_page
    shown = page.text
    assert "<script>window.owned=1</script> the pool is written by hand" in shown
    assert "none <img src=x onerror=window.owned=1>" in shown
    assert "data/<script>window.owned=1</script>U+202E.parquet" in shown
    assert "input='<script>window.owned=1</script>' p=0.06" in shown
    assert "<b>bold</b>" in shown
    assert not set("\u202e\u2066\x07\x1b\ufeff") & set(hostile_page)


def test_captions_have_language_direction_and_alt_text(few: Builder) -> None:
    page = parse(report(few.root.url))
    cards = {card.one("p", cls="caption").text: card for card in page.all("article", cls="card")}
    assert captions.SCRIPT in cards and captions.ENTITY in cards and captions.TEMPLATE in cards
    for caption, language, direction in (
        (captions.ARABIC, "ar", "rtl"),
        (captions.ARABIC_BRAND, "ar", "rtl"),
        (captions.HEBREW, "he", "rtl"),
        (captions.JAPANESE, "ja", "ltr"),
        (captions.CHINESE, "zh", "ltr"),
        (captions.SCRIPT, "en", "ltr"),
    ):
        shown = cards[caption].one("p", cls="caption").attributes
        assert (shown["lang"], shown["dir"]) == (language, direction)
        assert cards[caption].one("img").attributes["alt"] == caption
    [long] = [card for text, card in cards.items() if text.startswith("the mastiff")]
    assert "98,792 more characters" in long.text
    assert len(long.one("img").attributes["alt"]) < 250
    [entity] = [card for text, card in cards.items() if text.startswith("the beagle")]
    assert "this picture cannot be decoded" in entity.text and not list(entity.all("img"))


def test_the_funnel_adds_up(page: Element, hostile: Builder) -> None:
    fall = section(page, "funnel").one("table", cls="of-text")
    left = 0
    seen = Counter[str]()
    for label, _, change, _, after in rows(fall):
        count = numbers(change)[0]
        if change.startswith("="):
            assert count == left == hostile.open("curated").manifest.rows
            break
        left += count if change.startswith("+") else -count
        assert numbers(after) == [left]
        seen[label.split(" pool ")[0].split(" matches ")[0].split(" curated ")[0]] += count
    recorded = Counter[str]()
    for stage in ("pool", "matches", "matched", "curated"):
        for row in hostile.open(stage).manifest.counts:
            if row["unit"] == "text" and row["reason"]:
                recorded[row["reason"].replace("_", " ")] += row["count"]
    assert seen == recorded
    assert {"nul in text", "text too long", "empty text", "duplicate pair", "no entry matched",
            "language without metadata", "not drawn", "image has another text"} <= set(seen)  # fmt: skip
    for reason in recorded:
        assert REASONS[reason.replace(" ", "_")] in fall.text


def test_every_ledger_is_shown_with_its_check(page: Element, hostile: Builder) -> None:
    table = section(page, "funnel").one("table", cls="ledger")
    shown = {row[0].split(" created:")[0].split(" rejected:")[0].split(" sampled")[0]: row
             for row in rows(table)}  # fmt: skip
    for stage in STAGES:
        ledger = Ledger.from_json(hostile.open(stage).manifest.counts)
        for unit, name in (("text", "texts"), ("record", "records"), ("entry", "entries")):
            kinds = ("in", "created", "rejected", "merged", "sampled_out", "out")
            counts = [ledger.count(unit, kind) for kind in kinds]
            if any(counts):
                row = shown[f"{stage} {name}"]
                assert [numbers(cell)[0] for cell in row[1:7]] == counts
                assert "✓ adds up" in row[7] and "✗" not in row[7]
    assert "in = out of pool" in shown["matches texts"][7]
    assert "ids too" in shown["curated texts"][7]


def test_languages_without_metadata_come_first(page: Element) -> None:
    languages = section(page, "languages").text
    assert languages.index("Counted first") < languages.index("Texts by metadata language")
    assert "Greek el 1" in languages and "Russian ru 1" in languages
    assert "2 texts" in languages


def test_shares_before_and_after(page: Element, hostile: Builder) -> None:
    stats = hostile.open("matches").manifest.stats["languages"]
    kept = hostile.open("curated").manifest.stats["languages"]
    covered = {key: stats[key]["texts"] for key in captions.ENTRIES}
    table = next(section(page, "languages").all("table"))
    shown = {row[0].split()[-1]: row for row in rows(table)}
    assert set(shown) == set(covered)
    for key, row in shown.items():
        before = 100 * covered[key] / sum(covered.values())
        after = 100 * kept[key]["texts"] / sum(n["texts"] for n in kept.values())
        assert float(row[2].split()[0]) == pytest.approx(before, abs=0.051)
        assert float(row[3].split()[0]) == pytest.approx(after, abs=0.051)
        assert [numbers(cell)[0] for cell in row[4:7]] == [
            covered[key], stats[key]["matched"], kept[key]["texts"]
        ]  # fmt: skip


@pytest.mark.spec("metaclip2", 28)
def test_tail_mass_of_each_language_is_reported_against_p(page: Element, hostile: Builder) -> None:
    counts: dict[str, list[int]] = {}
    for row in hostile.table("counts").to_pylist():
        counts.setdefault(row["metadata"], []).append(row["count"])
    table = next(t for t in section(page, "balance").all("table") if "Tail mass" in t.text)
    shown = {row[0].split()[-1]: row for row in rows(table)}
    assert set(shown) == set(counts)
    for key, row in shown.items():
        t = numbers(row[4])[0]
        tail = sum(c for c in counts[key] if c < t) / sum(counts[key])
        assert float(row[5]) == pytest.approx(tail, abs=5e-5)
        assert float(row[6]) == pytest.approx(abs(tail - 0.06), abs=5e-5)
        assert numbers(row[2])[0] == len(counts[key]) and numbers(row[3])[0] == sum(counts[key])


def test_small_languages_are_warned_of_with_the_reason(page: Element) -> None:
    alerts = section(page, "warnings")
    assert "t = 1, the least possible, in 4 of 5 languages (Arabic, Hebrew, Japanese, Chinese)" in (
        alerts.text
    )
    reasons = [item.text for item in alerts.one("details").all("li")]
    assert len(reasons) == 4 and all("too few texts for so many entries" in r for r in reasons)


def test_safety_is_said(page: Element) -> None:
    text = section(page, "safety").text
    assert "No filter for illegal or adult images ships" in text
    assert "Evaluation sets, by URL not applied" in text
    assert "Evaluation sets, by image hash not applied" in text


def test_lineage_names_every_digest_parent_and_input(page: Element, hostile: Builder) -> None:
    text = section(page, "lineage").text
    for stage in STAGES:
        manifest = hostile.open(stage).manifest
        assert manifest.digest in text
        for name, version in manifest.libraries.items():
            assert f"{name} {version}" in text
    assert "1,234" in text and "sha256:00ff" in text
    assert hostile.open("curated").manifest.digest in page.one("header").text


def test_the_page_is_accessible(page: Element) -> None:
    ids = [e.attributes["id"] for e in page.all() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link.attributes["href"].removeprefix("#") in ids
    assert all("alt" in image.attributes for image in page.all("img"))
    for svg in page.all("svg"):
        assert svg.attributes["role"] == "img"
        assert all(name in ids for name in svg.attributes["aria-labelledby"].split())
    for table in page.all("table"):
        assert list(table.all("th", scope="col")) and table.all("th", scope="row")
    levels = [int(e.tag[1]) for e in page.all() if re.fullmatch(r"h[1-6]", e.tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert page.one("html").attributes["lang"] == "en"


def test_the_same_datasets_give_the_same_page(hostile: Builder, hostile_page: str) -> None:
    assert report(hostile.root.url) == hostile_page


@pytest.mark.parametrize("upto", STAGES)
def test_a_partial_run_has_a_page(few: Builder, tmp_path: Path, upto: str) -> None:
    stages = STAGES[: STAGES.index(upto) + 1]
    for stage in stages:
        shutil.copytree(few.root.at(stage).url, tmp_path / stage)
    page = parse(report(str(tmp_path)))
    assert page.one("h1").text
    present = {s.attributes["id"] for s in page.all("section")}
    assert {"warnings", "funnel", "safety", "lineage"} <= present
    assert ("languages" in present) == ("matches" in stages)
    assert ("balance" in present) == ("balance" in stages)
    assert "✗" not in page.text


def test_one_dataset_with_its_ancestors(hostile: Builder) -> None:
    page = parse(report(hostile.root.at("matches").url))
    lineage = section(page, "lineage").text
    assert "pool" in lineage and "curated" not in lineage
    assert hostile.open("matches").manifest.digest in page.one("header").text


def test_a_run_redone_in_part_is_said(few: Builder, hostile: Builder, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(hostile.root.url, mixed)
    shutil.rmtree(mixed / "matches")
    shutil.copytree(few.root.at("matches").url, mixed / "matches")
    page = parse(report(str(mixed)))
    alerts = section(page, "warnings").text
    assert "matches here is" in alerts and "redone in part" in alerts


def test_filters_of_the_user_and_evaluation_sets_are_said(make: Make) -> None:
    plain = "https://example.org/plain/{}.jpg"
    builder = make(
        plain=12,
        evaluation=[plain.format(1), "http://EXAMPLE.org/plain/2.jpg#x"],
        invalid=[plain.format(3), plain.format(4), plain.format(5)],
    )
    page = parse(report(builder.root.url))
    safety = section(page, "safety").text
    assert "none ran here but yours" in safety
    assert "Evaluation sets, by URL applied before counting: 2 records removed" in safety
    assert "no record holds the bytes of its image" in safety
    assert "Your list of valid ids applied: texts of other images were rejected (4)" in safety
    assert "not in valid list matched" in section(page, "funnel").text
    assert "evaluation set url 2" in section(page, "funnel").text
    assert "✗" not in page.text


def test_a_score_column_is_said(make: Make) -> None:
    page = parse(report(make(plain=2, min_score=0.5, stages=("records", "pool")).root.url))
    assert "records below 0.5 were rejected (24)" in section(page, "safety").text


def test_mode_text_and_no_pictures(make: Make) -> None:
    page = parse(report(make(plain=12, mode="text").root.url))
    assert "image has another text" not in section(page, "funnel").text
    assert "mode text" in page.one("header").text


def test_it_reads_any_file_system(hostile: Builder) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(f"{hostile.root.url}/", "/page-test/out/", recursive=True)
    try:
        assert parse(report("memory://page-test/out")).one("h1").text == (
            parse(report(hostile.root.url)).one("h1").text
        )
    finally:
        memory.rm("/page-test", recursive=True)


@pytest.mark.parametrize("mode", ["image", "text"])
def test_pairs_left_out_were_picked_and_not_drawn(make: Make, mode: str) -> None:
    builder = make(plain=96, mode=mode)
    found = left_out(open_run(builder.root.url))
    assert len(found) >= 2
    curated = set(builder.table("curated")["text"].to_pylist())
    rows = {row["text"]: row for row in builder.table("matched").to_pylist()}
    for pair in found:
        assert pair.caption not in curated and pair.u >= pair.keep_probability
        told = trace(open_run(builder.root.url), rows[pair.caption]["image_id"])
        [text] = [text for text in told.texts if text.pair == rows[pair.caption]["pair_id"]]
        assert "not_drawn" in text.verdict
