"""Pictures of evaluation sets: files of a public layout, and rows of a committed dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from schemas.errors import InputError
from trainer.sources.pictures import BadImage, Pixels, decode


def of_files(files: Sequence[Path]) -> Iterator[Pixels]:
    """Decode files in order. InputError naming the one that cannot be read."""
    for file in files:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error.strerror}") from None
        yield of_bytes(data, str(file))


def of_bytes(data: bytes, name: str) -> Pixels:
    """Decode one picture. InputError that names it if it does not decode."""
    try:
        return decode(data)
    except BadImage as error:
        raise InputError(f"{name}: {error}") from None
