"""Which format a file has: by what its content shows, its name only where content cannot tell."""

from __future__ import annotations

import tarfile
from pathlib import PurePosixPath

from curation.ingest.files import Damaged, File, beginning, open_decoded, open_raw
from schemas.errors import InputError

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif",
)  # fmt: skip
CAPTION_FILES = ("captions.jsonl", "metadata.jsonl", "metadata.csv")
DATA_SUFFIXES = (
    ".parquet", ".jsonl", ".ndjson", ".tar", ".warc", ".wat", ".tgz",
    ".jsonl.gz", ".jsonl.zst", ".jsonl.bz2", ".jsonl.xz", ".ndjson.gz", ".ndjson.zst",
    ".tar.gz", ".tar.zst", ".tar.bz2", ".warc.gz", ".wat.gz", ".warc.zst",
)  # fmt: skip
_HEAD = 64 * 1024
_SUPPORTED = (
    "Common Crawl WAT, Parquet, JSON lines, webdataset tar (each also compressed with gzip, zstd, "
    "bzip2 or xz, Parquet excepted), or a folder of images"
)


def suffix_of(path: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a path ends in one of the suffixes, whatever the case."""
    return path.lower().endswith(suffixes)


def detect(file: File) -> str:
    """The format of a file. Raises InputError for unknown ones, naming the fix."""
    with open_raw(file.path) as raw:
        head = raw.read(_HEAD)
        if head.startswith(b"PAR1"):
            return "parquet"
        if head.startswith(b"PARE"):
            raise InputError(f"{file.path} is encrypted Parquet: decrypt it first")
    if file.path.lower().endswith(".parquet"):
        raise InputError(
            f"{file.path} is named .parquet but does not begin with PAR1 (it begins with "
            f"{head[:8]!r}): it is cut, overwritten or of another format"
        )
    try:
        with open_decoded(file.path) as stream:
            content = beginning(stream, _HEAD)
    except Damaged as error:
        raise InputError(f"{file.path}: {error}; nothing in it can be read") from None
    return _of_content(file.path, content)


def _of_content(path: str, content: bytes) -> str:
    text = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text:
        raise InputError(f"{path} holds nothing but white space: remove it from the input")
    if text.startswith(b"WARC/"):
        return "wat"
    if text.startswith(b"{"):
        return "jsonl"
    if len(content) >= tarfile.BLOCKSIZE:
        try:
            tarfile.TarInfo.frombuf(content[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
            return "webdataset"
        except tarfile.TarError:
            pass
    name = PurePosixPath(path).name.lower()
    if ".tar" in name or name.endswith(".tgz"):
        return "webdataset"  # a hostile or damaged first header: the reader goes on after it
    if ".jsonl" in name or ".ndjson" in name:
        return "jsonl"
    if text.startswith(b"["):
        raise InputError(
            f"{path} is one JSON array, not a record a line: convert it with jq -c '.[]'"
        )
    if suffix_of(path, IMAGE_SUFFIXES):
        raise InputError(
            f"{path} is a single image: give its directory, with captions beside the images"
        )
    raise InputError(
        f"{path} is of no known format (it begins with {content[:16]!r}). Known: {_SUPPORTED}. "
        "If it is one of these, say which with format=wat|parquet|jsonl|webdataset|folder"
    )
