"""The dump reader and wikitext: true formats, hostile and damaged files."""

from __future__ import annotations

import bz2
import gzip
import io
import runpy
from pathlib import Path
from typing import Any

import pytest

from curation.metadata import wikipedia
from curation.metadata.wikipedia import article_text, open_dump
from curation.metadata.wikis import wiki_of_database
from curation.metadata.wikitext import extractor, plain_text
from schemas.errors import InputError

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "wikipedia"
ENGLISH = "enwiki-20240501-pages-articles.xml.bz2"


@pytest.fixture(scope="module")
def make() -> dict[str, Any]:
    return runpy.run_path(str(FIXTURES / "make.py"))


def read(data: bytes, name: str = "x.xml") -> list[str]:
    return [a.title for a in open_dump(name, io.BytesIO(data)).articles()]


def test_the_fixtures_are_what_their_script_writes(make: dict[str, Any], tmp_path: Path) -> None:
    make["main"](tmp_path)
    written = sorted(p.name for p in tmp_path.iterdir())
    assert written == sorted(
        p.name for p in FIXTURES.iterdir() if p.suffix in (".bz2", ".gz", ".xml")
    )
    for name in written:
        assert (tmp_path / name).read_bytes() == (FIXTURES / name).read_bytes(), name


def test_articles_redirects_and_namespaces() -> None:
    with (FIXTURES / ENGLISH).open("rb") as file:
        dump = open_dump(ENGLISH, file)
        articles = list(dump.articles())
    assert [(a.page, a.title) for a in articles] == [
        (0, "Dog"),
        (1, "Snow"),
        (6, "Entities & tags"),
    ]
    assert (dump.wiki, dump.pages) == ("en", 7)
    assert dump.skipped == {"redirect": 1, "namespace": 2, "empty": 1}


def test_plain_gzip_bz2_and_multistream_read_alike(make: dict[str, Any]) -> None:
    parts = make["dump"]("frwiki", "fr", make["FRENCH"])
    plain = b"".join(parts)
    forms = [
        plain,
        gzip.compress(plain),
        bz2.compress(plain),
        b"".join(bz2.compress(part) for part in parts),
    ]
    assert [read(form) for form in forms] == [["Chien", "Neige"]] * 4


def test_one_page_in_memory_at_a_time(
    make: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wikipedia, "READ_BYTES", 64)
    pages = [(f"T{i}", 0, None, "word " * 10) for i in range(30)]
    data = b"".join(make["dump"]("enwiki", "en", pages))
    stream = io.BytesIO(data)
    titles = []
    for article in open_dump("x", stream).articles():
        titles.append(article.title)
        assert stream.tell() < len(data) * (len(titles) + 2) / 30 + 2_000
    assert titles == [f"T{i}" for i in range(30)]


def test_running_text_as_wikiextractor_leaves_it(make: dict[str, Any]) -> None:
    text = plain_text(make["ENGLISH"][0][3])
    assert text.splitlines()[0].startswith("The dog (Canis familiaris) is a domesticated")
    assert "Dogs don't fly — AT&T says so." in text
    assert "Kinds.\nborder collies herd sheep\nthe Saint Bernard works" in text
    assert "See a page about dogs or .\nWater is H2O.\nNew line." in text
    for hidden in ("hidden", "Taxobox", "Category", "Chien", "thumb", "NOTOC", "x^2", "[[", "''"):
        assert hidden not in text
    with (FIXTURES / ENGLISH).open("rb") as file:
        last = list(open_dump("x", file).articles())[-1]
    assert article_text(last) == (
        "Entities & tags\n1 < 2 [[not a link]] alert('x') {{unclosed [[link"
    )
    assert extractor().substitute_for == "WikiExtractor --no-templates"


@pytest.mark.parametrize(
    "text", ["{{" * 500, "[[" * 500, "{|" * 200, "<ref>" * 300, "\x00\ufffd", "=" * 100, "'" * 999]
)
def test_broken_wikitext_gives_some_text_and_no_error(text: str) -> None:
    assert isinstance(plain_text(text), str)


def test_entities_and_document_types_are_refused() -> None:
    bomb = b"""<?xml version="1.0"?><!DOCTYPE m [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>
<mediawiki><siteinfo><dbname>enwiki</dbname></siteinfo><page><title>&b;</title></page></mediawiki>"""
    with pytest.raises(InputError, match=r"x\.xml: the file declares a document type"):
        read(bomb)
    outside = b'<!DOCTYPE m SYSTEM "file:///etc/passwd"><mediawiki/>'
    with pytest.raises(InputError, match="refused"):
        read(outside)
    with pytest.raises(InputError, match="undefined entity"):
        read(b"<mediawiki><page><title>&b;</title></page></mediawiki>")


def test_damaged_and_foreign_files_are_named(make: dict[str, Any]) -> None:
    good = (FIXTURES / ENGLISH).read_bytes()
    with pytest.raises(InputError, match="truncated or corrupt: fetch it again"):
        read(good[:-40], "a.bz2")
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    with pytest.raises(InputError, match=r"a\.bz2: the dump cannot be read to its end"):
        read(bytes(flipped), "a.bz2")
    plain = b"".join(make["dump"]("frwiki", "fr", make["FRENCH"]))
    with pytest.raises(InputError, match=r"a\.xml: not well-formed XML .* after page 1"):
        read(plain[: plain.index(b"Neige") + 600], "a.xml")
    with pytest.raises(InputError, match="no element found"):
        read(b"", "empty.xml")
    with pytest.raises(InputError, match="root element is <html>, expected <mediawiki>"):
        read(b"<html></html>")
    with pytest.raises(InputError, match="7z and xz dumps are not read"):
        read(b"7z\xbc\xaf\x27\x1c")
    with pytest.raises(InputError, match="no <siteinfo><dbname>"):
        read(plain.replace(b"<dbname>frwiki</dbname>", b""))
    with pytest.raises(InputError, match="'frwiktionary', not of a Wikipedia"):
        read((FIXTURES / "frwiktionary-20240501-pages-articles.xml").read_bytes())


def test_last_revision_other_models_and_long_pages(
    make: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = b"".join(make["dump"]("frwiki", "fr", [("A", 0, None, "old text")]))
    revision = plain[plain.index(b"    <revision>") : plain.index(b"  </page>")]
    newer = plain.replace(revision, revision + revision.replace(b"old", b"new"))
    assert [a.wikitext for a in open_dump("x", io.BytesIO(newer)).articles()] == ["new text"]
    lua = open_dump("x", io.BytesIO(plain.replace(b"<model>wikitext", b"<model>Scribunto")))
    assert list(lua.articles()) == [] and lua.skipped == {"model": 1}
    monkeypatch.setattr(wikipedia, "MAX_PAGE_CHARACTERS", 7)
    long = open_dump("x", io.BytesIO(plain))
    assert list(long.articles()) == [] and long.skipped == {"too_long": 1}


def test_database_names() -> None:
    names = {
        "enwiki": "en",
        "zh_yuewiki": "zh_yue",
        "be_x_oldwiki": "be_tarask",
        "simplewiki": "simple",
    }
    assert {n: wiki_of_database(n, "f") for n in names} == names
    with pytest.raises(InputError, match="an unnamed database"):
        wiki_of_database("", "f")
