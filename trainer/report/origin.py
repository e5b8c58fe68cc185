"""How to make the run again, and its data's lineage back to the files from outside."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.manifest import Manifest
from trainer.ancestors import Ancestor, ancestors, datasets_of
from trainer.report.model import Alert, Origin, PinnedInput, Stage
from trainer.report.record import Run

INPUTS_SHOWN = 24


@dataclass(frozen=True)
class Lineage:
    """The trained datasets first, then what they were made from; ``why``: the first is not at hand."""

    found: tuple[Ancestor, ...]
    why: str

    @property
    def datasets(self) -> list[tuple[str, Manifest]]:
        """Names and manifests of those at hand."""
        return [(one.name, one.dataset.manifest) for one in self.found if one.dataset is not None]


def lineage(run: Run) -> Lineage:
    """Walk from the run's dataset, or those of its mixture, as far as datasets are at hand."""
    data = run.part("data")
    trained, why = datasets_of(data, run.config.data)
    if not trained:
        name = str(data.get("location") or "data").rstrip("/").rpartition("/")[2]
        return Lineage((Ancestor(name, str(data.get("digest", "")), None),), why)
    every = [Ancestor(one.storage.name, one.manifest.digest, one) for one in trained]
    every += [one for dataset in trained for one in ancestors(dataset)]
    found = {(one.name, one.digest): one for one in reversed(every)}
    return Lineage(tuple(reversed(found.values())), why)


def origin(run: Run, line: Lineage) -> Origin:
    """The commands, every setting, the versions, and the stages, raw inputs first."""
    machine = run.part("environment")
    versions = machine.get("versions")
    named = {"python": machine.get("python"), **(versions if isinstance(versions, Mapping) else {})}
    command = run.facts.get("command")
    commands: dict[str, None] = {}
    for _, manifest in reversed(line.datasets):
        if said := manifest.run.get("command"):
            commands[_command(said)] = None
    return Origin(
        command=_command(command) if command else "",
        config=tuple(_settings(run.config.model_dump(mode="json"))),
        versions=tuple((str(k), str(v)) for k, v in named.items() if v),
        stages=tuple(_stage(one) for one in parents_first(line.found)),
        lost=line.why,
        data_commands=tuple(commands),
    )


def parents_first(found: tuple[Ancestor, ...]) -> list[Ancestor]:
    """Order the lineage so that every dataset comes after those that it was made from."""
    by_key = {(one.name, one.digest): one for one in found}
    ordered: dict[tuple[str, str], Ancestor] = {}
    todo = [(one, False) for one in reversed(found)]
    while todo:
        one, done = todo.pop()
        key = one.name, one.digest
        if key in ordered:
            continue
        if done or one.dataset is None:
            ordered[key] = one
            continue
        todo.append((one, True))
        parents = [(p["name"], p["digest"]) for p in one.dataset.manifest.parents]
        todo += [(by_key[parent], False) for parent in reversed(parents) if parent in by_key]
    return list(ordered.values())


def _command(value: Any) -> str:
    return shlex.join(map(str, value)) if isinstance(value, list) else str(value)


def _settings(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting as the command line names it."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _settings(value, f"{prefix}{name}.")
        else:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{prefix}{name}", shown


def _stage(one: Ancestor) -> Stage:
    if one.dataset is None:
        return Stage(one.name, one.digest, None, "", None, "", ())
    manifest = one.dataset.manifest
    return Stage(
        name=one.name,
        digest=one.digest,
        rows=manifest.rows,
        schema=f"{manifest.schema['name']} v{manifest.schema['version']}",
        seed=manifest.seed,
        command=_command(manifest.run.get("command") or ""),
        parents=tuple((str(p["name"]), str(p["digest"])) for p in manifest.parents),
    )


def inputs(line: Lineage) -> tuple[tuple[PinnedInput, ...], int]:
    """Pinned files (at most INPUTS_SHOWN of each dataset) and how many there are."""
    shown: list[PinnedInput] = []
    total = 0
    for name, manifest in reversed(line.datasets):
        total += len(manifest.inputs)
        for pin in manifest.inputs[:INPUTS_SHOWN]:
            size = pin.get("bytes")
            shown.append(
                PinnedInput(
                    name,
                    str(pin.get("path", "")),
                    size if isinstance(size, int) else None,
                    str(pin.get("checksum") or ""),
                )
            )
    return tuple(shown), total


def licences(line: Lineage) -> tuple[str, ...]:
    """Every licence that a dataset states, each once."""
    every = (text for _, manifest in line.datasets for text in manifest.licence)
    return tuple(dict.fromkeys(every))


def warnings(run: Run, line: Lineage) -> tuple[Alert, ...]:
    """What this page found, then the warnings of the trained data, then those of what it came from,
    one entry a dataset."""
    found = [Alert(key, f"cannot be read and is left out: {why}", True) for key, why in run.broken]
    if line.why:
        found.append(
            Alert("data", f"Its warnings, licences and lineage are not at hand: {line.why}", True)
        )
    seen: set[str] = set()
    for place, (name, manifest) in enumerate(line.datasets):
        fresh = [text for text in dict.fromkeys(manifest.warnings) if text not in seen]
        seen.update(fresh)
        if place == 0 or len(fresh) < 3:
            found += [Alert(name, text) for text in fresh]
        else:
            text = f"{len(fresh)} warnings when this was made; the first: {fresh[0]}"
            found.append(Alert(name, text, details=tuple(fresh)))
    return tuple(found)
