"""Lineage, commands, licences, safety: what manifests say about where a dataset comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from curation.page.names import language_name
from curation.page.numbers import whole
from dataflows.report.model import Alert, PinnedInput, Safety, StageFacts
from dataflows.report.source import Run
from schemas.manifest import Manifest

INPUTS_SHOWN = 24
_T1 = re.compile(r"[A-Za-z_-]{2,}: t = 1\b")
_RUN_SHOWN = ("runner", "workers", "host", "started", "committed", "seconds")


def stages(run: Run) -> tuple[StageFacts, ...]:
    """Every dataset of the run, parents first."""
    return tuple(_facts(run, name, d.manifest) for name, d in run.datasets.items())


def _facts(run: Run, name: str, manifest: Manifest) -> StageFacts:
    def present(parent: Mapping[str, str]) -> bool:
        dataset = run.get(parent["name"])
        return dataset is not None and dataset.manifest.digest == parent["digest"]

    details = manifest.run
    return StageFacts(
        name=name,
        schema=f"{manifest.schema['name']} v{manifest.schema['version']}",
        digest=manifest.digest,
        rows=manifest.rows,
        bytes=int(manifest.totals.get("bytes", 0)),
        shards=int(manifest.totals.get("shards", 0)),
        parents=tuple((p["name"], p["digest"], present(p)) for p in manifest.parents),
        config=tuple((key, _json(value)) for key, value in sorted(manifest.config.items())),
        seed=manifest.seed,
        code=manifest.code,
        hash_name=manifest.hash,
        libraries=tuple(sorted((n, str(v)) for n, v in manifest.libraries.items())),
        blobs=tuple(
            (n, str(blob["digest"]), int(blob["bytes"]))
            for n, blob in sorted(manifest.blobs.items())
        ),
        run=tuple((key, str(details[key])) for key in _RUN_SHOWN if details.get(key) is not None),
    )


def commands(run: Run) -> tuple[str, ...]:
    """The distinct commands that made the datasets, the first stage's first."""
    found: list[str] = []
    for dataset in run.datasets.values():
        command = dataset.manifest.run.get("command")
        if isinstance(command, list):
            command = " ".join(str(word) for word in command)
        if command and command not in found:
            found.append(str(command))
    return tuple(found)


def inputs(run: Run) -> tuple[tuple[PinnedInput, ...], int]:
    """Pinned files (at most INPUTS_SHOWN of each stage) and how many there are."""
    shown: list[PinnedInput] = []
    total = 0
    for name, dataset in run.datasets.items():
        pins = dataset.manifest.inputs
        total += len(pins)
        shown += [
            PinnedInput(
                name, str(pin.get("path", "")), pin.get("bytes"), str(pin.get("checksum", ""))
            )
            for pin in pins[:INPUTS_SHOWN]
        ]
    return tuple(shown), total


def licences(run: Run) -> tuple[str, ...]:
    """Every licence that a stage states, each once, in order."""
    found: dict[str, None] = {}
    for dataset in run.datasets.values():
        found.update(dict.fromkeys(dataset.manifest.licence))
    return tuple(found)


def missing(run: Run) -> tuple[str, ...]:
    """Parents that are not in this output: external datasets, or stages of a partial copy."""
    found: dict[str, None] = {}
    for dataset in run.datasets.values():
        for parent in dataset.manifest.parents:
            if parent["name"] not in run.datasets:
                found[parent["name"]] = None
    return tuple(found)


def warnings(run: Run) -> list[Alert]:
    """What the stages warn of, each text once, then lineage that does not hold."""
    seen: dict[str, list[str]] = {}
    for name, dataset in run.datasets.items():
        for text in dataset.manifest.warnings:
            seen.setdefault(text, []).append(name)
    lines = _grouped([Alert(", ".join(names), text) for text, names in seen.items()], run)
    for name, dataset in run.datasets.items():
        for parent in dataset.manifest.parents:
            # After a replay a dataset's own earlier head and dead letters are parents of it.
            history = parent["name"] in (name, f"{name}.dead_letters")
            here = None if history else run.get(parent["name"])
            if here is not None and here.manifest.digest != parent["digest"]:
                lines.append(
                    Alert(
                        name,
                        f"made from {parent['name']} {parent['digest'][:12]}, but the "
                        f"{parent['name']} here is {here.manifest.digest[:12]}: the run was redone "
                        "in part. Run it again to the end.",
                        found=True,
                    )
                )
    return lines


