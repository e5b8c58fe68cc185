"""What comes and goes in memory during one forward and backward pass, found without computing it.

The model runs on the meta device: shapes, no numbers, no weights. Written down are the births and deaths
of storages, when each gradient is complete, and when each module is entered and left, forward and
backward. `trainer.launching.stages` makes of it what a rank needs at each ZeRO stage.

Attention is taken to be a fused kernel, as CPUs and GPUs have one: it keeps its inputs, its output and
one fp32 number a query, and a boolean mask becomes one of the inputs' type in every layer.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from trainer.config import RunConfig
from trainer.launching.devices import Work
from trainer.protocols import Parts

if TYPE_CHECKING:
    import torch


class Event(NamedTuple):
    """``bytes``: that many more, or fewer, are alive. ``gradient``: that of a parameter is complete.
    ``enter``, ``leave``: a module is about to compute, or has done so. ``backward``: it begins."""

    kind: Literal["bytes", "gradient", "enter", "leave", "backward"]
    value: int = 0


@dataclass(frozen=True)
class Timeline:
    """Events in order; elements of each trainable or frozen parameter; the parameters of each module
    that has any of its own; bytes of an element of a weight; what is computed."""

    events: tuple[Event, ...]
    elements: tuple[int, ...]
    modules: tuple[tuple[int, ...], ...]
    item: int
    work: Work


def timeline(config: RunConfig, parts: Parts, micro: int, *, on_cpu: bool = True) -> Timeline:
    """Run ``parts.model`` forward and backward on a micro-batch of ``micro`` samples, on the meta device.

    ``on_cpu``: as on a CPU, where losses over a vocabulary are computed in pieces that its cache holds.

    The model is moved there for good. The batch itself is not counted; what the objective holds
    besides, such as a teacher, is.
    """
    import numpy as np
    import torch

    assert parts.source is not None and parts.objective is not None
    one = parts.source.batch(np.zeros(1, np.int64))
    batch = {
        name: torch.empty((micro, *value.shape[1:]), dtype=value.dtype, device="meta")
        for name, value in one.items()
    }
    model = parts.model.to("meta")
    if config.precision == "bf16":
        model = model.to(torch.bfloat16)
        batch = {n: v.bfloat16() if v.is_floating_point() else v for n, v in batch.items()}
    objective: Any = parts.objective
    recorder = _recorder([*model.parameters(), *model.buffers(), *batch.values()])
    parameters = list(model.parameters())
    number = {id(p): i for i, p in enumerate(parameters)}
    followed = _followed(model, number, recorder.events)
    with followed as modules, _pieces(on_cpu), recorder, _fused_attention() as attention:
        if objective.additive:
            components = objective.components(model, batch)
        else:
            local = objective.represent(model, batch)
            components = objective.components(local, local, 0)
        loss = _total(components, objective.weights)
        del components
        recorder.events.append(Event("backward"))
        loss.backward()
        del loss
    return Timeline(
        tuple(recorder.events),
        tuple(p.numel() for p in parameters),
        tuple(modules),
        parameters[0].element_size(),
        Work(recorder.matmul, sum(attention), recorder.traffic),
    )


@contextmanager
def _pieces(on_cpu: bool) -> Iterator[None]:
    """Let losses over a vocabulary work on whole chunks of logits, unless on a CPU."""
    from trainer.objectives import linear_cross_entropy

    before = linear_cross_entropy.CACHED
    if not on_cpu:
        linear_cross_entropy.CACHED = 1 << 62
    try:
        yield
    finally:
        linear_cross_entropy.CACHED = before


def _total(components: Mapping[str, torch.Tensor], weights: Mapping[str, float]) -> Any:
    return sum(weight * components[name] for name, weight in weights.items())


def _recorder(known: list[torch.Tensor]) -> Any:
    """A dispatch mode that writes down storages other than those of ``known``."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Recorder(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.events: list[Event] = []
            self.matmul = self.traffic = 0
            self._alive = {_storage(tensor) for tensor in known}
            self._held = known  # lest a freed storage's number be given to another

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = function(*args, **(kwargs or {}))
            before = len(self._alive)
            made = [one for one in tree_leaves(found) if isinstance(one, torch.Tensor)]
            for tensor in made:
                self._born(tensor)
            name = function.name().partition("::")[2].partition(".")[0]
            if name in _PRODUCTS:
                left = next(one for one in args[-2:] if isinstance(one, torch.Tensor))
                self.matmul += 2 * made[0].numel() * int(left.shape[-1])
            elif name not in _FREE and (len(self._alive) > before or name.endswith("_")):
                read = [one for one in tree_leaves(args) if isinstance(one, torch.Tensor)]
                self.traffic += sum(one.nbytes for one in (*read, *made))
            return found

        def _born(self, tensor: torch.Tensor) -> None:
            storage = tensor.untyped_storage()
            key, size = _storage(tensor), int(storage.nbytes())
            if key not in self._alive:
                self._alive.add(key)
                self.events.append(Event("bytes", size))
                weakref.finalize(storage, self._died, key, size).atexit = False

        def _died(self, key: int, size: int) -> None:
            self._alive.discard(key)
            self.events.append(Event("bytes", -size))

    return Recorder()


