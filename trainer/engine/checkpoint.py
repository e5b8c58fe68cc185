"""Checkpoints of one layout for every ZeRO stage, precision and number of ranks.

All functions but `read_weights` are called by all ranks. A rank reads and writes every R-th shard
(R ranks). A checkpoint is trusted only after its tensors are hashed again where they are used: the
masters and moments in the optimizer, and the weights that the forward takes.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from schemas.errors import HeadraceError, IntegrityError, UsageError
from schemas.storage import Storage
from trainer.engine.checkpoint_files import (
    BUFFERS,
    FORWARD,
    MASTERS,
    Manifest,
    Shard,
    commit,
    committed,
    discard,
    plan_shards,
    pointed,
    read_kind,
    read_shard,
    remove,
    rounds,
    sweep,
    tensor_sha,
    write_shard,
)
from trainer.engine.checkpoint_state import EngineState, everywhere, place

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def save(folder: Storage, name: str, engine: Any, facts: dict[str, Any]) -> None:
    """Commit the engine's state as the checkpoint `name`; ``latest`` names it after.

    ``facts`` are JSON values (step, position, seed, digests, ranks, zero, ...); ``ranks`` and
    ``zero`` are outside the digest. What killed saves left is deleted first. An error leaves the
    earlier checkpoints as they were.

    Errors: StorageError (a full disk, ...), IntegrityError when the forward's weights are not the
    masters rounded or ranks disagree, ConflictError for another state under the name.
    """
    state = EngineState(engine)
    try:
        _together(lambda: sweep(folder, name) if state.rank == 0 else None)
        files, tensors = _write(folder, name, state)
        _check_forward(state, tensors, f"cannot save {folder.path(name)}")
        manifest = Manifest(
            facts=dict(facts),
            precision=_named(state.precision),
            tensors=tensors,
            buffers={key: _described(value) for key, value in state.buffers.items()},
            tied=state.tied,
            files=files,
        ).sealed()
        _together(lambda: commit(folder, name, manifest) if state.rank == 0 else None)
    except HeadraceError:
        if state.rank == 0:
            with contextlib.suppress(HeadraceError):
                discard(folder, name)  # makes room: the disk may be full
        raise


def restore(folder: Storage, name: str, engine: Any) -> dict[str, Any]:
    """Load a checkpoint into an engine of any ZeRO stage, precision and number of ranks.

    Returns its facts. Errors: InputError if there is none, IntegrityError if it is damaged or does
    not arrive bit for bit, UsageError if it is of another model.
    """
    state = EngineState(engine)
    manifest = _together(lambda: Manifest.load(folder, name))
    where = folder.path(name)
    moments = _moments_of(manifest)
    _together(lambda: _check_model(where, manifest, state))
    _together(lambda: state.prepare(moments))
    expected = _load(folder, name, manifest, state)
    buffers = _together(lambda: read_kind(folder, name, manifest, BUFFERS))
    for key, value in buffers.items():
        state.put_buffer(key, value)
    state.refresh()
    _verify(where, manifest, state, moments)
    _check_forward(state, expected, f"{where} was not restored")
    return dict(manifest.facts)


def latest(folder: Storage) -> str | None:
    """Return the checkpoint that a run continues from; None if there is none.

    The one that ``latest`` names; if that is gone, the newest other.
    """
    found = pointed(folder)
    return found or next(reversed(committed(folder)), None)


def prune(folder: Storage, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints and the one that ``latest`` names."""

    def old() -> None:
        current = pointed(folder)
        for name in committed(folder)[:-keep]:
            if name != current:
                remove(folder, name)

    _together(lambda: old() if place()[0] == 0 else None)


