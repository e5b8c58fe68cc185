"""DeepSpeed as this project uses it: its resolved configuration, parameter groups and start.

Import this module only in a process that trains: it loads torch when a function is called, and
DeepSpeed when `start` is.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast

from pydantic import ValidationError

from schemas.errors import UsageError
from trainer.config import Optimizer, RunConfig
from trainer.engine import partition
from trainer.engine.deepspeed_settings import passed
from trainer.engine.sizes import Sizes
from trainer.protocols import Place


def resolved(config: RunConfig, of: Sizes) -> dict[str, Any]:
    """Return DeepSpeed's configuration: ours, with ``deepspeed:`` of the recipe added.

    Raises UsageError where that block contradicts our settings, naming both, and for what is not passed
    through (`trainer.engine.deepspeed_settings`).
    """
    bf16 = config.precision == "bf16"
    if config.compile and config.zero == 3:
        raise UsageError(
            "compile=true with zero=3: its weights are gathered by hooks between modules, which "
            "torch.compile would leave at each; give zero=2 or compile=false"
        )
    if bf16 and config.zero == 0 and of.micro_batches > 1:
        raise UsageError(
            f"zero=0 with precision=bf16 would add the gradients of {of.micro_batches} "
            "micro-batches in bf16: give zero=1, which adds them in fp32, or a larger batch.micro"
        )
    ours: dict[str, tuple[Any, str]] = {
        "train_batch_size": (of.batch, f"batch.size={of.batch}"),
        "train_micro_batch_size_per_gpu": (of.micro, f"batch.micro={of.micro}"),
        "gradient_accumulation_steps": (
            of.micro_batches,
            f"batch.size={of.batch} over {of.ranks} ranks with batch.micro={of.micro}",
        ),
        "zero_optimization.stage": (config.zero, f"zero={config.zero}"),
        "bf16.enabled": (bf16, f"precision={config.precision}"),
        # At stage 0 in fp32 the engine clips: it needs the norm before the step in any case.
        "gradient_clipping": (
            config.clip if config.clip and not clips_itself(config) else 0.0,
            f"clip={config.clip}",
        ),
        "managed_gradient_accumulation": (True, "the engine's own accumulation"),
        # Both precisions send gradients in fp32: a sum over ranks in bf16 loses bits.
        "communication_data_type": ("fp32", f"precision={config.precision}"),
        # An optimizer of torch, with or without parts offloaded to the CPU.
        "zero_allow_untested_optimizer": (True, f"optimizer.name={config.optimizer.name}"),
        "zero_force_ds_cpu_optimizer": (False, f"optimizer.name={config.optimizer.name}"),
    }
    if bf16 and config.zero:
        ours["data_types.grad_accum_dtype"] = "fp32", "precision=bf16"
    # Where the engine clips, it does so at the norm that the setting states.
    stated = {"gradient_clipping": config.clip or 0.0}
    given = passed(config.deepspeed, ours, stated)
    tree: dict[str, Any] = {"steps_per_print": None, "wall_clock_breakdown": False}
    for name, value in {**{n: v for n, (v, _) in ours.items()}, **given}.items():
        node = tree
        *path, leaf = name.split(".")
        for part in path:
            node = node.setdefault(part, {})
        if isinstance(value, Mapping):  # an empty group, beside settings of ours in it
            node.setdefault(leaf, {})
        else:
            node[leaf] = value
    return tree


def clips_itself(config: RunConfig) -> bool:
    """Whether the engine takes the norm of the gradient and clips, since DeepSpeed does neither
    before it changes the weights."""
    return config.zero == 0 and config.precision == "fp32"


def parameter_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Return the trainable parameters in two groups: with weight decay, and without.

    Without: parameters of fewer than 2 dimensions (biases, norms, logit scales), all of a norm's,
    and those that the model names in ``no_decay() -> set[str]`` (names of `named_parameters`).
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    spared = set(model.no_decay()) if hasattr(model, "no_decay") else set()
    if unknown := sorted(spared - {name for name, _ in model.named_parameters()}):
        raise ValueError(f"no_decay() names {unknown[0]!r}, which is no parameter of the model")
    for path, module in model.named_modules():
        if "norm" in type(module).__name__.lower():
            own = module.named_parameters(recurse=False)
            spared.update(f"{path}.{name}" if path else name for name, _ in own)
    flat = {n for n, p in named.items() if len(getattr(p, "ds_shape", p.shape)) < 2}
    without = {n for n in named if n in flat or n in spared or n.endswith("bias")}
    return [
        {
            "params": [p for n, p in named.items() if n not in without],
            "weight_decay": weight_decay,
        },
        {"params": [p for n, p in named.items() if n in without], "weight_decay": 0.0},
    ]


def optimizer_of(settings: Optimizer, model: Any) -> Any:
    """Return torch's optimizer over the model's parameter groups, the fused implementation."""
    import torch

    groups = [g for g in parameter_groups(model, settings.weight_decay) if g["params"]]
    if not groups:
        raise UsageError("the model has no trainable parameter")
    if settings.name == "sgd":
        return torch.optim.SGD(groups, settings.lr, momentum=settings.momentum, fused=True)
    return torch.optim.AdamW(groups, settings.lr, settings.betas, settings.eps, fused=True)


def join(place: Place) -> None:
    """Join the processes of the run: gloo on CPUs, NCCL on GPUs.

    One process needs no address and no port. Several find each other by MASTER_ADDR and
    MASTER_PORT, as torchrun sets them.
    """
    if place.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import torch
    import torch.distributed as dist

    backend = "gloo" if place.device == "cpu" else "nccl"
    if place.device != "cpu":
        torch.cuda.set_device(place.local_rank)
    if place.ranks == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group(backend, rank=place.rank, world_size=place.ranks)


def leave() -> None:
    """Leave the processes of the run, so that another run may start in this one."""
    import torch.distributed as dist

    if dist.is_initialized():
        import deepspeed.comm

        if deepspeed.comm.is_initialized():
            deepspeed.comm.destroy_process_group()
        if dist.is_initialized():
            dist.destroy_process_group()
    # Stage 3 puts its own function there for good, and another run would compute with it.
    if stage_3 := sys.modules.get("deepspeed.runtime.zero.partition_parameters"):
        from torch.nn import functional

        if functional.linear is stage_3.zero3_linear_wrap:
            functional.linear = stage_3.InsertPostInitMethodToModuleSubClasses.linear_bk


def _fault(error: Exception) -> str:
    """What DeepSpeed says of its settings, in one line: the first fault, with its setting."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        return f"{name}={first['input']!r}: {first['msg']} ({error.title})"
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def _refusals(config: RunConfig) -> Iterator[None]:
    """Tell of settings that DeepSpeed refuses, if the recipe passed any through."""
    from deepspeed import DeepSpeedConfigError

    try:
        yield
    # An assertion is how DeepSpeed tells of settings that exclude each other; a monitor that is asked
    # for may not be installed.
    except (ValueError, AssertionError, ImportError, DeepSpeedConfigError) as error:
        if not config.deepspeed:
            raise
        raise UsageError(f"deepspeed: {_fault(error)}: correct it or leave it out") from error


