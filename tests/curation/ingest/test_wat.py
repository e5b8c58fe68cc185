"""Common Crawl WAT: the records of section 4.1."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urljoin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.ingest import wat as reader
from schemas.ids import image_id
from tests.bad_input.making import envelope, link, wat
from tests.curation.ingest.reading import whole


def test_links_become_records(tmp_path: Path) -> None:
    links = [
        link("pic/a.jpg", " a\r\ndog\n", title="The Dog", **{"data-image-title": "t", "x": "no"}),
        {"path": "A@/href", "url": "/other.html", "text": "not an image"},
        {"path": "IMG@/data-src", "url": "/lazy.jpg", "alt": "not the source"},
        link("//cdn.example.com/b.jpg?w=1&h=2#top", None, title="only &amp; title"),
        link("http://other.example/c.jpg", "ÉCLAIR  au   chocolat"),
        {"path": "IMG@/srcset", "url": "/d.jpg", "alt": "begins like the source"},
    ]
    path = wat(tmp_path / "a.wat.gz", [envelope(links)])
    read = whole(path)
    assert read.table["url"].to_pylist() == [
        "http://example.org/a/pic/a.jpg",
        "http://cdn.example.com/b.jpg?w=1&h=2#top",
        "http://other.example/c.jpg",
        "http://example.org/d.jpg",
    ]
    assert read.texts() == [
        [("alt", "a  dog"), ("title", "The Dog"), ("data-image-title", "t")],
        [("title", "only &amp; title")],  # no unescaping
        [("alt", "ÉCLAIR  au   chocolat")],  # no case folding, no whitespace collapsing
        [("alt", "begins like the source")],
    ]
    urls = read.table["url"].to_pylist()
    assert read.table["image_id"].to_pylist() == [image_id(url=url) for url in urls]
    assert read.table["position"].to_pylist() == [0, 1, 2, 3]
    assert read.notes[0].startswith("wat (image links with alt, title, data-image-title): ")


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("http://b.example/x/", "http://b.example/x/a.jpg"),
        ("/y/", "http://example.org/y/a.jpg"),
        ("http://[bad", "http://example.org/a/a.jpg"),
        (" ", "http://example.org/a/a.jpg"),
    ],
)
def test_the_base_of_a_page_counts(tmp_path: Path, base: str, expected: str) -> None:
    path = wat(tmp_path / "a.wat.gz", [envelope([link("a.jpg")], base=base)])
    assert whole(path).table["url"].to_pylist() == [expected]


def test_pages_without_links_are_nothing(tmp_path: Path) -> None:
    empty = [b'{"Envelope": {}}', b'{"Envelope": {"Payload-Metadata": {"WARC-Info": {}}}}',
             envelope(None), envelope([])]  # fmt: skip
    read = whole(wat(tmp_path / "a.wat.gz", [*empty, envelope([link("/a.jpg")])]))
    assert read.table.num_rows == 1
    assert read.letters == []


_PARTS = st.sampled_from(
    ["http://", "https://", "HTTP://", "//", "/", "a", "b.c", "..", ".", "?", "#", ";", "&", "=",
     " ", "\t", "%20", "é", "[", "]", "@", ":", "80", "\\", "|", "<", ">", '"', "~", "data:"]
)  # fmt: skip


@given(st.lists(_PARTS, max_size=8).map("".join), st.sampled_from(
    ["http://example.org/a/b.html", "https://example.org", "http://e.org/?q#f", ""]))  # fmt: skip
@settings(max_examples=2000, deadline=None)
def test_the_short_way_equals_urljoin(url: str, page: str) -> None:
    found, wrong = reader._joined(page, url)
    try:
        expected = urljoin(page, url)
    except ValueError:
        assert wrong is not None
        return
    assert found.decode() == expected
    assert (wrong is None) == expected.lower().startswith(("http://", "https://"))


def test_many_pages_in_bounded_tables(tmp_path: Path) -> None:
    pages = [envelope([link(f"/{p}/{n}.jpg", "x" * 2000) for n in range(50)]) for p in range(400)]
    read = whole(wat(tmp_path / "a.wat.gz", pages))
    assert read.table.num_rows == 20_000
    assert len(read.tables) > 1
    assert max(t.nbytes for t in read.tables) < 36 * 2**20
    assert read.table["position"].to_pylist() == list(range(20_000))
