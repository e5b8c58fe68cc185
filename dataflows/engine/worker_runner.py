"""The in-process runner with worker processes, fed piece by piece. Imported only when it is used.

Beam's own gives each worker its whole share of a stage in one bundle. So a worker's memory grows
with the data behind a shuffle, and one whose units are done early has nothing more to do. Here a
stage's keys are cut into pieces, and each worker takes the next piece when it has ended one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from itertools import chain
from typing import Any

from apache_beam.metrics import monitoring_infos
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.fn_api_runner.execution import GroupingBuffer
from apache_beam.utils import thread_pool_executor

PIECES = 16  # for each worker: evens out unequal keys, and a bundle costs some milliseconds
PIECE_BYTES = 32 * 2**20


class WorkerRunner(fn_runner.FnApiRunner):
    """``FnApiRunner`` whose workers take pieces of a stage's input in turn."""

    def _get_bundle_manager(self, bundle_context_manager: Any) -> Any:
        usual = super()._get_bundle_manager(bundle_context_manager)
        if not isinstance(usual, fn_runner.ParallelBundleManager):
            return usual
        return _Pieces(
            bundle_context_manager,
            self._progress_frequency,
            cache_token_generator=self.get_cache_token_generator(static=False),
        )


class _Only:
    """The context of a stage, as if it had this one worker."""

    def __init__(self, context: Any, handler: Any) -> None:
        self._context = context
        self.worker_handlers = [handler]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class _Pieces(fn_runner.ParallelBundleManager):
    def process_bundle(
        self,
        inputs: Mapping[str, Any],
        expected_outputs: Any,
        fired_timers: Mapping[Any, Any],
        expected_output_timers: Any,
        dry_run: bool = False,
    ) -> Any:
        rest = (expected_outputs, fired_timers, expected_output_timers, dry_run)
        if fired_timers or expected_output_timers:
            return super().process_bundle(inputs, *rest)
        context = self.bundle_context_manager
        handlers = context.worker_handlers
        todo = deque(_cut(inputs, len(handlers)))
        failed = threading.Event()

        def work(handler: Any) -> list[Any]:
            manager = fn_runner.BundleManager(
                _Only(context, handler),
                self._progress_frequency,
                cache_token_generator=self._cache_token_generator,
            )
            results = []
            while not failed.is_set():
                try:
                    piece = todo.popleft()
                except IndexError:
                    break
                try:
                    results.append(manager.process_bundle(piece, *rest))
                except BaseException:
                    failed.set()  # the other workers end their piece and take no more
                    raise
            return results

        with thread_pool_executor.shared_unbounded_instance() as executor:
            results = list(chain.from_iterable(executor.map(work, handlers)))
        merged = beam_fn_api_pb2.InstructionResponse(
            process_bundle=beam_fn_api_pb2.ProcessBundleResponse(
                monitoring_infos=monitoring_infos.consolidate(
                    chain.from_iterable(r.process_bundle.monitoring_infos for r, _ in results)
                )
            )
        )
        return merged, [split for _, splits in results for split in splits]


def _cut(inputs: Mapping[str, Any], workers: int) -> list[dict[str, list[bytes]]]:
    """The input of each piece by transform; keys are dealt out in turn."""
    parts = {
        name: buffer.partition(_pieces(buffer, workers)) if _is_grouped(buffer) else None
        for name, buffer in inputs.items()
    }
    count = max((len(part) for part in parts.values() if part is not None), default=workers)
    full = {
        name: inputs[name].partition(count) if part is None else part
        for name, part in parts.items()
    }
    return [
        {name: part[i] if i < len(part) else [] for name, part in full.items()}
        for i in range(count)
    ]


def _is_grouped(buffer: Any) -> bool:
    return isinstance(buffer, GroupingBuffer)


def _pieces(buffer: Any, workers: int) -> int:
    """How many: a few for each worker, more when they would be large, never more than keys."""
    table = buffer._table
    size = sum(
        len(value) for values in table.values() for value in values if isinstance(value, bytes)
    )
    return max(1, min(len(table), max(PIECES * workers, size // PIECE_BYTES)))
