"""What a run's data was made from, dataset by dataset back to the files from outside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.dataset import Dataset, open_dataset
from schemas.errors import HeadraceError


@dataclass(frozen=True)
class Ancestor:
    """A dataset of the lineage; ``dataset`` is None if it is no longer where it was."""

    name: str
    digest: str
    dataset: Dataset | None


def dataset_of(data: Mapping[str, Any]) -> tuple[Dataset | None, str]:
    """Return the dataset that was trained on, or None and why it is not at hand.

    ``data``: the entry of run.json, {location, digest}.
    """
    place = data.get("location")
    if not place:
        return None, "the run does not say where it was."
    try:
        dataset = open_dataset(str(place))
    except HeadraceError as error:
        return None, str(error)
    if dataset.manifest.digest != data.get("digest"):
        return None, f"another dataset is at its place now, digest {dataset.manifest.digest}."
    return dataset, ""


def datasets_of(data: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[list[Dataset], str]:
    """Return the datasets that were trained on: one, or those of a mixture in its order; or none of them
    and why.

    ``data``: the entry of run.json; ``settings``: the run's of its data, whose ``mix`` names the parts. The
    digest of a mixture is that of its parts' digests, so all must be what they were.
    """
    mix = settings.get("mix")
    if data.get("location") or not isinstance(mix, list) or not mix:
        dataset, why = dataset_of(data)
        return ([dataset] if dataset is not None else []), why
    found = []
    for part in mix:
        try:
            found.append(open_dataset(str(part["path"])))
        except HeadraceError as error:
            return [], str(error)
    digests = [one.manifest.digest for one in found]
    if hashlib.sha256(json.dumps(digests).encode()).hexdigest() != data.get("digest"):
        return [], "one of the mixture's datasets is another now than the one at its place then."
    return found, ""


def ancestors(dataset: Dataset) -> list[Ancestor]:
    """Return every dataset that it was made from, each once, nearest first.

    A parent is looked for beside its child, then where the child's own run read it.
    """
    found: dict[tuple[str, str], Ancestor] = {}
    todo = [dataset]
    while todo:
        child = todo.pop(0)
        for parent in child.manifest.parents:
            key = parent["name"], parent["digest"]
            if key in found:
                continue
            opened = _opened(child, *key)
            found[key] = Ancestor(*key, opened)
            if opened is not None:
                todo.append(opened)
    return list(found.values())


def _protocol(place: object) -> str:
    before, mark, _ = str(place).partition("://")
    return before if mark else "file"


def _opened(child: Dataset, name: str, digest: str) -> Dataset | None:
    places: list[Any] = [child.storage.sibling(name)]
    read = child.manifest.run.get("inputs")
    if (
        isinstance(read, Mapping)
        and name in read
        and _protocol(read[name]) == _protocol(child.storage)
    ):
        places.append(str(read[name]))  # a manifest sends nobody to another kind of storage
    for place in places:
        try:
            dataset = open_dataset(place)
        except HeadraceError:
            continue
        if dataset.manifest.digest == digest:
            return dataset
    return None
