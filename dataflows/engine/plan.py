"""Which stages are finished and which are due, and why. Reads manifests only; imports no Beam."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataflows.engine.sources import code_digest, library_versions
from dataflows.engine.stage import Graph, Stage, Wanted
from schemas.errors import InputError
from schemas.manifest import Manifest
from schemas.storage import Storage, storage

FINISHED = "finished"
DUE = "due"
WAITS = "waits"


@dataclass(frozen=True)
class PlanLine:
    """State of one stage: ``finished``, ``due``, or ``waits`` (its key needs an input that is due)."""

    stage: Stage
    state: str
    why: str
    key: str | None
    head: Manifest | None


def stage_key(stage: Stage, input_digests: Mapping[str, str]) -> str:
    """Digest of everything that decides the stage's output."""
    basis = key_basis(stage, input_digests)
    text = json.dumps(basis, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def key_basis(stage: Stage, input_digests: Mapping[str, str]) -> dict[str, Any]:
    """The named parts of a stage's key, so that a plan can say which one changed."""
    return {
        "schema": stage.schema,
        "config": dict(stage.config),
        "seed": stage.seed,
        "job": stage.job,
        "code": code_digest(stage.module),
        "libraries": library_versions(stage.libraries),
        "inputs": dict(input_digests),
        "pinned": [[p["bytes"], p["checksum"]] for p in stage.pinned],
    }


def head_of(store: Storage) -> Manifest | None:
    """The committed head, or None where nothing is committed."""
    if not store.exists("manifest.json"):
        return None
    return Manifest.load(store)


def external_digests(graph: Graph) -> dict[str, str]:
    """Digests of the datasets that the graph starts from.

    Raises InputError for a place without a dataset, and for a dataset of another kind.
    """
    digests = {}
    for name, url in graph.externals.items():
        wanted = graph.wanted.get(name, Wanted(name))
        place = storage(url)
        is_file = place.is_local and os.path.isfile(place.url)
        head = None if is_file else head_of(place)
        if is_file:
            raise InputError(
                f"{wanted.setting}={url} is a file, and a committed dataset is needed; make one of it with "
                f"`dataflows run ingest input={url} output=...` and give its records"
            )
        if head is None:
            raise InputError(
                f"{wanted.setting}={url} is not a committed dataset (no manifest.json)"
                f"{_below(place, wanted)}"
            )
        _check_kind(url, head, wanted)
        digests[name] = head.digest
    return digests


def _below(place: Storage, wanted: Wanted) -> str:
    """What to do where there is no dataset: often the run's directory was given, not the stage's."""
    if wanted.schema is not None and place.at(wanted.schema).exists("manifest.json"):
        return f"; it is the output of a run: give {place.url}/{wanted.schema}"
    return "; give the directory that holds one, or ingest the files first"


def _check_kind(url: str, head: Manifest, wanted: Wanted) -> None:
    found = head.schema["name"]
    if wanted.schema is not None and found != wanted.schema:
        raise InputError(
            f"{wanted.setting}={url} holds a dataset of kind {found}, but one of kind {wanted.schema} "
            "is needed"
        )
    missing = [name for name in wanted.columns if name not in head.spec.arrow.names]
    if missing:
        raise InputError(
            f"{wanted.setting}={url} ({found}) has no column {missing[0]} (its columns: "
            f"{', '.join(head.spec.arrow.names)})"
        )


def superseded(lines: Sequence[PlanLine]) -> PlanLine | None:
    """The first line whose head this run would supersede, as far as manifests tell before it starts.

    Of a stage that waits, its own settings can be compared, and its inputs only by their place: a head
    made from datasets that are not in this output (deleted, or of a run that began elsewhere) counts as
    superseded, although the input may come out equal.
    """
    without = {line.stage.name for line in lines if line.head is None}
    for line in lines:
        if line.head is None or line.state == FINISHED:
            continue
        if line.state == DUE:
            return line
        if changes := _own_changes(line.stage, line.head):
            return replace(line, why="; ".join(changes))
        if absent := [name for name in line.stage.inputs if name in without]:
            parents = ", ".join(f"{p['name']} {p['digest'][:12]}" for p in line.head.parents)
            return replace(line, why=f"made from {parents}, and {absent[0]} is not in this output")
    return None


def _changes(stage: Stage, head: Manifest, digests: Mapping[str, str]) -> str:
    """What differs between the head's making and what is asked now."""
    reasons = _own_changes(stage, head)
    parents = {p["name"]: p["digest"] for p in head.parents}
    reasons += [f"input {name} changed" for name in digests if parents.get(name) != digests[name]]
    return "; ".join(reasons or ["its input files changed"])


def _own_changes(stage: Stage, head: Manifest) -> list[str]:
    """What differs in all but the inputs."""
    reasons = []
    was, now = _flat(head.config), _flat(stage.config)
    for name in sorted(set(was) | set(now)):
        old, new = was.get(name), now.get(name)
        # What a replay was given is history of the dataset, and nobody's setting.
        if old != new and not name.startswith("replay."):
            reasons.append(f"{name} was {_short(old)}, is {_short(new)}")
    if head.seed != stage.seed:
        reasons.append(f"seed was {head.seed}, is {stage.seed}")
    for name, version in library_versions(stage.libraries).items():
        if head.libraries.get(name) != version:
            reasons.append(f"{name} was {head.libraries.get(name)}, is {version}")
    if head.code != code_digest(stage.module):
        reasons.append("its code changed")
    return reasons


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted names, as a user gives them."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def plan_stage(stage: Stage, output: Storage, digests: Mapping[str, str | None]) -> PlanLine:
    """State of one stage, given the digests of its inputs (None: not yet made)."""
    head = head_of(output.at(stage.name))
    unknown = [name for name in stage.inputs if digests.get(name) is None]
    if unknown:
        why = f"after {', '.join(unknown)}"
        return PlanLine(stage, WAITS, why, None, head)
    known = {name: str(digests[name]) for name in stage.inputs}
    key = stage_key(stage, known)
    if head is None:
        return PlanLine(stage, DUE, "not committed yet", key, None)
    if head.stage_key == key:
        return PlanLine(stage, FINISHED, f"committed, {head.totals['rows']:,} rows", key, head)
    return PlanLine(stage, DUE, _changes(stage, head, known), key, head)


def plan(graph: Graph, output: Storage) -> list[PlanLine]:
    """State of every stage in order.

    A stage whose input is due waits: it is kept if that input comes out equal.
    """
    digests: dict[str, str | None] = dict(external_digests(graph))
    lines = []
    for stage in graph.stages:
        line = plan_stage(stage, output, digests)
        lines.append(line)
        done = line.state == FINISHED and line.head is not None
        digests[stage.name] = line.head.digest if done and line.head else None
    return lines
