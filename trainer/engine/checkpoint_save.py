"""Saving a checkpoint: at once, or from a copy while training goes on.

`save` collects and writes shards in rounds of one for each rank: it needs little memory. `begin`
collects all of a rank's shards in the host's memory (12 bytes a parameter over all ranks under AdamW,
and the weights of the forward), and returns; a thread hashes and writes them. It takes part in no
collective: what all ranks must agree on is left to `Writing.finish`, which the training loop calls
between two steps. Both write the same bytes.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schemas.errors import HeadraceError
from schemas.storage import Storage
from trainer.engine.checkpoint_common import (
    check_forward,
    compare_forward,
    described,
    named,
    own_forward,
    together,
)
from trainer.engine.checkpoint_files import (
    BUFFERS,
    FORWARD,
    MASTERS,
    Manifest,
    Shard,
    commit,
    discard,
    plan_shards,
    rounds,
    sweep,
    tensor_sha,
    write_shard,
)
from trainer.engine.checkpoint_state import EngineState, everywhere

if TYPE_CHECKING:
    import torch

Tensors = dict[str, dict[str, Any]]
Written = tuple[dict[str, Any], dict[str, dict[str, str]]]
"""A shard's entry of the manifest, and {parameter: {kind: SHA-256}}."""


def save(folder: Storage, name: str, engine: Any, facts: dict[str, Any]) -> None:
    """Commit the engine's state as the checkpoint `name`; ``latest`` names it after.

    ``facts`` are JSON values (step, position, seed, digests, ranks, zero, ...); ``ranks`` and
    ``zero`` are outside the digest. What killed saves left is deleted first. An error leaves the
    earlier checkpoints as they were.

    Errors: StorageError (a full disk, ...), IntegrityError when the forward's weights are not the
    masters rounded or ranks disagree, ConflictError for another state under the name.
    """
    state = EngineState(engine)
    with _discarding(folder, name, state):
        together(lambda: sweep(folder, name) if state.rank == 0 else None)
        shards, tensors = _plan(state)
        files: list[dict[str, Any]] = []
        for group in rounds(shards, state.ranks):
            mine = _collect(state, group)
            own = group[state.rank] if state.rank < len(group) else None
            write = functools.partial(_write, folder, name, own, mine, state.precision)
            _take(everywhere(together(write)), files, tensors)
        buffers = together(lambda: _write_buffers(folder, name, state.rank, state.buffers))
        files += [found for found in everywhere(buffers) if found is not None]
        check_forward(state, tensors, f"cannot save {folder.path(name)}")
        manifest = _manifest(facts, state, files, tensors, state.buffers)
        together(lambda: commit(folder, name, manifest) if state.rank == 0 else None)


@dataclass
class Writing:
    """A checkpoint that a thread of each rank writes."""

    folder: Storage
    name: str
    facts: dict[str, Any]
    state: EngineState
    tensors: Tensors
    buffers: Mapping[str, torch.Tensor]
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
    )
    _future: Future[Any] | None = None

    def start(self, own: list[tuple[int, Shard, dict[str, torch.Tensor]]], forward: Any) -> None:
        """Begin to write this rank's shards and to hash its weights of the forward."""
        self._future = self._pool.submit(self._work, own, forward)
        self._pool.shutdown(wait=False)

    @property
    def ready(self) -> bool:
        """Whether this rank's thread has ended, well or not."""
        return self._future is None or self._future.done()

    def finish(self) -> None:
        """Wait for all ranks' files, and commit; errors as of `save`. Called by all ranks."""
        assert self._future is not None
        future, state = self._future, self.state
        with _discarding(self.folder, self.name, state):
            written, buffers, forward = together(future.result)
            every = sorted((one for found in everywhere(written) for one in found), key=_number)
            files: list[dict[str, Any]] = []
            _take([one[1] for one in every], files, self.tensors)
            files += [found for found in everywhere(buffers) if found is not None]
            compare_forward(forward, self.tensors, f"cannot save {self.folder.path(self.name)}")
            manifest = _manifest(self.facts, state, files, self.tensors, self.buffers)
            together(lambda: commit(self.folder, self.name, manifest) if state.rank == 0 else None)

    def _work(
        self,
        own: list[tuple[int, Shard, dict[str, torch.Tensor]]],
        forward: dict[str, torch.Tensor],
    ) -> tuple[list[tuple[int, Written]], dict[str, Any] | None, dict[str, str]]:
        folder, name, precision = self.folder, self.name, self.state.precision
        written: list[tuple[int, Written]] = []
        while own:
            number, shard, tensors = own.pop(0)
            written.append((number, _written(folder, name, shard, tensors, precision)))
        buffers = _write_buffers(folder, name, self.state.rank, self.buffers)
        return written, buffers, {key: tensor_sha(value) for key, value in forward.items()}


