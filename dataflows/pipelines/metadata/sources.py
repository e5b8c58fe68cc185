"""The input files of a metadata build: found, named by what they hold, and pinned. No Beam here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.ingest.files import File, is_directory, open_raw, unchanged, walk
from curation.ingest.sources import Source, find, pin_sources
from curation.metadata.wikipedia import open_dump
from curation.metadata.wikis import wiki_of_database
from curation.metadata.wordnets import wiki_of_file
from schemas.errors import InputError, UsageError

_DUMP = re.compile(r"([a-z_]+wiki)-[^/]*pages-articles[^/]*\.xml[^/]*$")
_SUFFIXES = {
    "wikipedia": re.compile(r"\.xml(-p\d+p\d+)?(\.bz2|\.gz)?$"),
    "pageviews": re.compile(r"(^|/)pageviews-[^/]*$|\.gz$"),
    "wordnets": re.compile(r"\.(parquet|tab)$"),
}


@dataclass(frozen=True)
class Input:
    """One pinned file: where it lies, what pins it, and the Wikipedia that it belongs to."""

    path: str
    bytes: int
    stamp: str
    checksum: str
    wiki: str = ""

    def to_json(self) -> dict[str, Any]:
        """Arguments of a unit of work."""
        return dict(vars(self))

    @property
    def pin(self) -> Mapping[str, Any]:
        """The manifest's record."""
        return {"path": self.path, "bytes": self.bytes, "checksum": self.checksum}

    def check(self) -> Input:
        """Raise InputError if the file is no longer what was pinned."""
        unchanged(File(self.path, self.bytes, self.stamp), self.checksum)
        return self


def find_inputs(setting: str, given: Sequence[str]) -> list[Input]:
    """Files of `wikipedia=`, `pageviews=` or `wordnets=`: paths, directories, globs or URLs.

    Of a directory only files with the usual names are taken. Raises InputError for what is absent
    or holds nothing to read.
    """
    paths: list[str] = []
    for place in given:
        if not is_directory(place):
            paths.append(place)
            continue
        found = [f.path for f in walk(place) if _SUFFIXES[setting].search(f.path)]
        if not found:
            raise InputError(
                f"{setting}={place}: the directory holds no file to read (names must match "
                f"{_SUFFIXES[setting].pattern}); name the files themselves."
            )
        paths.extend(found)
    sources: list[Source] = find(paths)
    pinned = pin_sources(sources)
    inputs = []
    for source, pin in zip(sources, pinned.pins, strict=True):
        assert source.file is not None
        wiki = _WIKI_OF[setting](source.file.path)
        inputs.append(Input(pin.path, pin.bytes, source.file.stamp, pin.checksum, wiki))
    return inputs


def found_again(setting: str, pinned: Sequence[Mapping[str, Any]]) -> tuple[Input, ...]:
    """The inputs of a stage's pins. InputError if one changed since the command began."""
    inputs = find_inputs(setting, [str(pin["path"]) for pin in pinned])
    for now, then in zip(inputs, pinned, strict=True):
        if dict(now.pin) != dict(then):
            raise InputError(f"{now.path} changed while this command started: run it again")
    return tuple(inputs)


def _wiki_of_dump(path: str) -> str:
    """From the file's name; a file of another name is opened up to its header."""
    if (name := _DUMP.search(path)) is not None:
        return wiki_of_database(name[1], path)
    with open_raw(path) as raw:
        dump = open_dump(path, raw)
        for _ in dump.articles():
            break
    if not dump.wiki:
        raise InputError(f"{path}: no page and no <dbname>: not a pages-articles dump.")
    return dump.wiki


_WIKI_OF = {
    "wikipedia": _wiki_of_dump,
    "pageviews": lambda path: "",
    "wordnets": wiki_of_file,
}


def only_languages(
    inputs: Sequence[Input], languages: Sequence[str] | None, setting: str
) -> list[Input]:
    """The files of the wanted Wikipedias. UsageError if none is left."""
    if languages is None:
        return list(inputs)
    kept = [one for one in inputs if one.wiki in languages]
    if not kept:
        there = ", ".join(sorted({one.wiki for one in inputs}))
        raise UsageError(
            f"languages={','.join(languages)}: {setting}= holds none of them (it holds {there})."
        )
    return kept
