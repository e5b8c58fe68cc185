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
from trainer.launching import devices
from trainer.launching.compilers import check_compilers
from trainer.launching.outline import outline, sizes_of
from trainer.launching.predicted import prediction
from trainer.protocols import Parts

_GIB = 1 << 30


def plan(
    config: RunConfig, ranks: int, hosts: int = 1, device: str | None = None
) -> dict[str, Any]:
    """Return all that is known of a run: JSON values. ``refused`` lists why it would not start.

    Keys: recipe, ranks, refused, and as far as they can be known sizes, epochs, data {digest, rows,
    samples_an_epoch}, rate, deepspeed, and what `trainer.launching.predicted` says. UsageError for an
    unknown device.
    """
    if device is not None:
        devices.device(device)
    found: dict[str, Any] = {"recipe": config.recipe, "ranks": ranks, "output": config.output}
    found |= {"hosts": hosts, "device": device}
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
        found |= _of_data(parts, of)
        found |= prediction(config, parts, of, ranks=ranks, hosts=hosts, device=device)
    found["rate"] = measured_rate(config) if not refused else None
    found["refused"] = refused
    return found


def _of_data(parts: Parts, of: Sizes | None) -> dict[str, Any]:
    source: Any = parts.source
    rows = len(source.dataset) if hasattr(source, "dataset") else None
    epoch = source.samples(1)
    data = {"digest": source.digest, "rows": rows, "samples_an_epoch": epoch}
    return {"data": data, "epochs": of.steps * of.batch / epoch if of and epoch else None}


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
    yield from _predicted_time(found)
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


def _predicted_time(found: dict[str, Any]) -> Iterator[str]:
    """The time of a step on a device; nothing without one."""
    of, time, name = found.get("sizes"), found.get("time"), found["device"]
    if name is None or of is None or not time:
        return
    hosts = f" on {found['hosts']} hosts" if found["hosts"] > 1 else ""
    yield f"\ntime on {found['ranks']} {name}{hosts}, a prediction:"
    rate = f"{time['samples_per_s']:,.1f} samples/s"
    if "tokens_per_s" in time:
        rate += f", {time['tokens_per_s']:,.0f} tokens/s, MFU {time['mfu']:.2f}"
    total = duration(of["steps"] * time["step"])
    yield f"  {1e3 * time['step']:,.1f} ms a step, {rate}; {total} for {of['steps']:,} steps"
    kinds = ("matmul", "attention", "memory", "communication", "exposed")
    parts = ", ".join(f"{kind} {1e3 * time[kind]:,.1f}" for kind in kinds)
    yield f"  ms: {parts} (communication that computing does not hide)."
    yield f"  Assumed, not measured: {devices.MATMUL:.0%} of the device's peak in products of matrices,"
    yield f"  {devices.ATTENTION:.0%} in attention, {devices.MEMORY:.0%} of its memory's bandwidth in other"
    yield f"  operators and {devices.LINKS:.0%} of its links'; the optimizer and the host are left out."
    least = {stage: sizes["total"] for stage, sizes in found["memory"].items()}
    if not any(size <= time["device_memory"] for size in least.values()):
        yield ""
        size = f"{time['device_memory'] / _GIB:.0f} GiB"
        yield (
            f"IT DOES NOT FIT: at each ZeRO stage a rank needs more than the {size} of one {name}. Give"
            " a smaller batch.micro=, model.gradient_checkpointing=true, or more ranks with zero=3."
        )


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
