"""Wikitext to plain text, in the manner of WikiExtractor with --no-templates (spec section 3.2).

WikiExtractor itself is a command-line program over files that is no longer maintained; the parser
here is `mwparserfromhell`, and the manifest names it as the substitute. Kept: running text, link
labels, headings (as "Heading."), list items. Dropped: templates, tables, references, galleries,
formulas, comments, links into namespaces (files, categories, other languages), magic words.
"""

from __future__ import annotations

import html
import importlib.metadata
import importlib.util
import re
from typing import Any

from curation.metadata.tokenizers import Tokenizer
from schemas.errors import UsageError

_DROPPED = """
ce chem gallery graph hiero imagemap indicator mapframe maplink math noinclude ref
references score source syntaxhighlight table templatestyles timeline
"""
_DROPPED_TAGS = frozenset(_DROPPED.split())
_LINE_TAGS = frozenset(("br", "hr", "p", "div", "li", "dd", "dt", "blockquote", "center", "h2"))
_NAMESPACES_WITH_TEXT = frozenset(("w", "wikt", "wiktionary"))
_MAGIC_WORD = re.compile(r"__[A-Z]+__")
_BLANK_LINES = re.compile(r"\s*\n\s*")


def extractor() -> Tokenizer:
    """Name and version of the parser, for the manifest. UsageError if it is not installed."""
    if importlib.util.find_spec("mwparserfromhell") is None:
        raise UsageError(
            "reading Wikipedia dumps needs the package mwparserfromhell, which is not installed: "
            "pip install mwparserfromhell, or leave wikipedia= out."
        )
    version = importlib.metadata.version("mwparserfromhell")
    return Tokenizer("mwparserfromhell", version, "WikiExtractor --no-templates")


def plain_text(wikitext: str) -> str:
    """The running text of an article, one line a paragraph. Any string is accepted."""
    import mwparserfromhell

    out: list[str] = []
    _walk(mwparserfromhell.parse(wikitext), out)
    text = _MAGIC_WORD.sub("", "".join(out))
    return _BLANK_LINES.sub("\n", text).strip()


def _walk(code: Any, out: list[str]) -> None:
    """Append the text of every node, in order. Depth is bounded by the parser's own limit."""
    for node in code.nodes:
        handler = _HANDLERS.get(type(node).__name__)
        if handler is not None:
            handler(node, out)


def _text(node: Any, out: list[str]) -> None:
    out.append(node.value)


def _entity(node: Any, out: list[str]) -> None:
    out.append(html.unescape(str(node)))


def _heading(node: Any, out: list[str]) -> None:
    inner: list[str] = []
    _walk(node.title, inner)
    title = "".join(inner).strip()
    if title:
        out.append(f"\n{title}\n" if title[-1] in "!?" else f"\n{title}.\n")


def _link(node: Any, out: list[str]) -> None:
    target = str(node.title).strip()
    # WikiExtractor's rule: what stands before a colon is a namespace or another wiki.
    namespace, colon, _ = target.removeprefix(":").partition(":")
    if colon and namespace not in _NAMESPACES_WITH_TEXT:
        return
    if node.text is None:
        out.append(target.removeprefix(":"))
    else:
        _walk(node.text, out)


def _external(node: Any, out: list[str]) -> None:
    if node.title is not None:
        _walk(node.title, out)
    elif not node.brackets:
        out.append(str(node.url))


def _tag(node: Any, out: list[str]) -> None:
    name = str(node.tag).strip().lower()
    if name in _DROPPED_TAGS:
        return
    if name in _LINE_TAGS:
        out.append("\n")
    if node.contents is not None and not node.self_closing:
        _walk(node.contents, out)


_HANDLERS = {
    "Text": _text,
    "HTMLEntity": _entity,
    "Heading": _heading,
    "Wikilink": _link,
    "ExternalLink": _external,
    "Tag": _tag,
}
