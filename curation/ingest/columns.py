"""Which column of an input means what: as the user says, else by the names that are common."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from curation.ingest.options import NONE, Columns
from curation.ingest.texts import NotText, as_binary, column_texts
from schemas.errors import InputError, UsageError

COMMON: dict[str, tuple[str, ...]] = {
    "url": ("url", "image_url", "img_url", "image_link"),
    "text": ("text", "caption", "captions", "alt", "alt_text", "alttext", "texts"),
    "image": ("image", "img", "image_bytes", "jpg"),
    "id": ("uid", "id", "key", "__key__", "uuid", "sample_id", "image_id"),
    "sha256": ("sha256", "image_sha256"),
}
"""Names by which columns are chosen, best first, in any case (LAION, DataComp, img2dataset)."""


@dataclass(frozen=True)
class Chosen:
    """The columns of one file: names, or "" for what it does not have. ``texts`` is never empty."""

    url: str
    texts: tuple[str, ...]
    image: str
    id: str
    score: str
    sha256: str
    text_format: str

    @property
    def names(self) -> list[str]:
        """The columns to read, each once."""
        wanted = (self.url, *self.texts, self.image, self.id, self.score, self.sha256)
        return list(dict.fromkeys(name for name in wanted if name))

    def __str__(self) -> str:
        parts = {**asdict(self), "text": ",".join(self.texts)}
        shown = ("url", "text", "image", "id", "score", "sha256")
        said = [f"columns.{name}={parts[name]}" for name in shown if parts[name]]
        return " ".join([*said, f"columns.text_format={self.text_format}"])

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Chosen:
        """Read what ``to_json`` wrote."""
        return cls(**{**raw, "texts": tuple(raw["texts"])})


def choose(names: Sequence[str], options: Columns, path: str, images: bool = True) -> Chosen:
    """Choose among the column names of one file. Raises InputError naming what it found.

    ``images`` says whether the format can hold image bytes.
    """
    if options.image not in ("", NONE) and not images:
        raise UsageError(
            f"columns.image={options.image}: {path} is of a format without image bytes; "
            "leave columns.image out and give columns.url or columns.id"
        )
    url = _one("url", options.url, names, path)
    image = _one("image", options.image, names, path) if images else ""
    texts = tuple(_given("text", name, names, path) for name in options.texts)
    if not texts:
        texts = (_common("text", names),)
    if not texts[0]:
        raise InputError(
            f"{path} has no column that is known to hold texts ({_common_names('text')}). It has: "
            f"{_listed(names)}. Name yours with columns.text=NAME or columns.text=NAME,NAME"
        )
    # A column id stands in only where an image has no better name, so rows keep one kind of id.
    named = url or image
    row_id = "" if not options.id and named else _one("id", options.id, names, path)
    if not (url or image or row_id):
        raise InputError(
            f"{path} has no column that names images ({_common_names('url')}; "
            f"{_common_names('image')}; {_common_names('id')}). It has: {_listed(names)}. Name "
            "yours with columns.url=NAME, columns.image=NAME or columns.id=NAME"
        )
    return Chosen(
        url=url,
        texts=texts,
        image=image,
        id=row_id,
        score=_given("score", options.score, names, path) if options.score else "",
        sha256=_one("sha256", options.sha256, names, path),
        text_format=options.text_format,
    )


def choose_typed(schema: pa.Schema, options: Columns, path: str) -> Chosen:
    """Choose among a schema's columns by name and type. Raises InputError naming both."""
    names = list(dict.fromkeys(schema.names))
    for name in names:
        if schema.names.count(name) > 1:
            raise InputError(f"{path} has the column {name!r} twice: rename or drop one of them")
    typed_out = set()  # chosen by name alone, but of a type that cannot be meant
    for meaning, fits in (("image", is_image), ("url", is_string), ("sha256", is_sha256)):
        candidates = [n for n in names if n.lower() in COMMON[meaning]]
        if not getattr(options, meaning):
            typed_out |= {n for n in candidates if not fits(schema.field(n).type)}
    chosen = choose([n for n in names if n not in typed_out], options, path)
    _check("url", chosen.url, is_string, schema, path, "a string")
    _check("image", chosen.image, is_image, schema, path, "binary or struct<bytes, path>")
    _check("id", chosen.id, is_id, schema, path, "a string, binary or integer")
    _check("score", chosen.score, is_number, schema, path, "a number")
    _check("sha256", chosen.sha256, is_sha256, schema, path, "64 hex digits or 32 bytes")
    for name in chosen.texts:
        try:
            column_texts(pa.array([], schema.field(name).type), name, chosen.text_format)
        except (NotText, pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise InputError(
                f"{path}: column {name!r} is {schema.field(name).type}, which holds no text. "
                "columns.text takes strings, lists of strings, and maps or structs of key to text"
            ) from None
    return chosen


def _check(meaning: str, name: str, fits: Any, schema: pa.Schema, path: str, expected: str) -> None:
    if name and not fits(schema.field(name).type):
        raise InputError(
            f"{path}: columns.{meaning}={name} is {schema.field(name).type}, expected {expected}"
        )


def _one(meaning: str, given: str, names: Sequence[str], path: str) -> str:
    if given == NONE:
        return ""
    return _given(meaning, given, names, path) if given else _common(meaning, names)


def _given(meaning: str, name: str, names: Sequence[str], path: str) -> str:
    if name in names:
        return name
    close = [n for n in names if n.lower() == name.lower()]
    close = close or difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean columns.{meaning}={close[0]}?" if close else ""
    raise InputError(
        f"columns.{meaning}={name}: {path} has no such column. It has: {_listed(names)}.{hint}"
    )


def _common(meaning: str, names: Sequence[str]) -> str:
    for candidate in COMMON[meaning]:
        for name in names:
            if name.lower() == candidate:
                return name
    return ""


def _common_names(meaning: str) -> str:
    return f"{meaning}: {', '.join(COMMON[meaning])}"


def _listed(names: Sequence[str]) -> str:
    shown = [repr(name)[1:-1] for name in names[:40]]
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return (", ".join(shown) or "no column") + more


def is_string(kind: pa.DataType) -> bool:
    """Whether values of the type are strings or bytes in any encoding."""
    try:
        as_binary(pa.array([], kind))
    except NotText:
        return False
    return True


def is_image(kind: pa.DataType) -> bool:
    """Whether the type is bytes, or the struct of bytes and path of the `datasets` library."""
    if pt.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and is_image(kind.field(index).type)
    return pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind)


def is_id(kind: pa.DataType) -> bool:
    """Whether the type can name a row."""
    return is_string(kind) or pt.is_integer(kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether the type is numeric."""
    return pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or pt.is_null(kind)


def is_sha256(kind: pa.DataType) -> bool:
    """Whether the type can hold SHA-256 digests, as hex digits or as 32 bytes."""
    return is_string(kind) and (not pt.is_fixed_size_binary(kind) or kind.byte_width in (32, 64))
