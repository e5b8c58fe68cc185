"""What saving and restoring a checkpoint have in common: errors of one rank on all, and checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from schemas.errors import HeadraceError, IntegrityError
from trainer.engine.checkpoint_files import FORWARD, tensor_sha
from trainer.engine.checkpoint_state import EngineState, everywhere, place

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def together(action: Callable[[], T]) -> T:
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


def check_forward(
    state: EngineState, expected: Mapping[str, Mapping[str, Any]], doing: str
) -> None:
    """Hash the weights that the forward uses; IntegrityError if one is not as expected."""
    found = {name: tensor_sha(weight) for name, weight in own_forward(state)}
    compare_forward(found, expected, doing)


def own_forward(state: EngineState) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights that this rank checks: all, or its share where they are gathered."""
    for number, (name, weight) in enumerate(state.forward_weights()):
        if not state.gathered or number % state.ranks == state.rank:
            yield name, weight


def compare_forward(
    found: Mapping[str, str], expected: Mapping[str, Mapping[str, Any]], doing: str
) -> None:
    """Raise IntegrityError on all ranks if a hash of any is not as expected."""
    wrong = [
        f"the weight {name} that the forward uses on rank {place()[0]}"
        for name, sha in found.items()
        if sha != expected[name][FORWARD]
    ]
    refuse(doing, "is not the fp32 master, rounded", wrong)


def refuse(doing: str, why: str, wrong: list[str]) -> None:
    """Raise IntegrityError on all ranks if something is wrong on any."""
    every = [one for found in everywhere(wrong) for one in found]
    if every:
        more = f" (and {len(every) - 1} more)" if len(every) > 1 else ""
        raise IntegrityError(
            f"{doing}: {every[0]} {why}{more}; do not go on from this state: continue from an "
            "earlier checkpoint, and report it with the DeepSpeed settings used"
        )


def described(value: torch.Tensor) -> dict[str, Any]:
    """Return what a manifest says of a buffer."""
    return {"dtype": named(value.dtype), "shape": list(value.shape), "sha256": tensor_sha(value)}


def named(dtype: torch.dtype) -> str:
    """Return a dtype's name: ``bfloat16``."""
    return str(dtype).removeprefix("torch.")
