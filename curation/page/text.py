"""Web text made safe to show: on the page, in an attribute, on a terminal.

Captions, URLs and file names of a pool are written by strangers. Three things are done to every one
of them before it is shown: it is cut, characters that would act unseen (controls, bidirectional
overrides, invisible tags) are replaced by their visible code point, and it is escaped for where it
goes.
"""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup, escape

# Controls; bidi marks, embeddings, overrides and isolates; line and paragraph separators; soft
# hyphen and other invisible formatters; private use; tags; non-characters. Joiners (U+200B-200D)
# stay: Persian, Khmer, Indic scripts and emoji need them.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U0010ffff]"
)
# A letter may carry a few marks (Vietnamese two, Tibetan or Hebrew with cantillation up to six);
# towers of them would paint over the lines above.
_MARK_TOWER = re.compile(
    "([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{4})"
    "([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+)"
)
_LANGUAGE_TAG = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_STRONG_RTL = ("R", "AL")


def cut(text: str, limit: int) -> tuple[str, int]:
    """The first `limit` characters, never cut before a combining mark, and how many went."""
    if len(text) <= limit:
        return text, 0
    end = limit
    while (
        end > limit - 16
        and end > 1
        and (text[end] == "\u200d" or unicodedata.category(text[end]) in ("Mn", "Me"))
    ):
        end -= 1
    return text[:end], len(text) - end


def page(text: str, limit: int = 280) -> Markup:
    """HTML of an element: escaped, cut at `limit`, unseen characters as `U+202E` labels."""
    shown, gone = cut(text, limit)
    shown = _MARK_TOWER.sub(lambda found: found[1], shown)
    parts: list[Markup] = []
    last = 0
    for found in _UNSEEN.finditer(shown):
        parts.append(escape(shown[last : found.start()]))
        parts.append(Markup('<span class="unseen" dir="ltr">{}</span>').format(_label(found[0])))
        last = found.end()
    parts.append(escape(shown[last:]))
    return Markup("").join([*parts, _gone(gone)])


def document(text: str, limit: int = 400) -> Markup:
    """`page` of a text of several lines: each begins a line, empty ones are not shown, tabs are spaces."""
    shown, gone = cut(text, limit)
    lines = [line for line in re.split(r"[\r\n]+", shown.replace("\t", " ")) if line.strip()]
    return Markup("<br>").join(page(line, limit) for line in lines) + _gone(gone)


def attribute(text: str, limit: int = 200) -> str:
    """Plain text for an attribute or SVG title, still to be escaped; nothing unseen in it."""
    shown, gone = cut(text, limit)
    shown = _MARK_TOWER.sub(lambda found: found[1], shown)
    shown = _UNSEEN.sub(lambda found: f"[{_label(found[0])}]", shown)
    return f"{shown}… ({gone:,} more characters)" if gone else shown


def terminal(text: str, limit: int = 200) -> str:
    """One line for a terminal: no escape sequence, no newline, no direction override."""
    shown, gone = cut(text, limit)
    shown = _UNSEEN.sub(_escape_sequence, shown)
    return f"{shown}… (+{gone:,} characters)" if gone else shown


def language_tag(label: str) -> str:
    """A `lang` attribute for a label or metadata key; `und` for "other", "all" and the unknown."""
    return label if label not in ("other", "all") and _LANGUAGE_TAG.fullmatch(label) else "und"


def direction(text: str) -> str:
    """`rtl`, `ltr` or (without a letter) `auto`: the direction of most letters.

    `dir=auto` looks at the first letter alone: an Arabic caption that begins with a brand name
    would turn round.
    """
    right = left = 0
    for char in text[:2000]:
        kind = unicodedata.bidirectional(char)
        if kind in _STRONG_RTL:
            right += 1
        elif kind == "L":
            left += 1
    if right == left == 0:
        return "auto"
    return "rtl" if right >= left else "ltr"


def _gone(characters: int) -> Markup:
    if not characters:
        return Markup("")
    return Markup('<span class="cut" dir="ltr">… {} more characters</span>').format(
        f"{characters:,}"
    )


def _label(char: str) -> str:
    return f"U+{ord(char):04X}"


def _escape_sequence(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
