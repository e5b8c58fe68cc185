"""All URLs of a table: one queue a host, downloads in an event loop, decoding beside it.

The loop runs in a thread of its own, so that deadlines hold while the caller stores what it got.
Bytes are bounded: no request begins while bodies not yet handed over hold more than 256 MiB.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pyarrow as pa

from curation.fetch.client import Client
from curation.fetch.hosts import Budget
from curation.fetch.opt_out import parser
from curation.fetch.options import FetchOptions
from curation.fetch.resize import Resizing, shared_resizers
from curation.fetch.rows import Row, table_of
from curation.fetch.target import Target
from curation.fetch.verdict import Refusal
from schemas.errors import JobError, UsageError
from schemas.ids import uniform

_HELD = 256 * 2**20
_TABLE_ROWS, _TABLE_BYTES = 64, 16 * 2**20
_BATCH = 16
_SALT = 0x46455443  # "FETC"


class Downloads:
    """The network half: rows whose ``body`` is filled or whose ``reason`` says why not.

    ``async for row in downloads`` yields every row once, as it completes. :meth:`release` must be
    called with the bytes of each row that is no longer held.
    """

    def __init__(self, rows: list[Row], options: FetchOptions, share: int) -> None:
        parser()
        self._options, self._share = options, share
        self._done: asyncio.Queue[Row | JobError] = asyncio.Queue()
        self._room = asyncio.Condition()
        self._held, self._left = 0, len(rows)
        self._queues: dict[str, deque[tuple[Row, Target, float]]] = {}
        ids = pa.array([row.image_id for row in rows], pa.binary(16))
        for row, jitter in zip(rows, uniform(0, 0, ids, _SALT), strict=True):
            try:
                target = Target.of(row.url)
            except Refusal as error:
                self._refuse(row, error)
                self._done.put_nowait(row)
            else:
                self._queues.setdefault(target.host, deque()).append((row, target, float(jitter)))

    async def __aiter__(self) -> AsyncIterator[Row]:
        client = Client(self._options, self._share, frozenset(self._queues))
        connections = max(1, self._options.connections // self._share)
        tasks = [
            asyncio.create_task(self._host(client, queue))
            for queue in self._queues.values()
            for _ in range(min(connections, len(queue)))
        ]
        for task in tasks:
            task.add_done_callback(self._ended)
        try:
            for _ in range(self._left):
                row = await self._done.get()
                if isinstance(row, JobError):
                    raise row
                yield row
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await client.close()

    async def _host(self, client: Client, queue: deque[tuple[Row, Target, float]]) -> None:
        while queue:
            row, target, jitter = queue.popleft()
            async with self._room:
                await self._room.wait_for(lambda: self._held <= _HELD)
            budget = Budget(self._options.deadline)
            blamed = target.host
            try:
                row.body = await client.image(target, budget, jitter)
                row.http_status = 200
                row.sha256 = hashlib.sha256(row.body).digest()
                self._held += len(row.body)
            except Refusal as error:
                self._refuse(row, error)
                blamed = error.host or blamed
            except Exception as error:  # one row is lost, not the unit
                self._refuse(row, Refusal("step_failed", f"{type(error).__name__}: {error}"))
            row.attempts, row.seconds = budget.tries, budget.used
            client.host(blamed).ended(row.reason, row.error)
            if blamed != target.host:  # it answered, and sent us on
                client.host(target.host).ended("", None)
            self._done.put_nowait(row)

    def _ended(self, task: asyncio.Task) -> None:
        """Whoever waits for rows would wait for ever for those of a task that broke off."""
        error = "cancelled" if task.cancelled() else task.exception()
        if error is not None:
            self._done.put_nowait(JobError(f"fetching the URLs of a host broke off: {error}"))

    async def release(self, size: int) -> None:
        """So many bytes are held no longer."""
        self._held -= size
        async with self._room:
            self._room.notify_all()

    @staticmethod
    def _refuse(row: Row, error: Refusal) -> None:
        row.reason, row.error, row.http_status = error.reason, error.error, error.status


class _Run:
    """The loop's thread and what it has ready for the caller."""

    def __init__(self, rows: list[Row], options: FetchOptions, share: int) -> None:
        self._rows, self._options, self._share = rows, options, share
        self._changed = threading.Condition()
        self._tables: deque[tuple[pa.Table, int]] = deque()
        self._failure: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._threads = ThreadPoolExecutor(options.decoders, thread_name_prefix="decode")
        self._thread = threading.Thread(target=self._work, name="fetch", daemon=True)
        self._main: asyncio.Task | None = None
        self._ended = False

    def tables(self) -> Iterator[pa.Table]:
        """Tables as they are ready; ends the thread when done, left early or failed."""
        self._thread.start()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._tables or self._ended)
                    if not self._tables:
                        break
                    table, size = self._tables.popleft()
                yield table
                del table
                with suppress(RuntimeError):  # the loop may have ended by now
                    self._loop.call_soon_threadsafe(self._released, size)
        finally:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._cancel)
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _released(self, size: int) -> None:
        self._releasing = asyncio.ensure_future(self._downloads.release(size))

    def _cancel(self) -> None:
        if self._main is not None:
            self._main.cancel()

    def _work(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._all())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            while isinstance(error, BaseExceptionGroup):  # what is to be said is in it
                error = error.exceptions[0]
            self._failure = error
        finally:
            self._threads.shutdown(wait=True, cancel_futures=True)
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    async def _all(self) -> None:
        self._main = asyncio.current_task()
        self._downloads = Downloads(self._rows, self._options, self._share)
        self._ready: asyncio.Queue[Row | None] = asyncio.Queue()
        self._finished: list[Row] = []
        self._size = 0
        async with asyncio.TaskGroup() as group:
            for resizer in shared_resizers(self._options):
                group.create_task(self._decode(resizer))
            async for row in self._downloads:
                if row.reason:
                    self._finish(row)
                else:
                    self._ready.put_nowait(row)
            for _ in range(self._options.decoders):
                self._ready.put_nowait(None)
        self._hand_over()

    async def _decode(self, resizer: Resizing) -> None:
        while True:
            batch = [await self._ready.get()]
            while batch[-1] is not None and len(batch) < _BATCH and not self._ready.empty():
                batch.append(self._ready.get_nowait())
            rows = [row for row in batch if row is not None]
            if rows:
                bodies = [bytes(row.body) for row in rows]
                seen = await self._loop.run_in_executor(self._threads, resizer.check, bodies)
                for i, row in enumerate(rows):
                    row.reason, row.error = seen.reason[i] or "", seen.error[i]
                    if not row.reason:
                        row.image = seen.image[i] or bodies[i]
                        row.phash = int(seen.phash[i])
                        row.width, row.height = int(seen.width[i]), int(seen.height[i])
                        row.original_width = int(seen.original_width[i])
                        row.original_height = int(seen.original_height[i])
                    self._finish(row)
            if batch[-1] is None:
                return

    def _finish(self, row: Row) -> None:
        self._finished.append(row)
        # By what came, too: it is held until then, and only so much may be (a large photograph
        # becomes a small picture, so rows and pictures alone would let nothing more in).
        self._size += max(len(row.body), len(row.image or b""))
        if len(self._finished) >= _TABLE_ROWS or self._size > _TABLE_BYTES:
            self._hand_over()

    def _hand_over(self) -> None:
        if not self._finished:
            return
        # What is held is counted by what came; it is let go when the caller asks for more.
        size = sum(len(row.body) for row in self._finished)
        table = table_of(self._finished)
        self._finished, self._size = [], 0
        with self._changed:
            self._tables.append((table, size))
            self._changed.notify_all()


def run(rows: pa.Table, options: FetchOptions, share: int) -> Iterator[pa.Table]:
    """See :func:`curation.fetch.fetch`."""
    missing = {"image_id", "url"} - set(rows.column_names)
    if missing:
        raise UsageError(f"a table to fetch lacks the columns {', '.join(sorted(missing))}")
    if share < 1:
        raise UsageError(f"share={share}: a host is split into at least 1 part")
    ids, urls = rows["image_id"].to_pylist(), rows["url"].to_pylist()
    return _Run([Row(i, url) for i, url in zip(ids, urls, strict=True)], options, share).tables()