def start(model: Any, config: RunConfig, of: Sizes, place: Place, log: Path | None = None) -> Any:
    """Return a DeepSpeedEngine over `model` with the run's optimizer; after `join`.

    A model without weights gets them from its ``origin``, cut over ranks; with an ``origin``, the fp32
    masters of a run in bf16 are not rounded. What DeepSpeed and others log goes to the file `log`, not
    to the screen. UsageError for settings that DeepSpeed refuses.
    """
    settings = resolved(config, of)
    os.environ["LOCAL_RANK"] = str(place.local_rank)
    import deepspeed
    import deepspeed.ops

    output = _log_to(log) if log is not None else sys.stderr
    if place.device == "cpu":
        # Its all-reduce through shared memory would be compiled with g++ at the first start, and
        # to ask whether it can be runs compilers, too. Set, it is neither probed nor built.
        vars(deepspeed.ops)["__compatible_ops__"] = {"deepspeed_shm_comm": False}
    deepspeed.init_distributed(dist_backend="gloo" if place.device == "cpu" else "nccl")
    with _refusals(config), redirect_stdout(output):
        if partition.is_hollow(model):
            partition.partition(model, settings, config, place)
        else:
            _broadcast(model, place)
        optimizer = optimizer_of(config.optimizer, model)
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # at stage 0 in bf16 DeepSpeed makes a step to see its state
        with _scalars_allowed(model, config.zero):
            engine, *_ = deepspeed.initialize(
                model=model, optimizer=optimizer, config=settings, dist_init_required=False
            )
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group["lr"] = config.optimizer.lr
    if config.precision == "bf16" and (origin := getattr(model, "origin", None)) is not None:
        partition.unrounded(engine, origin, place)
    if place.ranks == 1 and not config.zero:
        # Stage 0 would copy all gradients to a flat tensor and back, for a reduction over one rank.
        engine.enable_backward_allreduce = False
    if config.compile:
        engine.module.compile()
    return engine


def _broadcast(model: Any, place: Place) -> None:
    """Give all ranks the weights and buffers of rank 0."""
    import torch.distributed as dist

    model.to(place.device)
    if place.ranks > 1:
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.data, src=0)


@contextmanager
def _scalars_allowed(model: Any, stage: int) -> Iterator[None]:
    """Let DeepSpeed start with 0-d parameters (a logit scale), whose broadcast fails in it.

    All ranks have the weights already, so stages 0 to 2 skip it. Stage 3 sees one element in one
    dimension, and gathers it into the true shape later.
    """
    import torch
    from deepspeed.runtime.engine import DeepSpeedEngine

    scalars = [p for p in model.parameters() if p.ndim == 0]
    original = DeepSpeedEngine._broadcast_model
    DeepSpeedEngine._broadcast_model = lambda self: None
    if stage == 3:
        for parameter in scalars:
            parameter.data = parameter.data.view(1)
    try:
        yield
    finally:
        DeepSpeedEngine._broadcast_model = original
    if stage == 3:
        for parameter in scalars:
            parameter.ds_shape = torch.Size([])
            if parameter.numel():
                parameter.data = parameter.data.view(())


def _log_to(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("DeepSpeed", "torch", "trainer", "py.warnings"):
        logger = logging.getLogger(name)
        for old in logger.handlers:
            if isinstance(old, logging.FileHandler):
                old.close()
        logger.handlers = [handler]
        logger.propagate = False
    logging.captureWarnings(True)
    return cast(TextIO, handler.stream)
