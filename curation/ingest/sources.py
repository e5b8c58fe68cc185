"""From ``input=`` to pinned sources: files and folders of images, found and fixed, not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from curation.ingest import files as fs
from curation.ingest.detect import DATA_SUFFIXES, IMAGE_SUFFIXES, suffix_of
from curation.ingest.files import File, Pin
from curation.ingest.folder import Folder, folder_of
from curation.ingest.memory import recall, remember
from schemas.errors import InputError


@dataclass
class Source:
    """One input: a file, or a folder of images."""

    path: str
    file: File | None = None
    folder: Folder | None = None

    def files(self) -> list[File]:
        """The files that it consists of, by path."""
        if self.file is not None:
            return [self.file]
        assert self.folder is not None
        found = [*self.folder.images, *self.folder.captions, *self.folder.texts.values()]
        return sorted(found, key=lambda file: file.path)


@dataclass
class Pinned:
    """Sources in the order of their paths, the pin of each, and the checksum of every file."""

    sources: list[Source]
    pins: list[Pin]
    checksums: Mapping[str, str]


def find(inputs: str | Sequence[str], format: str = "auto") -> list[Source]:  # noqa: A002
    """Sources of an input, each once, by path: paths, globs, directories or URLs, comma-separated.

    Raises InputError naming the path and the fix for what is absent, empty, or matches nothing.
    """
    found: dict[str, Source] = {}
    for path in paths_of(inputs):
        for source in _sources(path, format):
            found.setdefault(source.path, source)  # named twice is not read twice
    if not found:
        raise InputError("input= is empty: name files, directories, globs or URLs")
    return [found[path] for path in sorted(found)]


def pin_sources(sources: Sequence[Source]) -> Pinned:
    """Pin every file; what was hashed before and has not changed since is not hashed again."""
    every = [file for source in sources for file in source.files()]
    known = recall(every)
    checksums = dict(zip(every, (pin.checksum for pin in fs.pin(every, known)), strict=True))
    remember({f: c for f, c in checksums.items() if fs.memory_key(f) not in known})
    pins = []
    for source in sources:
        own = [Pin(file.path, file.bytes, checksums[file]) for file in source.files()]
        pins.append(own[0] if source.file is not None else fs.pin_folder(source.path, own))
    return Pinned(list(sources), pins, {file.path: c for file, c in checksums.items()})


def paths_of(inputs: str | Sequence[str], setting: str = "input") -> Iterator[str]:
    """Paths that a setting names: words with commas between, patterns by what they match.

    Raises InputError for a pattern that matches nothing.
    """
    if isinstance(inputs, str):
        whole = inputs.strip()
        given = [whole] if "," not in whole or fs.exists(whole) else whole.split(",")
    else:
        given = list(inputs)
    for item in (item.strip() for item in given):
        if not item:
            continue
        if any(c in item for c in "*?[") and not fs.exists(item):
            found = fs.matches(item)
            if not found:
                raise InputError(f"{setting}={item} matches no file; check the pattern")
            yield from found
        else:
            yield item


def _sources(path: str, format: str) -> Iterator[Source]:  # noqa: A002
    if not fs.is_directory(path):
        if format == "folder":
            raise InputError(f"format=folder, but {path} is a file: give the directory")
        file = with_content(fs.look(path))
        yield Source(file.path, file=file)
        return
    files = fs.walk(path)
    images = any(suffix_of(file.path, IMAGE_SUFFIXES) for file in files)
    if format == "folder" or (format == "auto" and images):
        root = fs.directory_path(path)
        yield Source(root, folder=folder_of(root, files))
        return
    data = [file for file in files if suffix_of(file.path, DATA_SUFFIXES)]
    if not data:
        raise InputError(
            f"{path} holds no file to read ({len(files)} files, none an image or named like "
            f"{', '.join(DATA_SUFFIXES[:5])}): name the files with a glob, or check the path"
        )
    for file in data:
        yield Source(file.path, file=with_content(file))


def with_content(file: File) -> File:
    """The file itself. Raises InputError if it has no byte."""
    if file.bytes == 0:
        raise InputError(f"{file.path} is empty (0 bytes): remove it from the input or restore it")
    return file
