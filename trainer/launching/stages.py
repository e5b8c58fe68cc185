"""What a rank needs at each ZeRO stage beside its model states, from a `Timeline`.

DeepSpeed's habits as of 0.19, with its own settings where a recipe gives none:

* Stages 0 and 1 keep every gradient until the end of the backward pass and then add them up over ranks
  in flat copies of at most ``reduce_bucket_size`` elements (5e8).
* Stages 2 and 3 move each gradient into a buffer of that many elements, and reduce it when it is full.
* Stage 3 gathers a module's weights before it computes and up to ``stage3_prefetch_bucket_size`` elements
  of the next ones. It lets go of them unless they are needed again within
  ``stage3_max_reuse_distance`` elements: models below that stay gathered from forward to backward.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.launching.timeline import Event, Timeline

STAGES = (0, 1, 2, 3)
_FP32 = 4
_ENGINE_BUCKET = 500_000_000  # of stages 0 and 1 in bf16, whatever the settings


@dataclass(frozen=True)
class Working:
    """Bytes of a rank at the worst moment of forward and backward that are not there before it.

    ``peak``: activations, temporaries, gradients until they are reduced, gathered weights.
    ``buffers``: DeepSpeed's buffer of gradients, always whole. ``forward``: of ``peak``, what is alive
    between forward and backward.
    """

    peak: int
    buffers: int
    forward: int


@dataclass(frozen=True)
class Settings:
    """Sizes in elements, as ``zero_optimization`` of DeepSpeed's configuration names them."""

    reduce_bucket: int = 500_000_000
    prefetch_bucket: int = 50_000_000
    max_live: int = 1_000_000_000
    max_reuse: int = 1_000_000_000
    persistent: int = 100_000
    overlap: bool = False

    @classmethod
    def of(cls, resolved: Mapping[str, Any]) -> Settings:
        """Return those of a resolved configuration."""
        given = resolved.get("zero_optimization")
        given = given if isinstance(given, Mapping) else {}
        names = {
            "reduce_bucket": "reduce_bucket_size",
            "prefetch_bucket": "stage3_prefetch_bucket_size",
            "max_live": "stage3_max_live_parameters",
            "max_reuse": "stage3_max_reuse_distance",
            "persistent": "stage3_param_persistence_threshold",
        }
        numbers = {name: n for name, n in given.items() if isinstance(n, int | float)}
        found = {mine: int(numbers[of]) for mine, of in names.items() if of in numbers}
        return cls(**found, overlap=bool(given.get("overlap_comm")))


def working(of: Timeline, stage: int, ranks: int, settings: Settings, *, bf16: bool) -> Working:
    """Return what a rank needs at a ZeRO stage with so many ranks."""
    rank = _Rank(of, stage, ranks, settings, bf16)
    for event in of.events:
        rank.take(event)
    rank.end()
    return Working(rank.peak, _buffers(stage, settings, bf16), rank.forward)


def _buffers(stage: int, settings: Settings, bf16: bool) -> int:
    if stage == 3:
        return _FP32 * settings.reduce_bucket
    if stage == 2 or (stage == 1 and not bf16):
        item = 2 if bf16 else _FP32
        return item * settings.reduce_bucket * (2 if settings.overlap else 1)
    return 0


@dataclass
class _Rank:
    """Bytes alive on a rank, event by event."""

    of: Timeline
    stage: int
    ranks: int
    settings: Settings
    bf16: bool
    now: int = 0
    peak: int = 0
    forward: int = 0
    _bucket: int = 0  # elements in the buffer of gradients
    _loose: int = 0  # bytes of gradients that do not fit it
    _gathering: _Gathering | None = None

    def __post_init__(self) -> None:
        if self.stage == 3 and self.ranks > 1:
            self._gathering = _Gathering(self.of, self.settings)

    def take(self, event: Event) -> None:
        """Count an event."""
        if event.kind == "bytes":
            self._add(event.value)
        elif event.kind == "gradient":
            self._gradient(self.of.elements[event.value])
        elif event.kind == "backward":
            self.forward = self.now
        elif self._gathering is not None:
            weights = self.of.modules[event.value]
            steps = getattr(self._gathering, event.kind)(weights)
            for step in steps:
                self._add(step * self.of.item)

    def end(self) -> None:
        """Count the reduction after the backward pass."""
        elements = sum(self.of.elements)
        if self.stage == 3:
            self._reduce()
        elif self.stage == 2 or (self.stage == 1 and not self.bf16):
            self._add(_FP32 * elements // self.ranks)  # a rank's part of the sum
            self._reduce()
        elif self.stage == 1:
            self._spike(_FP32 * min(elements, _ENGINE_BUCKET))
        elif self.ranks > 1:
            copies = self.of.item + (_FP32 if self.bf16 else 0)
            self._spike(copies * min(elements, _ENGINE_BUCKET))

    def _gradient(self, elements: int) -> None:
        if self.stage < 2:
            self._add(elements * self.of.item)
            return
        if self._bucket and self._bucket + elements > self.settings.reduce_bucket:
            self._reduce()
        self._bucket += elements
        if elements > self.settings.reduce_bucket:
            self._loose += elements * self.of.item
            self._add(elements * self.of.item)

    def _reduce(self) -> None:
        """At stage 3 the buffer is put in the order of ranks, in a copy; at stage 2 it is copied, and
        once more in fp32."""
        fp32 = self.stage == 3 or not self.bf16
        self._spike((_FP32 if fp32 else self.of.item + _FP32) * self._bucket)
        self._add(-self._loose)
        self._bucket = self._loose = 0

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)

    def _spike(self, size: int) -> None:
        self.peak = max(self.peak, self.now + size)