_PRODUCTS = frozenset(("mm", "addmm", "bmm", "baddbmm", "addmm_"))
_FREE = frozenset(("empty", "new_empty", "empty_like", "empty_strided", "set_", "requires_grad_"))


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def _followed(
    model: Any, number: Mapping[int, int], events: list[Event]
) -> Iterator[list[tuple[int, ...]]]:
    """Write down modules as they compute and gradients as they are complete, and let go of the latter."""
    handles: list[Any] = []
    modules: list[tuple[int, ...]] = []
    for module in model.modules():
        own = {number[id(p)]: None for p in module.parameters(recurse=False)}
        if own:
            handles += _hooks(module, len(modules), events)
            modules.append(tuple(own))
    for parameter in model.parameters():
        if parameter.requires_grad:
            done = _complete(number[id(parameter)], events)
            handles.append(parameter.register_post_accumulate_grad_hook(done))
    try:
        yield modules
    finally:
        for handle in handles:
            handle.remove()


def _complete(index: int, events: list[Event]) -> Any:
    def done(parameter: torch.Tensor) -> None:
        parameter.grad = None
        events.append(Event("gradient", index))

    return done


def _hooks(module: Any, index: int, events: list[Event]) -> list[Any]:
    """Hooks of a module's forward pass. Those of its backward pass are on views of its inputs and on
    its outputs: the output layer gives a dict, which PyTorch's own backward hooks do not see."""
    import torch
    from torch.utils._pytree import tree_leaves, tree_map

    enter, leave = Event("enter", index), Event("leave", index)

    def backward(event: Event) -> Any:
        # A module of several outputs is entered once.
        return lambda _: events.append(event) if events[-1] != event else None

    def view(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.requires_grad:
            return value
        seen = value.view_as(value)
        seen.register_hook(backward(leave))
        return seen

    def before(_: Any, args: Any, kwargs: Any) -> Any:
        events.append(enter)
        return tree_map(view, args), tree_map(view, kwargs)

    def after(_: Any, args: Any, found: Any) -> None:
        events.append(leave)
        for value in tree_leaves(found):
            if isinstance(value, torch.Tensor) and value.requires_grad:
                value.register_hook(backward(enter))

    return [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after),
    ]


@contextmanager
def _fused_attention() -> Iterator[list[int]]:
    """Let attention without dropout cost what a fused kernel does; yields the operations of each call.

    A kernel that gets a mask looks at all pairs of tokens, one that is causal at half of them; the
    backward pass makes five products where the forward pass makes two.

    The library's function is replaced for the time: a function mode would not see the forward passes
    that activation checkpointing repeats inside of the backward pass.
    """
    import torch
    from torch.nn import functional

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any, mask: Any) -> Any:
            if mask is not None and mask.dtype == torch.bool:
                mask = mask.new_empty(mask.shape, dtype=query.dtype)
            rows, heads, tokens, width = query.shape
            products = 4 * rows * heads * tokens * key.shape[2] * width
            ctx.operations = products if mask is not None else products // 2
            operations.append(ctx.operations)
            found = _like(query, value.shape[-1])
            sums = query.new_empty((rows, heads, tokens), dtype=torch.float32)
            ctx.save_for_backward(query, key, value, mask, found, sums)
            return found

        @staticmethod
        def backward(ctx: Any, by_found: Any) -> Any:
            operations.append(5 * ctx.operations // 2)
            return *(_like(one, one.shape[-1]) for one in ctx.saved_tensors[:3]), None

    def _like(of: Any, width: int) -> Any:
        rows, heads, tokens, _ = of.shape
        return of.new_empty((rows, tokens, heads, width)).transpose(1, 2)

    operations: list[int] = []
    original = functional.scaled_dot_product_attention

    def attention(
        query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, **rest: Any
    ) -> Any:
        if dropout_p:
            return original(query, key, value, attn_mask, dropout_p, **rest)
        return Attention.apply(query, key, value, attn_mask)

    functional.scaled_dot_product_attention = cast(Any, attention)
    # The library looks at positions to guess whether sequences are packed; here they have no values, and
    # a model that is not told of documents has one in each sequence.
    masks = sys.modules.get("transformers.masking_utils")
    guess = getattr(masks, "find_packed_sequence_indices", None)
    if guess is not None:
        vars(masks)["find_packed_sequence_indices"] = lambda position_ids: None
    try:
        yield operations
    finally:
        functional.scaled_dot_product_attention = original
        if guess is not None:
            vars(masks)["find_packed_sequence_indices"] = guess
