"""What ingest itself rejected: told by `why`, and where the report's funnel begins."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from dataflows.cli import main
from dataflows.report.render import report
from schemas.ids import image_id, pair_id
from schemas.ledger import Ledger
from tests.dataflows.report.build import STAGES, Builder, Plan, png
from tests.page.html import Element, numbers, parse

Capture = pytest.CaptureFixture[str]

URL = "https://example.org/{}.jpg"
NO_PICTURE = b"no picture at all"
READ = {"in": 10, "out": 4, "bad_record": 1, "bad_utf8": 1, "empty_text": 2, "no_url_no_image": 1,
        "not_an_image": 1}  # fmt: skip
EMPTY = "rejected 2 records as empty_text (the text is empty or only white space)"


def _write(place: Path) -> str:
    """Ten records as files, six of which ingest does not let in; returns input=."""
    lines = [
        json.dumps({"url": URL.format(0), "text": "a cat on the mat"}).encode(),
        b'{"url":"%s","text":"a \xff cat"}' % URL.format(1).encode(),
        json.dumps({"url": URL.format(2), "text": "a dog in the garden"}).encode(),
        json.dumps({"url": URL.format(3), "text": None}).encode(),
        json.dumps({"url": None, "text": "a dog without an address"}).encode(),
        b'{"url": "%s", "text": "a dog' % URL.format(50).replace("/", "\\/").encode(),
        json.dumps({"url": URL.format(6)}).encode(),
        json.dumps({"url": URL.format(7), "text": "\0 a hen"}).encode(),
    ]
    (place / "rows.jsonl").write_bytes(b"\n".join(lines))
    (place / "pictures").mkdir()
    for name, data, text in (("a", png("red"), "a red dog"), ("b", NO_PICTURE, "a bad\ncat ")):
        (place / "pictures" / f"{name}.png").write_bytes(data)
        (place / "pictures" / f"{name}.txt").write_text(text)
    return f"{place / 'rows.jsonl'},{place / 'pictures'}"


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an ingest. Not to be changed."""
    place = tmp_path_factory.mktemp("ingest")
    words = ["columns.url=url", "columns.text=text", f"output={place / 'out'}"]
    assert main(["run", "ingest", f"input={_write(place)}", *words]) == 0
    return place / "out"


@pytest.fixture
def built(ingested: Path, tmp_path: Path) -> Builder:
    """A run over those records, which lie in it."""
    shutil.copytree(ingested, tmp_path / "out")
    stages = [stage for stage in STAGES if stage != "records"]
    builder = Builder(
        tmp_path / "out", Plan([], {"en": ["cat", "dog", "mat"]}, p=0.5, stages=stages)
    )
    builder.run()
    return builder


def _apart(builder: Builder) -> Path:
    """Moves the records out of a run, with their dead letters."""
    root = Path(builder.root.url)
    place = root.parent / "elsewhere"
    place.mkdir()
    for name in ("records", "records.dead_letters"):
        (root / name).rename(place / f"my-{name}")
    return place / "my-records"


CASES = (
    (URL.format(1), "bad_utf8", "rows.jsonl, record 1", "invalid start byte"),
    (URL.format(50), "bad_record", "rows.jsonl, record 5", "not valid JSON"),
    (hashlib.sha256(NO_PICTURE).hexdigest(), "not_an_image", "pictures, record 1, b.png", "bytes begin"),
    (image_id(sha256=hashlib.sha256(NO_PICTURE).digest()).hex(), "not_an_image", "b.png", "begin"),
    (pair_id(image_id(sha256=hashlib.sha256(NO_PICTURE).digest()), "a bad cat").hex(),
     "not_an_image", "b.png", "begin"),
)  # fmt: skip


@pytest.mark.parametrize(("word", "reason", "place", "error"), CASES)
def test_why_tells_of_records_that_ingest_rejected(
    built: Builder, ingested: Path, capsys: Capture, word: str, reason: str, place: str, error: str
) -> None:
    def check(*words: str) -> None:
        capsys.readouterr()
        assert main(["why", *words]) == 0
        said = capsys.readouterr().out
        for wanted in (f"=> not kept: {reason} (records)", place, error, "rejected by ingest"):
            assert wanted in said
        assert said.count("=> ") == 1

    check(str(ingested), word)
    check(built.root.url, word)
    records = _apart(built)
    assert main(["why", built.root.url, word]) == 3
    check(built.root.url, word, "--with", f"records={records}")


def test_what_left_no_row_is_counted_where_an_id_is_nowhere(
    built: Builder, ingested: Path, capsys: Capture
) -> None:
    def error(*words: str) -> str:
        capsys.readouterr()
        assert main(["why", *words]) == 3
        return capsys.readouterr().err

    # The beginning of a longer URL is another one: image 5 is not image 50.
    for word in (URL.format(3), "0" * 32, URL.format(5), URL.format(50).removesuffix(".jpg")):
        for place in (str(ingested), built.root.url):
            said = error(place, word)
            assert f"ingest (records) {EMPTY} and keeps no row" in said
            assert "only the input files can tell" in said
            assert "bad_record" not in said
    records = _apart(built)
    said = error(built.root.url, URL.format(3))
    assert "--with records=LOCATION" in said and "empty_text" not in said
    assert EMPTY in error(built.root.url, URL.format(3), "--with", f"records={records}")