def _grouped(lines: list[Alert], run: Run) -> list[Alert]:
    """More than two languages at t = 1 become one line with the reason of each below it."""
    ones = [line for line in lines if _T1.match(line.text)]
    if len(ones) < 3:
        return lines
    names = [language_name(line.text.partition(":")[0]) for line in ones]
    of = len(run.stats.get("balance", {}).get("languages", {})) or len(ones)
    text = (
        f"t = 1, the least possible, in {len(ones)} of {of} languages ({', '.join(names)}): their "
        "tail is empty and each of their entries is thinned to as little as one text."
    )
    where = lines.index(ones[0])
    rest = [line for line in lines if line not in ones]
    grouped = Alert(ones[0].stage, text, details=tuple(line.text for line in ones))
    return [*rest[:where], grouped, *rest[where:]]


def safety(run: Run) -> Safety:
    """What was removed by whose filter, from the pool's settings and every ledger."""
    rejected: dict[str, int] = {}
    generated = 0
    for dataset in run.datasets.values():
        for row in dataset.manifest.counts:
            if row["kind"] == "rejected":
                rejected[row["reason"]] = rejected.get(row["reason"], 0) + row["count"]
            if row["kind"] == "created" and row["reason"] == "generated":
                generated += row["count"]
    config: dict[str, Any] = {}
    for dataset in run.datasets.values():
        for key in ("min_score", "evaluation"):
            if dataset.manifest.config.get(key) is not None:
                config.setdefault(key, dataset.manifest.config[key])
    parents = {p["name"] for d in run.datasets.values() for p in d.manifest.parents}
    valid = "valid" in run.datasets or "valid_images" in parents
    evaluation = "evaluation" in parents or "evaluation" in config
    looked = run.stats.get("pool", {}).get("evaluation_sets", {})
    return Safety(
        own_filter="min_score" in config or valid,
        score=(
            f"applied: records below {config['min_score']} were rejected "
            f"({whole(rejected.get('below_score', 0))})"
            if "min_score" in config
            else "not given"
        ),
        valid=(
            "applied: texts of other images were rejected "
            f"({whole(rejected.get('not_in_valid_list', 0))})"
            if valid
            else "not given"
        ),
        evaluation_url=_by_url(evaluation, rejected),
        evaluation_hash=_by_hash(evaluation, rejected, looked),
        generated=generated,
    )


def _by_url(evaluation: bool, rejected: Mapping[str, int]) -> str:
    if not evaluation:
        return "not applied: no evaluation sets were given (evaluation=)"
    return (
        f"applied before counting: {whole(rejected.get('evaluation_set_url', 0))} records removed"
    )


def _by_hash(evaluation: bool, rejected: Mapping[str, int], looked: Mapping[str, Any]) -> str:
    if not evaluation:
        return "not applied: no evaluation sets were given (evaluation=)"
    removed = rejected.get("evaluation_set_hash", 0)
    hashed = looked.get("records_with_hash")
    if hashed == 0:
        return (
            "not applied yet: no record holds the bytes of its image. Apply it to the fetched "
            "part (valid=)"
        )
    reach = "" if hashed is None else f" among {whole(hashed)} whose bytes were at hand"
    kinds = ""
    if "exact_hash" in looked:
        kinds = (
            f" ({whole(looked['exact_hash'])} exact, {whole(looked['perceptual_hash'])} perceptual)"
        )
    return f"applied before counting: {whole(removed)} records removed{reach}{kinds}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
