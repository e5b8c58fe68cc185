"""What a run will be, before it is started and without a GPU: sizes, memory, time, refusals."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from schemas.errors import HeadraceError
from trainer.config import RunConfig
from trainer.engine.deepspeed import resolved
from trainer.engine.directory import RUN, check, output_of
from trainer.engine.metrics import METRICS, duration
from trainer.engine.sizes import Sizes
from trainer.launching import memory, stages
from trainer.launching.compilers import check_compilers, setting_of
from trainer.launching.outline import outline, sizes_of
from trainer.launching.timeline import timeline
from trainer.protocols import Parts

_GIB = 1 << 30


def plan(config: RunConfig, ranks: int, hosts: int = 1) -> dict[str, Any]:
    """Return all that is known of a run: JSON values. ``refused`` lists why it would not start.

    Keys: recipe, ranks, refused, and as far as they can be known sizes, epochs, data {digest, rows,
    samples_an_epoch}, parameters, memory {stage: bytes of a rank by kind}, rate, deepspeed.
    """
    found: dict[str, Any] = {"recipe": config.recipe, "ranks": ranks, "output": config.output}
    refused: list[str] = []

    def tried(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except HeadraceError as error:
            if str(error) not in refused:
                refused.append(str(error))
            return None

    output = tried(lambda: output_of(config))
    if output is not None and (output / RUN).exists():
        tried(lambda: check(config))  # another run's directory
    tried(lambda: check_compilers(config.deepspeed))
    parts: Parts | None = tried(lambda: outline(config))
    of: Sizes | None = None
    if parts is not None or config.length.epochs is None:
        of = tried(lambda: sizes_of(config, ranks, parts))
    if of is not None:
        found["sizes"] = vars(of)
        found["deepspeed"] = tried(lambda: resolved(config, of))
    if parts is not None:
        found |= _of_data(parts, of) | _of_memory(config, parts, ranks, hosts, of)
    found["rate"] = measured_rate(config) if not refused else None
    found["refused"] = refused
    return found


def _of_data(parts: Parts, of: Sizes | None) -> dict[str, Any]:
    source: Any = parts.source
    rows = len(source.dataset) if hasattr(source, "dataset") else None
    epoch = source.samples(1)
    data = {"digest": source.digest, "rows": rows, "samples_an_epoch": epoch}
    return {"data": data, "epochs": of.steps * of.batch / epoch if of and epoch else None}


def _of_memory(
    config: RunConfig, parts: Parts, ranks: int, hosts: int, of: Sizes | None
) -> dict[str, Any]:
    """Parameters, and bytes by stage: ``states`` as DeepSpeed counts them, ``host``, and where the batch
    is known ``working``, ``buffers`` and ``total``."""
    counted = memory.count(parts.model)
    bf16 = config.precision == "bf16"
    offload = setting_of(config.deepspeed, "zero_optimization.offload_optimizer.device")
    moments = memory.moment_bytes(config)
    seen = timeline(config, parts, of.micro) if of is not None else None
    settings = stages.Settings.of(config.deepspeed)
    found: dict[str, Any] = {}
    for stage in stages.STAGES:
        moved = stage > 0 and offload not in (None, "none")
        states = memory.model_states(
            counted, stage, ranks, bf16=bf16, moments=moments, hosts=hosts, offload=moved
        )
        found[str(stage)] = {"states": states.device, "host": states.host}
        if seen is not None:
            need = stages.working(seen, stage, ranks, settings, bf16=bf16)
            kept = memory.kept(counted, stage, ranks, bf16=bf16, moments=moments, offload=moved)
            total = kept + need.peak + need.buffers
            found[str(stage)] |= vars(need) | {"kept": kept, "total": total}
    return {"parameters": vars(counted), "memory": found}


def measured_rate(config: RunConfig) -> dict[str, Any] | None:
    """Samples a second of the run in ``output``, if there is one: the median of its metrics since it
    last started, and the ranks that it had then."""
    output = output_of(config)
    try:
        lines = (output / METRICS).read_text(encoding="utf-8").splitlines()
        json.loads((output / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    rates: list[float] = []
    ranks, step = 1, 0
    for line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            continue  # the last line of a killed run
        if values.get("event") in ("started", "continued"):
            ranks, rates = int(values.get("ranks", 1)), []
        if "samples_per_s" in values:
            rates.append(float(values["samples_per_s"]))
        step = values.get("step", step)
    if not rates:
        return None
    rates = rates[1:] or rates  # the first has the start in it
    return {
        "samples_per_s": statistics.median(rates),
        "lines": len(rates),
        "ranks": ranks,
        "at_step": step,
    }


def lines(config: RunConfig, found: dict[str, Any]) -> Iterator[str]:
    """The plan for people."""
    yield f"{config.recipe} on {found['ranks']} rank{'s' if found['ranks'] > 1 else ''}"
    if of := found.get("sizes"):
        yield "\nbatch:"
        yield from Sizes(**of).table()
    if data := found.get("data"):
        rows = "" if data["rows"] is None else f", {data['rows']:,} rows"
        yield f"\ndata: digest {data['digest']}{rows}, {data['samples_an_epoch']:,} samples an epoch"
        if found.get("epochs"):
            yield f"  {found['epochs']:,.2f} epochs"
    if parameters := found.get("parameters"):
        yield f"\nparameters: {parameters['total']:,}, of which {parameters['trained']:,} train"
        yield from _memory_lines(config, found)
    yield ""
    yield _time_line(found)
    if found["refused"]:
        yield "\nwould be refused:"
        for why in found["refused"]:
            yield f"  {why}"


def _memory_lines(config: RunConfig, found: dict[str, Any]) -> Iterator[str]:
    most = max(sizes.get("total", sizes["states"]) for sizes in found["memory"].values())
    unit, name = (_GIB, "GiB") if most >= _GIB else (1 << 20, "MiB")
    yield f"\nmemory of a rank in {name} ({config.optimizer.name}, {config.precision}), a prediction:"
    heads = ("ZeRO stage", "model states", "kept", "working", "buffers", "most", "host")
    yield "  " + f"{heads[0]:<12}" + "".join(f"{head:>13}" for head in heads[1:])
    for stage, sizes in found["memory"].items():
        cells = [sizes.get(key) for key in ("states", "kept", "peak", "buffers", "total", "host")]
        row = "".join(f"{'?' if c is None else f'{c / unit:.2f}':>13}" for c in cells)
        chosen = "  <- zero=" + stage if int(stage) == config.zero else ""
        yield f"  {stage:<12}{row}{chosen}"
    yield "  model states: weights, gradients, masters, moments, as DeepSpeed's estimators count them."
    yield "  kept: what of them is there between steps. working: activations, temporaries, gradients and"
    yield "  gathered weights at the worst moment of forward and backward. buffers: DeepSpeed's"
    yield "  reduce_bucket_size. most: kept + working + buffers. What an allocator loses comes on top."


def _time_line(found: dict[str, Any]) -> str:
    rate, of = found["rate"], found.get("sizes")
    if rate is None or of is None:
        return (
            "time: not known: no run in output= has measured a rate yet; a few steps there"
            " (stopped by Ctrl-C) give one"
        )
    left = max(0, of["steps"] - rate["at_step"]) * of["batch"]
    ranks = rate["ranks"]
    other = "" if ranks == found["ranks"] else f"; it ran on {ranks} ranks, and this is not scaled"
    return (
        f"time: {duration(left / rate['samples_per_s'])} for {left:,} samples from step"
        f" {rate['at_step']:,}, at {rate['samples_per_s']:,.1f} samples/s: the median of"
        f" {rate['lines']} measurements of the run in output={found['output']}{other}"
    )
