"""Opt-outs in the headers of an answer: X-Robots-Tag, and tdm-reservation of the TDM protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from curation.fetch.options import AGENT
from curation.fetch.third_party import img2dataset

_WITH_VALUE = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")


@cache
def parser() -> Any:
    """img2dataset's ``is_disallowed``. Loading it takes a while: not while requests wait."""
    return img2dataset("downloader").is_disallowed


class _Values:
    """Values in the shape that img2dataset's parser asks of headers."""

    def __init__(self, values: Iterable[str]) -> None:
        self._values = list(values)

    def get_all(self, name: str, default: list[str]) -> list[str]:
        return self._values or default


def single_directives(value: str) -> Iterator[str]:
    """``bot: a, b, c`` as ``bot: a``, ``bot: b``, ``bot: c``.

    img2dataset's parser takes all before the first colon for the bot's name, so it passes over
    ``noai, otherbot: nofollow`` and ``unavailable_after: 1 Jan 2027, noai``. ``none`` stands for
    noindex and nofollow.
    """
    agent = ""
    for part in value.split(","):
        name, colon, rest = part.partition(":")
        if colon and name.strip().lower() in _WITH_VALUE:
            continue
        if colon:
            agent, part = name.strip(), rest
        word = part.strip().lower()
        word = "noindex" if word == "none" else word
        yield f"{agent}: {word}" if agent else word


def opted_out(
    headers: Iterable[tuple[str, str]], directives: frozenset[str], tdm: bool
) -> str | None:
    """The header by which the host opts out, or None; names and values in any case."""
    tags = []
    for name, value in headers:
        name = name.lower()
        if name == "x-robots-tag":
            tags.append(value)
        elif tdm and name == "tdm-reservation" and value.strip() == "1":
            return "tdm-reservation: 1"
    if tags and directives:
        values = _Values(single for tag in tags for single in single_directives(tag))
        if parser()(values, AGENT, directives):
            return f"X-Robots-Tag: {', '.join(tags)}"
    return None
