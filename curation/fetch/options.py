"""What may be fetched, how politely, and what becomes of the picture."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from schemas.errors import UsageError
from schemas.redact import without_secrets

RESIZE_MODES = ("border", "keep_ratio", "keep_ratio_largest", "center_crop", "no")
ENCODE_FORMATS = ("jpg", "png", "webp")
DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex")
AGENT = "headrace"
"""The product token: what robots.txt and X-Robots-Tag address us by."""

_EMAIL = re.compile(r"[^\s@()<>]+@[^\s@()<>]+\.[^\s@()<>]+")
_URL = re.compile(r"https?://[^\s()<>@]+")
_PLACE = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+):([0-9]{1,5})")
_ABOVE_ZERO = (
    "timeout",
    "deadline",
    "max_bytes",
    "max_pixels",
    "image_size",
    "requests_per_second",
    "connections",
    "concurrency",
    "decoders",
    "units_at_once",
    "max_retry_after",
)


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "tuple[str, ...]": ((tuple, list), "a list of texts"),
}
"""Annotation of an option -> types of its value, and what they are called."""


@dataclass(frozen=True)
class FetchOptions:
    """Options of :func:`curation.fetch.fetch`. Raises UsageError naming the value and the limit.

    ``contact`` is an e-mail address or URL at which a webmaster reaches whoever runs this; it is
    sent with every request. Sizes are bytes, times seconds. ``deadline`` bounds what one URL may
    take on the network: all tries and redirects, connecting, and a body that drips; waiting for
    the host's turn does not count. ``resize="no"`` keeps the bytes as they came, once they have
    been decoded without fault. ``decoders`` is the number of decoding processes. ``units_at_once``
    is how many calls run side by side anywhere: of a host met through a redirect (other than from
    ``x`` to ``www.x`` and back) each uses that part of the rate, and of the connections, but one at
    least. Calls do not know of each other: one that has the host's URLs counts apart from these.
    ``allow_private`` lists ``host:port`` that may have a private address: for a server of one's own.
    """

    contact: str
    timeout: float = 10.0
    deadline: float = 60.0
    max_bytes: int = 20 * 2**20
    max_pixels: int = 89_478_485
    image_size: int = 256
    resize: str = "keep_ratio"
    only_if_bigger: bool = True
    encode_format: str = "jpg"
    encode_quality: int = 95
    requests_per_second: float = 1.0
    connections: int = 1
    concurrency: int = 64
    retries: int = 2
    max_redirects: int = 5
    max_retry_after: float = 60.0
    decoders: int = 1
    units_at_once: int = 1
    robots: bool = True
    opt_out: tuple[str, ...] = DIRECTIVES
    tdm_reservation: bool = True
    allow_private: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            types, called = _KINDS[str(field.type)]
            fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
            if not fits or (tuple in types and not all(isinstance(v, str) for v in value)):
                raise UsageError(f"{field.name}={without_secrets(str(value))}: must be {called}")
        form = _URL if "://" in self.contact else _EMAIL
        if not form.fullmatch(self.contact):
            raise UsageError(
                f"contact={without_secrets(self.contact)!r}: fetching needs an e-mail address or an "
                "http(s) URL at which webmasters reach you; it is sent with every request"
            )
        if not self.contact.isascii():
            raise UsageError(f"contact={self.contact!r}: a request header carries ASCII only")
        for name in _ABOVE_ZERO:
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}={getattr(self, name)}: must be above 0")
        for name in ("retries", "max_redirects"):
            if not 0 <= getattr(self, name) <= 20:
                raise UsageError(f"{name}={getattr(self, name)}: must be from 0 to 20")
        if self.resize not in RESIZE_MODES:
            raise UsageError(f"resize={self.resize!r}: choose one of {', '.join(RESIZE_MODES)}")
        if self.encode_format not in ENCODE_FORMATS:
            raise UsageError(
                f"encode_format={self.encode_format!r}: choose one of {', '.join(ENCODE_FORMATS)}"
            )
        best = 9 if self.encode_format == "png" else 100
        if not 0 <= self.encode_quality <= best:
            raise UsageError(
                f"encode_quality={self.encode_quality}: must be from 0 to {best} for "
                f"encode_format={self.encode_format}"
            )
        object.__setattr__(self, "opt_out", tuple(d.strip().lower() for d in self.opt_out))
        object.__setattr__(self, "allow_private", tuple(p.lower() for p in self.allow_private))
        for place in self.allow_private:
            if not _PLACE.fullmatch(place):
                raise UsageError(
                    f"allow_private={place!r}: must be host:port, as in localhost:8080"
                )

    def to_json(self) -> str:
        """All options as one JSON object."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> FetchOptions:
        """The options that :meth:`to_json` wrote. Raises UsageError for unknown keys."""
        values: dict[str, Any] = json.loads(text)
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise UsageError(f"fetch options {', '.join(unknown)}: unknown")
        for name in ("opt_out", "allow_private"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        return cls(**values)