@dataclass
class _Flight:
    """Weights gathered by one call: a flat buffer, until all of them are waited for."""

    weights: set[int]
    elements: int
    arrived: bool = False


@dataclass
class _Gathering:
    """Which weights a rank of stage 3 holds whole, when the order of modules is known from a step before.

    Both methods return changes of the elements that are held, in their order.
    """

    of: Timeline
    settings: Settings
    _order: list[tuple[int, ...]] = field(default_factory=list)
    _queue: deque[tuple[int, int]] = field(default_factory=deque)
    _step: int = 0
    _whole: set[int] = field(default_factory=set)
    _flights: dict[int, _Flight] = field(default_factory=dict)
    _used_by: dict[int, list[tuple[int, ...]]] = field(default_factory=dict)
    _last: dict[int, int] = field(default_factory=dict)
    _available: int = 0

    def __post_init__(self) -> None:
        elements = self.of.elements
        self._order = [self.of.modules[e.value] for e in self.of.events if e.kind == "enter"]
        steps = enumerate(self._order)
        self._queue = deque((w, step) for step, weights in steps for w in sorted(weights))
        self._whole = {w for w, n in enumerate(elements) if n <= self.settings.persistent}
        self._persistent = frozenset(self._whole)

    def enter(self, weights: tuple[int, ...]) -> list[int]:
        """Gather a module's weights and begin to gather what comes next."""
        changes = self._gather([w for w in weights if self._absent(w)])
        for weight in weights:
            self._used_by.setdefault(weight, []).append(weights)
            flight = self._flights.pop(weight, None)
            if flight is not None:
                changes += self._wait(flight, weight)
        fresh = {w for w in weights if self._last.get(w, -1) < self._step}
        seen: set[int] = set()
        while self._queue and len(seen) < len(fresh):
            weight, step = self._queue.popleft()
            self._last[weight] = step
            seen.add(weight)
        changes += self._prefetch()
        self._step += 1
        return changes

    def leave(self, weights: tuple[int, ...]) -> list[int]:
        """Let go of a module's weights, except of those that are needed again soon."""
        changes = []
        kept = self._soon(set(weights))
        for weight in weights:
            users = self._used_by.get(weight, [])
            if weights in users:
                users.remove(weights)
            ahead = self._last.get(weight, -1) > self._step
            here = weight in self._whole and weight not in self._flights
            if here and not users and not ahead and weight not in kept | self._persistent:
                self._whole.discard(weight)
                self._available -= self.of.elements[weight]
                changes.append(-self.of.elements[weight])
        return changes

    def _absent(self, weight: int) -> bool:
        return weight not in self._whole and weight not in self._flights

    def _gather(self, weights: list[int]) -> list[int]:
        elements = sum(self.of.elements[w] for w in weights)
        if not weights:
            return []
        self._available += elements
        if len(weights) == 1:  # needs no copy out of a flat buffer
            self._whole.update(weights)
            return [elements]
        flight = _Flight(set(weights), elements)
        self._flights.update(dict.fromkeys(weights, flight))
        return [elements]

    def _wait(self, flight: _Flight, weight: int) -> list[int]:
        changes = []
        if not flight.arrived:
            flight.arrived = True
            self._whole |= flight.weights
            changes += [self.of.elements[w] for w in flight.weights]
        flight.weights.discard(weight)
        if not flight.weights:
            changes.append(-flight.elements)
        return changes

    def _prefetch(self) -> list[int]:
        room = min(self.settings.max_live - self._available, self.settings.prefetch_bucket)
        wanted: list[int] = []
        elements = 0
        while self._queue and elements < room:
            weight, step = self._queue.popleft()
            self._last[weight] = max(self._last.get(weight, -1), step)
            if self._absent(weight) and weight not in wanted:
                wanted.append(weight)
                elements += self.of.elements[weight]
        return self._gather(wanted)

    def _soon(self, weights: set[int]) -> set[int]:
        """Which of them are used again within the distance of reuse."""
        found: set[int] = set()
        passed = 0
        for step in range(self._step, len(self._order)):
            if passed >= self.settings.max_reuse or len(found) == len(weights):
                break
            found |= weights & set(self._order[step])
            passed += sum(self.of.elements[w] for w in self._order[step])
        return found