def read_weights(folder: Storage, name: str) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint as a state dict: fp32 masters on the CPU, tied names and
    persistent buffers included. Needs no DeepSpeed.

    Errors: InputError if there is no such checkpoint, IntegrityError if it is damaged.
    """
    manifest = Manifest.load(folder, name)
    found = read_kind(folder, name, manifest, MASTERS)
    found.update({other: found[kept] for other, kept in manifest.tied.items()})
    return found | read_kind(folder, name, manifest, BUFFERS)


# -- save -------------------------------------------------------------------------------------


def _write(
    folder: Storage, name: str, state: EngineState
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Write all shards; return the manifest's ``files`` and ``tensors``."""
    moments = state.moments()
    shapes = state.shapes
    sizes = {key: 4 * math.prod(shape) for key, shape in shapes.items()}
    kinds = sorted({kind for found in moments.values() for kind in found} - {"step"})
    every = {MASTERS: sizes}
    for kind in kinds:
        every[kind] = {key: sizes[key] for key in sizes if kind in moments.get(key, {})}
    shards = plan_shards(every)
    tensors: dict[str, dict[str, Any]] = {
        key: {"shape": shape} | {k: v for k, v in moments.get(key, {}).items() if k == "step"}
        for key, shape in shapes.items()
    }
    files: list[dict[str, Any]] = []
    for group in rounds(shards, state.ranks):
        mine: dict[str, torch.Tensor] = {}
        for rank, shard in enumerate(group):
            for key in shard.names:
                whole = state.collect(key, shard.kind, rank)
                if whole is not None:
                    mine[key] = whole
        own = group[state.rank] if state.rank < len(group) else None
        write = functools.partial(_write_own, folder, name, own, mine, state)
        for written in everywhere(_together(write)):
            if written is not None:
                files.append(written[0])
                for key, hashes in written[1].items():
                    tensors[key].update(hashes)
    if state.buffers:
        shard = Shard(BUFFERS, 0, tuple(state.buffers))
        entry = _together(
            lambda: write_shard(folder, name, shard, state.buffers) if state.rank == 0 else None
        )
        files += [found for found in everywhere(entry) if found is not None]
    return files, tensors


def _write_own(
    folder: Storage,
    name: str,
    shard: Shard | None,
    tensors: Mapping[str, torch.Tensor],
    state: EngineState,
) -> tuple[dict[str, Any], dict[str, dict[str, str]]] | None:
    if shard is None:
        return None
    entry = write_shard(folder, name, shard, tensors)
    hashes = {key: {shard.kind: tensor_sha(value)} for key, value in tensors.items()}
    if shard.kind == MASTERS:
        for key, value in tensors.items():
            hashes[key][FORWARD] = tensor_sha(value.to(state.precision))
    return entry, hashes


# -- restore ----------------------------------------------------------------------------------


def _load(
    folder: Storage, name: str, manifest: Manifest, state: EngineState
) -> dict[str, dict[str, Any]]:
    """Set masters and moments; return {parameter: {FORWARD: SHA-256}} in the run's precision."""
    same = manifest.precision == _named(state.precision)
    expected = {key: {FORWARD: found[FORWARD]} for key, found in manifest.tensors.items()}
    entries = [entry for entry in manifest.files if entry["kind"] != BUFFERS]
    for group in rounds(entries, state.ranks):
        own = group[state.rank] if state.rank < len(group) else None
        tensors = _together(functools.partial(_read_own, folder, name, own))
        for rank, entry in enumerate(group):
            for key in entry["names"]:
                value = tensors[key] if rank == state.rank else None
                whole = state.share(value, manifest.tensors[key]["shape"], rank)
                state.put(key, entry["kind"], whole)
                if entry["kind"] == MASTERS and not same:
                    expected[key][FORWARD] = tensor_sha(whole.to(state.precision))
    return expected


def _read_own(
    folder: Storage, name: str, entry: Mapping[str, Any] | None
) -> dict[str, torch.Tensor]:
    return {} if entry is None else read_shard(folder, name, entry)


