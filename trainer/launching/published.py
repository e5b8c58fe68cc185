"""Published training runs, and what the planner says of them: `trainer plan --published`.

Their trainers are others than this one: PyTorch's FSDP in place of ZeRO-3, logits of all tokens at once, in
part compiled. So the planner is given FSDP's habits (`FSDP` below), and the error is that of its counts of
activations and of its assumed shares of the peaks. Nothing in it was fitted to these runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from trainer.launching import devices, stages
from trainer.launching.timeline import Timeline, timeline
from trainer.protocols import Parts


@dataclass(frozen=True)
class Published:
    """``memory``: bytes of a device; ``rate``: tokens a second of a device; ``recomputed``: layers with
    activation checkpointing, of every so many one (0: none); ``source``: where it is published."""

    name: str
    shape: dict[str, Any]
    device: str
    ranks: int
    hosts: int
    rows: int
    tokens: int
    memory: float
    rate: float
    recomputed: int
    source: str


_880M = {
    "hidden_size": 1536,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "vocab_size": 128_256,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
    "vocab_size": 128_256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
_MTA = "arXiv:2504.00927v2, table 9: Transformer"
_TITAN = "torchtitan, benchmarks/llama3_h100_202412_torchtitan.md, table"

PUBLISHED = (
    Published("880M", _880M, "h200", 32, 4, 4, 2048, 17.5e9, 54.3e3, 0, f"{_MTA}, compiled"),
    Published(
        "Llama 3.1 8B", _8B, "h100-hbm2e", 8, 1, 2, 8192, 82.4 * devices.GIB, 5762, 2, f"{_TITAN} 1"
    ),
    Published(
        "Llama 3.1 8B, compiled",
        _8B,
        "h100-hbm2e",
        8,
        1,
        2,
        8192,
        77.0 * devices.GIB,
        6667,
        2,
        f"{_TITAN} 1",
    ),
    Published(
        "Llama 3.1 8B",
        _8B,
        "h100-hbm2e",
        128,
        16,
        2,
        8192,
        67.0 * devices.GIB,
        5605,
        2,
        f"{_TITAN} 3",
    ),
)
"""torchtitan's runs keep some operators' results and compute others again (selective checkpointing); here
that is taken as every other layer. Their documents are not masked; neither are those of the first."""

FSDP = 4 + 4 + 8
"""Bytes that it shares out of a parameter: fp32 weight, fp32 gradient, two moments."""


def predictions() -> Iterator[dict[str, Any]]:
    """Yield what is published of each run, what the planner says, and the relative errors."""
    seen: dict[str, Timeline] = {}
    for run in PUBLISHED:
        key = f"{run.shape['hidden_size']} {run.rows} {run.tokens} {run.recomputed}"
        if key not in seen:
            seen[key] = _timeline(run)
        yield _predicted(run, seen[key])


def _predicted(run: Published, of: Timeline) -> dict[str, Any]:
    total = sum(of.elements)
    layers = int(run.shape["num_hidden_layers"])
    outside = int(run.shape["vocab_size"]) * int(run.shape["hidden_size"])
    layer = (total - outside * (1 if run.shape["tie_word_embeddings"] else 2)) // layers
    habits = stages.Settings(reduce_bucket=layer, prefetch_bucket=layer, max_reuse=0, persistent=0)
    need = stages.working(of, 3, run.ranks, habits, bf16=True)
    held = FSDP * total // run.ranks + need.peak
    on = devices.device(run.device)
    sent = devices.traffic_of_stage(total, 3, run.ranks, 2, 4, 1)
    step = devices.seconds(of.work, 1, sent, on, run.hosts)
    rate = run.rows * run.tokens / step.step
    return {
        "name": run.name,
        "device": f"{run.ranks} x {run.device}",
        "tokens": run.rows * run.tokens,
        "parameters": total,
        "memory": held,
        "memory_published": run.memory,
        "memory_error": round(held / run.memory - 1, 3),
        "tokens_per_s": round(rate),
        "tokens_per_s_published": run.rate,
        "rate_error": round(rate / run.rate - 1, 3),
        "source": run.source,
    }


def _timeline(run: Published) -> Timeline:
    import torch

    from trainer.models import decoder_model
    from trainer.objectives import language

    with torch.device("meta"):
        model: Any = decoder_model.new("llama", run.shape, 0).train()
    if run.recomputed:
        model.activation_checkpointing_enable({"use_reentrant": False})
        for layer in (n for n in range(len(model.model.layers)) if n % run.recomputed):
            model.model.layers[layer].gradient_checkpointing = False
    ids = torch.zeros((1, run.tokens), dtype=torch.int64)
    batch = {"input_ids": ids, "labels": ids, "position_ids": ids}
    settings = language.Settings(z_loss=0.0, rows=run.rows * run.tokens)
    parts: Any = Parts(
        model=model,
        source=SimpleNamespace(batch=lambda positions: batch),
        objective=language.Language(settings, model.config.vocab_size, False),
    )
    config: Any = SimpleNamespace(precision="bf16")
    return timeline(config, parts, run.rows, on_cpu=False)


def lines() -> Iterator[str]:
    """The table for people."""
    heads = f"{'predicted':>10}{'published':>10}{'error':>8}"
    yield f"{'':<42}{'GiB of a device':>28}{'tokens/s of a device':>28}"
    yield f"{'':<42}{heads}{heads}"
    for one in predictions():
        name = f"{one['name']}, {one['device']}"
        gib = one["memory"] / devices.GIB, one["memory_published"] / devices.GIB
        yield (
            f"{name:<42}{gib[0]:>10.1f}{gib[1]:>10.1f}{one['memory_error']:>+8.0%}"
            f"{one['tokens_per_s']:>10,}{one['tokens_per_s_published']:>10,.0f}{one['rate_error']:>+8.0%}"
        )
    yield "Memory: PyTorch's FSDP as planned, with logits of all tokens at once in bf16, and in fp32 and"
    yield "bf16 for their gradient (a compiled loss needs less)."
    yield f"Rate: operators run one by one, at {devices.MATMUL:.0%} of the peak in products of"
    yield f"matrices, {devices.ATTENTION:.0%} in attention, {devices.MEMORY:.0%} of the memory's bandwidth"
    yield f"and {devices.LINKS:.0%} of the links': assumed, not fitted. Published by:"
    yield from (f"  {source}" for source in dict.fromkeys(run.source for run in PUBLISHED))
