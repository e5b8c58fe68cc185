"""The dataset card, README.md: front matter for `datasets`, licences and notes for people."""

from __future__ import annotations

import json
from collections.abc import Sequence

from schemas.manifest import Manifest


def render(
    manifest: Manifest,
    *,
    name: str = "",
    title: str = "",
    description: str = "",
    safety: str = "",
    sections: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the card's text.

    The front matter lets ``datasets.load_dataset(<directory>)`` find the shards. Text from
    outside is escaped: it can break neither the YAML nor the Markdown.
    """
    spec = manifest.spec
    front = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        '    path: "data/*.parquet"',
        "license: other",
        f"license_name: {_quoted('; '.join(manifest.licence) or 'see the card')}",
        f"pretty_name: {_quoted(title or name or spec.name)}",
        "---",
    ]
    lines = [*front, "", f"# {escape(title or name or spec.name)}", ""]
    if description:
        lines += [escape(description), ""]
    lines += [
        escape(spec.doc),
        "",
        f"Schema `{spec.name}` version {spec.version}: {manifest.rows} rows in "
        f"{manifest.totals.get('shards', 0)} shards. Digest `{manifest.digest}`.",
        "",
        "| column | type |",
        "|---|---|",
        *(f"| {escape(f.name)} | {escape(str(f.type))} |" for f in spec.arrow),
        "",
    ]
    lines += ["## Licences", ""]
    lines += [f"* {escape(item)}" for item in manifest.licence] or ["None stated by the inputs."]
    lines.append("")
    if safety:
        lines += ["## Safety", "", escape(safety), ""]
    if manifest.warnings:
        lines += ["## Warnings", "", *(f"* {escape(item)}" for item in manifest.warnings), ""]
    lines += _counts(manifest)
    for heading, body in sections:
        lines += [f"## {escape(heading)}", "", escape(body), ""]
    return "\n".join(lines)


def _counts(manifest: Manifest) -> list[str]:
    if not manifest.counts:
        return []
    rows = [
        f"| {escape(row['unit'])} | {escape(row['kind'])} | {escape(row['reason'])} "
        f"| {int(row['count'])} |"
        for row in manifest.counts
    ]
    return ["## Where the rows went", "", "| unit | kind | reason | count |", "|---|---|---|---|",
            *rows, ""]  # fmt: skip


def escape(text: str) -> str:
    """Escape text for Markdown: one line, no markup, no HTML, no table or list syntax."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join("\\" + c if c in "\\`*_{}[]()#+!|~$" else c for c in line).replace(
        "---", "\\-\\-\\-"
    )


def _quoted(text: str) -> str:
    """Return a YAML double-quoted scalar; JSON's ASCII strings are a subset of it."""
    return json.dumps(" ".join(text.split()), ensure_ascii=True)