def _moments_of(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """{parameter: {moment: True, "step": count}}, as `EngineState.moments` has it."""
    other = ("shape", MASTERS, FORWARD)
    return {
        name: {
            key: value if key == "step" else True
            for key, value in found.items()
            if key not in other
        }
        for name, found in manifest.tensors.items()
    }


def _check_model(where: str, manifest: Manifest, state: EngineState) -> None:
    """UsageError for the checkpoint of another model: the first parameter that differs."""
    there = {name: found["shape"] for name, found in manifest.tensors.items()}
    here: dict[str, Any] = state.shapes
    for name in [*here, *(name for name in there if name not in here)]:
        if here.get(name) != there.get(name):
            shapes = [str(shapes.get(name, "absent")) for shapes in (there, here)]
            raise UsageError(
                f"{where} is a checkpoint of another model: parameter {name} is {shapes[0]} there "
                f"and {shapes[1]} in this run; give the model= that the run began with, or another "
                "output="
            )
        if not state.trained(name) and set(_moments_of(manifest).get(name, ())):
            raise UsageError(
                f"{where} has moments of {name}, which this run does not train; give the settings "
                "that the run began with, or another output="
            )
    odd = sorted(set(manifest.buffers) ^ set(state.buffers))
    for name in odd or state.buffers:
        mine = _described(state.buffers[name])["shape"] if name in state.buffers else "absent"
        theirs = manifest.buffers[name]["shape"] if name in manifest.buffers else "absent"
        if mine != theirs:
            raise UsageError(
                f"{where} is a checkpoint of another model: buffer {name} is {theirs} there and "
                f"{mine} in this run"
            )


def _verify(
    where: str, manifest: Manifest, state: EngineState, moments: Mapping[str, Mapping[str, Any]]
) -> None:
    """Hash masters, moments and buffers again, as they lie in the engine."""
    wrong: list[str] = []
    found = state.moments()
    for number, (name, record) in enumerate(manifest.tensors.items()):
        if not state.trained(name):
            continue  # it has the weight that the forward uses, and no other
        if found[name].get("step") != record.get("step"):
            wrong.append(f"optimizer step of {name}")
        owner = number % state.ranks if state.partitioned else state.rank
        for kind in (MASTERS, *(key for key in moments[name] if key != "step")):
            whole = state.collect(name, kind, owner)
            if whole is not None and tensor_sha(whole) != record[kind]:
                wrong.append(f"{kind} of {name}")
    for name, value in state.buffers.items():
        if _described(value) != manifest.buffers[name]:
            wrong.append(f"buffer {name}")
    _refuse(f"{where} was not restored", "does not agree with the checkpoint", wrong)


def _check_forward(
    state: EngineState, expected: Mapping[str, Mapping[str, Any]], doing: str
) -> None:
    """Hash the weights that the forward uses; IntegrityError if one is not as expected."""
    wrong = []
    for number, (name, weight) in enumerate(state.forward_weights()):
        mine = not state.gathered or number % state.ranks == state.rank
        if mine and tensor_sha(weight) != expected[name][FORWARD]:
            wrong.append(f"the weight {name} that the forward uses on rank {state.rank}")
    _refuse(doing, "is not the fp32 master, rounded", wrong)


def _refuse(doing: str, why: str, wrong: list[str]) -> None:
    every = [one for found in everywhere(wrong) for one in found]
    if every:
        more = f" (and {len(every) - 1} more)" if len(every) > 1 else ""
        raise IntegrityError(
            f"{doing}: {every[0]} {why}{more}; do not go on from this state: continue from an "
            "earlier checkpoint, and report it with the DeepSpeed settings used"
        )


# -- helpers ----------------------------------------------------------------------------------


def _together(action: Callable[[], T]) -> T:
    """Run a part of the work that may fail on one rank; the first error is raised on all, so that
    none waits for a rank that is gone."""
    error: HeadraceError | None = None
    result: T | None = None
    try:
        result = action()
    except HeadraceError as failed:
        error = failed
    for found in everywhere(error):
        if found is not None:
            raise found
    return result  # type: ignore[return-value]


def _described(value: torch.Tensor) -> dict[str, Any]:
    return {"dtype": _named(value.dtype), "shape": list(value.shape), "sha256": tensor_sha(value)}


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