def begin(folder: Storage, name: str, engine: Any, facts: dict[str, Any]) -> Writing:
    """Copy the engine's state, and have it written; `Writing.finish` makes it a checkpoint.

    Called by all ranks; arguments as of `save`. Only one may be under way.
    """
    state = EngineState(engine)
    together(lambda: sweep(folder, name) if state.rank == 0 else None)
    shards, tensors = _plan(state)
    own: list[tuple[int, Shard, dict[str, torch.Tensor]]] = []
    for number, group in enumerate(rounds(shards, state.ranks)):
        mine = _collect(state, group)
        if not state.partitioned:  # else what was collected is a copy
            mine = {key: _copied(value) for key, value in mine.items()}
        mine = {key: value.cpu() for key, value in mine.items()}
        if state.rank < len(group):
            own.append((number * state.ranks + state.rank, group[state.rank], mine))
    forward = {key: _copied(value) for key, value in own_forward(state)}
    buffers = {key: _copied(value) for key, value in state.buffers.items()}
    writing = Writing(folder, name, dict(facts), state, tensors, buffers)
    writing.start(own, forward)
    return writing


def _plan(state: EngineState) -> tuple[list[Shard], Tensors]:
    """The shards of a state, and the manifest's ``tensors`` without hashes."""
    moments = state.moments()
    shapes = state.shapes
    sizes = {key: 4 * math.prod(shape) for key, shape in shapes.items()}
    kinds = sorted({kind for found in moments.values() for kind in found} - {"step"})
    every = {MASTERS: sizes}
    for kind in kinds:
        every[kind] = {key: sizes[key] for key in sizes if kind in moments.get(key, {})}
    tensors: Tensors = {
        key: {"shape": shape} | {k: v for k, v in moments.get(key, {}).items() if k == "step"}
        for key, shape in shapes.items()
    }
    return plan_shards(every), tensors


def _collect(state: EngineState, group: Any) -> dict[str, torch.Tensor]:
    """This rank's tensors of a round."""
    mine: dict[str, torch.Tensor] = {}
    for rank, shard in enumerate(group):
        for key in shard.names:
            whole = state.collect(key, shard.kind, rank)
            if whole is not None:
                mine[key] = whole
    return mine


def _write(
    folder: Storage,
    name: str,
    shard: Shard | None,
    tensors: Mapping[str, torch.Tensor],
    precision: torch.dtype,
) -> Written | None:
    return None if shard is None else _written(folder, name, shard, tensors, precision)


def _written(
    folder: Storage,
    name: str,
    shard: Shard,
    tensors: Mapping[str, torch.Tensor],
    precision: torch.dtype,
) -> Written:
    entry = write_shard(folder, name, shard, tensors)
    hashes = {key: {shard.kind: tensor_sha(value)} for key, value in tensors.items()}
    if shard.kind == MASTERS:
        for key, value in tensors.items():
            hashes[key][FORWARD] = tensor_sha(value.to(precision))
    return entry, hashes


def _write_buffers(
    folder: Storage, name: str, rank: int, buffers: Mapping[str, torch.Tensor]
) -> dict[str, Any] | None:
    if rank or not buffers:
        return None
    return write_shard(folder, name, Shard(BUFFERS, 0, tuple(buffers)), buffers)


def _take(every: list[Written | None], files: list[dict[str, Any]], tensors: Tensors) -> None:
    """Add to the manifest what ranks have written."""
    for written in every:
        if written is not None:
            files.append(written[0])
            for key, hashes in written[1].items():
                tensors[key].update(hashes)


def _manifest(
    facts: dict[str, Any],
    state: EngineState,
    files: list[dict[str, Any]],
    tensors: Tensors,
    buffers: Mapping[str, torch.Tensor],
) -> Manifest:
    return Manifest(
        facts=dict(facts),
        precision=named(state.precision),
        tensors=tensors,
        buffers={key: described(value) for key, value in buffers.items()},
        tied=state.tied,
        files=files,
    ).sealed()


def _copied(value: torch.Tensor) -> torch.Tensor:
    """A copy in the host's memory that no step changes."""
    import torch

    return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _number(item: tuple[int, Written]) -> int:
    return item[0]


@contextlib.contextmanager
def _discarding(folder: Storage, name: str, state: EngineState) -> Iterator[None]:
    """Delete what a save that failed has written: the disk may be full."""
    try:
        yield
    except HeadraceError:
        if state.rank == 0:
            with contextlib.suppress(HeadraceError):
                discard(folder, name)
        raise
