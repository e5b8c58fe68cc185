"""From ``input=`` and ``sources.NAME=`` to files: found, named by source, pinned; not parsed."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence

from curation.ingest import files as fs
from curation.ingest.files import File
from curation.ingest.sources import Pinned, Source, paths_of, pin_sources, with_content
from schemas.dataset import open_dataset
from schemas.errors import InputError
from schemas.storage import storage

_TABLES = (".parquet",)
_STREAMS = (".jsonl", ".ndjson", ".txt", ".text")
_PACKED = ("", ".gz", ".zst", ".bz2", ".xz")
_PLAIN = (".txt", ".text")
SUFFIXES = (*_TABLES, *(stream + packed for packed in _PACKED for stream in _STREAMS))
"""Names that are read from a directory; a file that is named by itself may have any."""


def find_texts(
    inputs: str | Sequence[str], setting: str = "input", empty: bool = False
) -> list[File]:
    """Files of an input, each once, by path: files, directories, globs, URLs, committed datasets.

    ``empty``: plain text files without a byte are taken beside others, as documents without text.
    Raises InputError naming the path and the fix for what is absent, empty, or matches nothing.
    """
    return find_each([(setting, inputs)], empty)


def find_each(inputs: Sequence[tuple[str, str | Sequence[str]]], empty: bool = False) -> list[File]:
    """As :func:`find_texts`, of several (setting, its paths)."""
    found: dict[str, File] = {}
    for setting, given in inputs:
        for path in paths_of(given, setting):
            for file in _files(path, setting):
                found.setdefault(file.path, file)  # named twice is not read twice
    if not found:
        names = " and ".join(f"{setting}=" for setting, _ in inputs)
        raise InputError(f"{names} is empty: name files, directories, globs or URLs")
    nothing = not any(file.bytes for file in found.values())
    for path in sorted(found):
        if nothing or not (empty and path.lower().endswith(_PLAIN)):
            with_content(found[path])
    return [found[path] for path in sorted(found)]


def pin_texts(files: Sequence[File]) -> Pinned:
    """Pin every file; what was hashed before and has not changed since is not hashed again."""
    return pin_sources([Source(file.path, file=file) for file in files])


def source_names(files: Sequence[File], named: Mapping[str, str]) -> list[str]:
    """The source of each file: the name in ``named`` (name to path) of the longest path that it
    lies in, else its directory's name."""
    places = sorted(
        (
            (path, name)
            for name, given in named.items()
            for path in paths_of(given, f"sources.{name}")
        ),
        key=lambda place: -len(place[0]),
    )
    roots = [(fs.directory_path(path), name) for path, name in places]

    def name_of(file: File) -> str:
        for root, name in roots:
            if file.path == root or file.path.startswith(root + "/"):
                return name
        return posixpath.basename(posixpath.dirname(file.path)) or "text"

    return [name_of(file) for file in files]


def runs(names: Sequence[str]) -> list[list[str | int]]:
    """Names in order as [name, how many in a row], which a manifest has room for."""
    found: list[list[str | int]] = []
    for name in names:
        if found and found[-1][0] == name:
            found[-1][1] = int(found[-1][1]) + 1
        else:
            found.append([name, 1])
    return found


def unrun(found: Sequence[Sequence[str | int]]) -> list[str]:
    """What :func:`runs` was given."""
    return [str(name) for name, count in found for _ in range(int(count))]


def _files(path: str, setting: str) -> Iterator[File]:
    if not fs.is_directory(path):
        yield fs.look(path, f"{setting}=")
        return
    place = storage(path)
    if place.exists("manifest.json"):
        dataset = open_dataset(place)
        yield from (fs.look(place.path(shard.file)) for shard in dataset.shards())
        return
    files = [f for f in fs.walk(path) if f.path.lower().endswith(SUFFIXES)]
    if not files:
        raise InputError(
            f"{setting}={path} holds no file that is named like one of texts "
            f"({', '.join((*_TABLES, *_STREAMS))}, also with {', '.join(_PACKED[1:])}): name the "
            "files with a glob, or check the path"
        )
    yield from files
