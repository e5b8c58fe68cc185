"""A streaming reader of MediaWiki `pages-articles` XML dumps: plain, gzip, bz2 and multistream bz2.

Dumps are untrusted: a document type declaration (without which XML has no entities to expand) ends
the reading, nothing outside the file is ever fetched, and one page is held in memory at a time.
"""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast
from xml.parsers import expat

from curation.metadata.wikis import wiki_of_database
from schemas.errors import InputError

READ_BYTES = 1 << 20
MAX_PAGE_CHARACTERS = 8 << 20
"""A page's wikitext may be this long; MediaWiki itself allows 2 MiB."""


@dataclass(frozen=True)
class Article:
    """An article of namespace 0 that is no redirect; `page` is its number in the file."""

    page: int
    title: str
    wikitext: str


@dataclass
class Dump:
    """One opened dump. `skipped` counts pages left out, by reason, while `articles` is consumed.

    Reasons: "redirect", "namespace", "model" (not wikitext), "empty", "too_long".
    """

    name: str
    stream: BinaryIO
    wiki: str = ""
    pages: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def articles(self) -> Iterator[Article]:
        """Yield articles in file order.

        Raises InputError for a truncated or corrupt file, one that is not a MediaWiki export, and
        one that declares a document type.
        """
        parser = _Parser(self)
        while block := self._read():
            yield from parser.feed(block)
        yield from parser.close()

    def _read(self) -> bytes:
        try:
            return self.stream.read(READ_BYTES)
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise InputError(
                f"{self.name}: the dump cannot be read to its end ({error}) after page "
                f"{self.pages}; it is truncated or corrupt: fetch it again."
            ) from error


def open_dump(name: str, raw: BinaryIO) -> Dump:
    """A dump over an open binary file; the compression is told by the first bytes."""
    head = raw.read(6)
    raw.seek(0)
    if head.startswith(b"BZh"):
        return Dump(name, cast(BinaryIO, bz2.BZ2File(raw)))
    if head.startswith(b"\x1f\x8b"):
        return Dump(name, cast(BinaryIO, gzip.GzipFile(fileobj=raw)))
    if head.startswith((b"7z\xbc\xaf", b"\xfd7zXZ")):
        raise InputError(
            f"{name}: 7z and xz dumps are not read; take the bz2 or the plain XML file."
        )
    return Dump(name, raw)


class _Parser:
    """Expat callbacks that gather one page after another."""

    _LEAVES = frozenset(("title", "ns", "text", "model", "dbname"))

    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self.ready: list[Article] = []
        self.path: list[str] = []
        self.page: dict[str, str] = {}
        self.buffer: list[str] = []
        self.length = 0
        self.expat = expat.ParserCreate()
        self.expat.buffer_text = True
        self.expat.StartElementHandler = self._start
        self.expat.EndElementHandler = self._end
        self.expat.CharacterDataHandler = self._data
        self.expat.StartDoctypeDeclHandler = self._doctype
        self.expat.EntityDeclHandler = self._doctype

    def feed(self, block: bytes) -> Iterator[Article]:
        self._parse(block, final=False)
        yield from self._take()

    def close(self) -> Iterator[Article]:
        self._parse(b"", final=True)
        yield from self._take()

    def _parse(self, block: bytes, *, final: bool) -> None:
        try:
            self.expat.Parse(block, final)
        except expat.ExpatError as error:
            raise InputError(
                f"{self.dump.name}: not well-formed XML ({error}) after page {self.dump.pages}; "
                "the dump is truncated or corrupt: fetch it again."
            ) from error

    def _take(self) -> list[Article]:
        ready, self.ready = self.ready, []
        return ready

    def _doctype(self, *declaration: Any) -> None:
        raise InputError(
            f"{self.dump.name}: the file declares a document type or an entity "
            f"({declaration[0]!r}), which no MediaWiki dump does; refused."
        )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self.path and tag != "mediawiki":
            raise InputError(
                f"{self.dump.name}: the root element is <{tag}>, expected <mediawiki>: this is not "
                "a pages-articles dump."
            )
        self.path.append(tag)
        if tag == "page":
            self.page = {}
        elif tag == "redirect":
            self.page["redirect"] = attributes.get("title", "")
        elif tag == "revision":
            self.page.pop("text", None)
        if tag in self._LEAVES:
            self.buffer, self.length = [], 0

    def _data(self, data: str) -> None:
        if self.path and self.path[-1] in self._LEAVES:
            self.length += len(data)
            if self.length <= MAX_PAGE_CHARACTERS:
                self.buffer.append(data)

    def _end(self, tag: str) -> None:
        self.path.pop()
        if tag == "dbname":
            self.dump.wiki = wiki_of_database("".join(self.buffer).strip(), self.dump.name)
        elif tag in self._LEAVES:
            self.page[tag] = "".join(self.buffer)
            if self.length > MAX_PAGE_CHARACTERS:
                self.page["too_long"] = tag
        elif tag == "page":
            self._finish()

    def _finish(self) -> None:
        dump, page = self.dump, self.page
        if not dump.wiki:
            raise InputError(
                f"{dump.name}: no <siteinfo><dbname> before the first page, so the language is "
                "unknown; take the dump with its header."
            )
        dump.pages += 1
        if "too_long" in page:
            reason = "too_long"
        elif page.get("ns", "0").strip() != "0":
            reason = "namespace"
        elif "redirect" in page:
            reason = "redirect"
        elif page.get("model", "wikitext").strip() != "wikitext":
            reason = "model"
        elif not page.get("text", "").strip():
            reason = "empty"
        else:
            self.ready.append(Article(dump.pages - 1, page.get("title", ""), page["text"]))
            return
        dump.skipped[reason] += 1


def article_text(article: Article) -> str:
    """Title and plain text of an article, as WikiExtractor writes them one below the other."""
    from curation.metadata.wikitext import plain_text

    return f"{article.title}\n{plain_text(article.wikitext)}"
