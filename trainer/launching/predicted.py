"""What a rank is predicted to need and how long a step takes: for plans, and for reports of runs."""

from __future__ import annotations

from typing import Any

from trainer import flops
from trainer.config import RunConfig
from trainer.engine.sizes import Sizes
from trainer.launching import devices, memory, stages
from trainer.launching.compilers import setting_of
from trainer.launching.timeline import Timeline, timeline
from trainer.protocols import Parts


def prediction(
    config: RunConfig,
    parts: Parts,
    of: Sizes | None,
    *,
    ranks: int,
    hosts: int = 1,
    device: str | None = None,
) -> dict[str, Any]:
    """Return ``parameters``, ``memory`` {stage: bytes of a rank by kind} and ``time``, JSON values.

    Of memory ``states`` and ``host`` are as DeepSpeed counts; where the batch is known there are ``kept``,
    ``peak``, ``forward``, ``buffers`` and ``total`` (see `memory.kept`, `stages.Working`). ``time``: of a
    step at the run's stage on ``device``, in seconds; without one, the MFU that the assumed shares allow.
    The model is moved to the meta device. UsageError for an unknown device.
    """
    on = devices.device(device) if device else None
    counted = memory.count(parts.model)
    seen = timeline(config, parts, of.micro, on_cpu=on is None) if of is not None else None
    found: dict[str, Any] = {"parameters": vars(counted), "memory": {}, "time": None}
    for stage in stages.STAGES:
        found["memory"][str(stage)] = _memory(config, counted, seen, stage, ranks, hosts)
    if seen is not None and of is not None:
        found["time"] = _time(config, counted, parts, seen, of, hosts, on)
    return found


def _memory(
    config: RunConfig,
    counted: memory.Parameters,
    seen: Timeline | None,
    stage: int,
    ranks: int,
    hosts: int,
) -> dict[str, int]:
    bf16, moments = config.precision == "bf16", memory.moment_bytes(config)
    offload = setting_of(config.deepspeed, "zero_optimization.offload_optimizer.device")
    moved = stage > 0 and offload not in (None, "none")
    states = memory.model_states(
        counted, stage, ranks, bf16=bf16, moments=moments, hosts=hosts, offload=moved
    )
    found = {"states": states.device, "host": states.host}
    if seen is None:
        return found
    need = stages.working(seen, stage, ranks, stages.Settings.of(config.deepspeed), bf16=bf16)
    kept = memory.kept(counted, stage, ranks, bf16=bf16, moments=moments, offload=moved)
    total = kept + need.peak + need.buffers
    return {**found, **vars(need), "kept": kept, "total": total}


def _time(
    config: RunConfig,
    counted: memory.Parameters,
    parts: Parts,
    seen: Timeline,
    of: Sizes,
    hosts: int,
    on: devices.Device | None,
) -> dict[str, Any]:
    """With a device the parts of a step and its rates; ``mfu`` for token data."""
    work, found = seen.work, dict[str, Any]()
    spent = work.matmul / devices.MATMUL + work.attention / devices.ATTENTION  # at a peak of 1
    if on is not None:
        sent = devices.traffic_of_stage(
            counted.total, config.zero, of.ranks, seen.item, 4, of.micro_batches
        )
        step = devices.seconds(work, of.micro_batches, sent, on, hosts)
        found |= {**vars(step), "step": step.step, "samples_per_s": of.batch / step.step}
        found["device_memory"] = on.memory
        spent = step.step * on.peak / of.micro_batches
    model, sequence = flops.operations(parts.model), getattr(parts.source, "sequence", 0)
    if model is not None and sequence:
        tokens = of.micro * sequence  # as if each sequence were one document
        pairs = of.micro * sequence * (sequence + 1) // 2
        found["mfu"] = model.training(tokens, pairs) / spent
        if on is not None:
            found["tokens_per_s"] = found["samples_per_s"] * sequence
    return found
