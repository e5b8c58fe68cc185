"""Accelerators as their makers describe them, and what a step takes on them: a prediction.

Peaks are dense bf16 operations of the tensor cores (data sheets give twice that, with sparsity). Sources:
NVIDIA's data sheets of A100 (nvidia-a100-datasheet-us 2021), H100 (tensor-core-gpu-datasheet 2023), H200
(hpc-datasheet-sc23-h200) and DGX B200, AMD's of the Instinct MI300X; ``h100-hbm2e`` is the one of the Grand
Teton hosts that torchtitan measures on (its benchmarks/llama3_h100_202412_torchtitan.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.command_line import suggest
from schemas.errors import UsageError

GIB = 1 << 30


@dataclass(frozen=True)
class Device:
    """``peak``: bf16 operations a second; ``memory``: bytes; ``bandwidth``: of that memory, bytes a
    second; ``link``: bytes a second to the other devices of a host, in one direction."""

    peak: float
    memory: int
    bandwidth: float
    link: float


DEVICES: Mapping[str, Device] = {
    "a100-40gb": Device(312e12, 40 * 10**9, 1.555e12, 300e9),
    "a100": Device(312e12, 80 * 10**9, 2.039e12, 300e9),
    "h100-pcie": Device(756e12, 80 * 10**9, 2.0e12, 64e9),
    "h100": Device(989.4e12, 80 * 10**9, 3.35e12, 450e9),
    "h100-hbm2e": Device(989.4e12, 96 * 10**9, 2.4e12, 450e9),
    "h200": Device(989.4e12, 141 * 10**9, 4.8e12, 450e9),
    "b200": Device(2250e12, 180 * 10**9, 8.0e12, 900e9),
    "mi300x": Device(1307.4e12, 192 * 10**9, 5.3e12, 448e9),
}

NETWORK = 50e9
"""Bytes a second of a device to other hosts: 400 Gbit/s each, as on the hosts of the published runs."""

MATMUL, ATTENTION, MEMORY, LINKS = 0.7, 0.5, 0.8, 0.8
"""Assumed shares of the peaks: what large products of matrices, fused attention, operators that only move
memory, and collectives commonly reach. Chosen before any prediction was compared; fitted to nothing."""

_NAMES = (
    ("B200", "b200"),
    ("H200", "h200"),
    ("H100 PCIe", "h100-pcie"),
    ("H100", "h100"),
    ("A100-SXM4-40GB", "a100-40gb"),
    ("A100-PCIE-40GB", "a100-40gb"),
    ("A100", "a100"),
    ("MI300X", "mi300x"),
)


def device(name: str) -> Device:
    """Return a device by its name here; UsageError for another."""
    if name not in DEVICES:
        raise UsageError(
            f"--device {name}: unknown.{suggest(name, DEVICES)} There are {', '.join(DEVICES)}"
        )
    return DEVICES[name]


def recognised(full: str) -> str | None:
    """Return the name here of what a driver calls ``NVIDIA H100 80GB HBM3``; None if it is not known."""
    return next((name for part, name in _NAMES if part in full), None)


@dataclass(frozen=True)
class Work:
    """Of a micro-batch on a rank: operations in products of matrices and in attention, all that are made,
    and bytes that the other operators read and write."""

    matmul: int
    attention: int
    traffic: int


@dataclass(frozen=True)
class Seconds:
    """A step on a rank. ``exposed``: of the communication, what computing does not hide."""

    matmul: float
    attention: float
    memory: float
    communication: float
    exposed: float

    @property
    def step(self) -> float:
        """All of it."""
        return self.matmul + self.attention + self.memory + self.exposed


def traffic_of_stage(
    parameters: int, stage: int, ranks: int, item: int, gradient: int, micro_batches: int
) -> float:
    """Return the bytes that a rank sends in a step: the ring's (n - 1) / n of each collective.

    Stages 0 to 2: an all-reduce of the gradients (twice their bytes; from stage 1 on, its second half are
    the new weights). Stage 2 reduces, and stage 3 gathers the weights twice and reduces, in every
    micro-batch. ``item``, ``gradient``: bytes of an element of a weight and of a gradient on the way.
    """
    if ranks == 1:
        return 0.0
    part = parameters * (ranks - 1) / ranks
    if stage == 3:
        return part * micro_batches * (2 * item + gradient)
    if stage == 2:
        return part * (micro_batches * gradient + item)
    return part * (gradient + (item if stage else gradient))


def seconds(work: Work, micro_batches: int, sent: float, on: Device, hosts: int) -> Seconds:
    """Return the time of a step, from the shares of the peaks above.

    Communication is hidden behind computing as far as that lasts; a step of the optimizer, the host and
    waiting for others are left out.
    """
    link = NETWORK if hosts > 1 else on.link
    parts = (
        micro_batches * work.matmul / (MATMUL * on.peak),
        micro_batches * work.attention / (ATTENTION * on.peak),
        micro_batches * work.traffic / (MEMORY * on.bandwidth),
    )
    communication = sent / (LINKS * link)
    return Seconds(*parts, communication, max(0.0, communication - sum(parts)))
