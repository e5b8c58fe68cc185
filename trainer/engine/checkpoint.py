"""Checkpoints of one layout for every ZeRO stage, precision and number of ranks.

All functions but `read_weights` are called by all ranks. A rank reads and writes every R-th shard
(R ranks). A checkpoint is trusted only after its tensors are hashed again where they are used: the
masters and moments in the optimizer, and the weights that the forward takes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from schemas.errors import UsageError
from schemas.storage import Storage
from trainer.engine.checkpoint_common import check_forward, described, named, refuse, together
from trainer.engine.checkpoint_files import (
    BUFFERS,
    FORWARD,
    MASTERS,
    Manifest,
    committed,
    pointed,
    read_kind,
    read_shard,
    remove,
    rounds,
    tensor_sha,
)
from trainer.engine.checkpoint_save import Writing, begin, save
from trainer.engine.checkpoint_state import EngineState, place

if TYPE_CHECKING:
    import torch

__all__ = ["Writing", "at_step", "begin", "latest", "prune", "read_weights", "restore", "save"]


def restore(folder: Storage, name: str, engine: Any) -> dict[str, Any]:
    """Load a checkpoint into an engine of any ZeRO stage, precision and number of ranks.

    Returns its facts. Errors: InputError if there is none, IntegrityError if it is damaged or does
    not arrive bit for bit, UsageError if it is of another model.
    """
    state = EngineState(engine)
    manifest = together(lambda: Manifest.load(folder, name))
    where = folder.path(name)
    moments = _moments_of(manifest)
    together(lambda: _check_model(where, manifest, state))
    together(lambda: state.prepare(moments))
    expected = _load(folder, name, manifest, state)
    buffers = together(lambda: read_kind(folder, name, manifest, BUFFERS))
    for key, value in buffers.items():
        state.put_buffer(key, value)
    state.refresh()
    _verify(where, manifest, state, moments)
    check_forward(state, expected, f"{where} was not restored")
    return dict(manifest.facts)


def latest(folder: Storage) -> str | None:
    """Return the checkpoint that a run continues from; None if there is none.

    The one that ``latest`` names; if that is gone, the newest other.
    """
    found = pointed(folder)
    return found or next(reversed(committed(folder)), None)


def at_step(folder: Storage, step: int) -> str:
    """Return the checkpoint of a step. UsageError if it is not there whole; it lists those that are."""
    name = f"step-{step:08}"
    known = committed(folder)
    if name not in known:
        steps = ", ".join(str(int(one.removeprefix("step-"))) for one in known) or "none"
        raise UsageError(
            f"--step {step}: {folder.url} has no checkpoint of this step; it has: {steps}. Give one of "
            "them, or leave --step out for the latest (checkpoint.milestones= of a run keeps more)"
        )
    return name


def prune(folder: Storage, keep: int, milestones: int | None = None) -> None:
    """Delete all but the newest `keep` checkpoints, the one that ``latest`` names, and those of
    steps that are multiples of ``milestones``."""

    def kept(name: str) -> bool:
        step = name.removeprefix("step-")
        return bool(milestones and step.isdigit() and int(step) and int(step) % milestones == 0)

    def old() -> None:
        current = pointed(folder)
        for name in committed(folder)[:-keep]:
            if name != current and not kept(name):
                remove(folder, name)

    together(lambda: old() if place()[0] == 0 else None)


def read_weights(folder: Storage, name: str) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint as a state dict: fp32 masters on the CPU, tied names and
    persistent buffers included. Needs no DeepSpeed.

    Errors: InputError if there is no such checkpoint, IntegrityError if it is damaged.
    """
    manifest = Manifest.load(folder, name)
    found = read_kind(folder, name, manifest, MASTERS)
    found.update({other: found[kept] for other, kept in manifest.tied.items()})
    return found | read_kind(folder, name, manifest, BUFFERS)


# -- restore ----------------------------------------------------------------------------------


def _load(
    folder: Storage, name: str, manifest: Manifest, state: EngineState
) -> dict[str, dict[str, Any]]:
    """Set masters and moments; return {parameter: {FORWARD: SHA-256}} in the run's precision."""
    same = manifest.precision == named(state.precision)
    expected = {key: {FORWARD: found[FORWARD]} for key, found in manifest.tensors.items()}
    entries = [entry for entry in manifest.files if entry["kind"] != BUFFERS]
    for group in rounds(entries, state.ranks):
        own = group[state.rank] if state.rank < len(group) else None
        tensors = together(functools.partial(_read_own, folder, name, own))
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
        mine = described(state.buffers[name])["shape"] if name in state.buffers else "absent"
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
        if described(value) != manifest.buffers[name]:
            wrong.append(f"buffer {name}")
    refuse(f"{where} was not restored", "does not agree with the checkpoint", wrong)