def test_why_of_an_ingest_tells_what_came_in(ingested: Path, capsys: Capture) -> None:
    for word in (URL.format(2), pair_id(image_id(url=URL.format(2)), "a dog in the garden").hex()):
        assert main(["why", str(ingested), word]) == 0
        said = capsys.readouterr().out
        assert "rows.jsonl, record 2)" in said and "=> in the records" in said


def _falls(page: str) -> tuple[Element | None, Element, str]:
    section = parse(page).one("section", id="funnel")
    before = list(section.all("table", cls="of-record"))
    assert "✗" not in section.text
    return (before[0] if before else None), section.one("table", cls="of-text"), section.text


def _counts(table: Element) -> list[tuple[str, str, int]]:
    """(first word of the label, sign, count); checks what every line leaves."""
    found, left = [], 0
    for line in table.one("tbody").all("tr"):
        label, _, change, _, after = (
            cell.text for cell in line.children if isinstance(cell, Element)
        )
        count = numbers(change)[0]
        sign = change[0] if change[0] in "+−=" else ""
        left = {"": count, "+": left + count, "−": left - count, "=": count}[sign]
        assert numbers(after) == [left]
        found.append((label, sign, count))
    return found


def test_the_funnel_begins_with_what_came_into_ingest(built: Builder) -> None:
    table, texts, _ = _falls(report(built.root.url))
    assert table is not None
    (first, *changes, last) = _counts(table)
    assert first[0].startswith("records that came in records ") and first[1:] == ("", READ["in"])
    assert last[0].startswith("records that pool took ") and last[1:] == ("=", READ["out"])
    lost = {label.split(" records ")[0].replace(" ", "_"): count for label, sign, count in changes}
    assert lost == {reason: n for reason, n in READ.items() if reason not in ("in", "out")}
    assert READ["in"] - sum(lost.values()) == READ["out"]
    assert [n for label, _, n in _counts(texts) if label.startswith("exploded pool ")] == [4]


def test_records_from_elsewhere_are_asked_for_and_shown_when_given(
    built: Builder, tmp_path: Path, capsys: Capture
) -> None:
    whole = _counts(_falls(report(built.root.url))[0] or pytest.fail("no table"))
    records = _apart(built)
    table, _, said = _falls(report(built.root.url))
    assert table is None
    assert "records lies outside of this output. Add --with records=LOCATION" in said
    page = tmp_path / "page.html"
    words = [built.root.url, "--with", f"records={records}", "--out", str(page)]
    assert main(["report", *words]) == 0
    table, _, said = _falls(page.read_text(encoding="utf-8"))
    assert table is not None and _counts(table) == whole
    assert "LOCATION" not in said
    capsys.readouterr()
    assert main(["report", built.root.url, "--with", "records"]) == 2
    assert "NAME=LOCATION" in capsys.readouterr().err


def test_a_limit_and_the_user_s_scores_are_steps_of_the_fall(built: Builder) -> None:
    pool = built.open("pool")
    ledger = pool.manifest.ledger
    ledger.remove("record", "in")
    ledger.remove("record", "out")
    ledger.add("record", "in", "", 3)
    ledger.add("record", "rejected", "below_score", 1)
    ledger.add("record", "out", "", 2)
    tables = list(pool.tables())
    for name in STAGES[2:]:
        shutil.rmtree(built.root.at(name).url)
    built.commit("pool", tables, ledger, ["records"], config={"limit": 3})
    table, _, _ = _falls(report(built.root.url))
    assert table is not None
    steps = [(label.split(" pool ")[0], sign, n) for label, sign, n in _counts(table)][-3:]
    assert steps[:2] == [("not read", "−", 1), ("below score", "−", 1)]
    assert steps[2][1:] == ("=", 2)


def test_a_pool_that_no_ingest_came_before_begins_as_ever(built: Builder) -> None:
    pool = built.open("pool")
    ledger = pool.manifest.ledger
    count, ids = ledger.remove("text", "out")
    made = Ledger()
    made.add("text", "created", "generated", count, ids)
    made.add("text", "out", "", count, ids)
    tables = list(pool.tables())
    for name in ("records", "records.dead_letters", *STAGES[2:]):
        shutil.rmtree(built.root.at(name).url, ignore_errors=True)
    built.commit("pool", tables, made)
    table, texts, said = _falls(report(built.root.url))
    assert table is None and "ingest" not in said
    assert _counts(texts)[0][0].startswith("generated pool ")
