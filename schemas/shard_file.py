"""The file behind a shard: hashed, written and made durable beside the thread that encodes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from schemas.errors import IntegrityError, StorageError
from schemas.storage import Storage
from schemas.storage_local import LocalBackend, translated

_QUEUED = 16
_LARGE = 1 << 18


class ShardFile(io.RawIOBase):
    """A write-only file whose bytes are hashed (SHA-256) and written by a thread of its own.

    Encoding and compressing take most of the time; hashing, the disk and the final fsync (or
    the upload) run beside them, with at most about 8 MB queued. Errors of the thread are raised
    by the next ``write``, or by ``result``.
    """

    def __init__(self, path: Path) -> None:
        """Create the local file ``path``."""
        super().__init__()
        self.path = path
        self._position = 0
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._queue: queue.Queue[list[bytes] | Storage | None] = queue.Queue(_QUEUED)
        self._error: BaseException | None = None
        self._result: tuple[str, int, str] | None = None
        self._disk = LocalBackend()
        with translated("create", path):
            self._file = open(path, "xb", buffering=0)  # noqa: SIM115 (closed by the thread)
        self._thread = threading.Thread(target=self._work, name="shard-file", daemon=True)
        self._thread.start()

    def writable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the bytes taken so far."""
        return self._position

    def write(self, data: Any) -> int:
        """Take bytes; raise what went wrong with earlier ones."""
        if self._error is not None:
            raise self._error
        block = data if isinstance(data, bytes) else bytes(data)
        self._position += len(block)
        if len(block) >= _LARGE and self._buffer:
            self._send()
        self._buffer.append(block)
        self._buffered += len(block)
        if self._buffered >= _LARGE:
            self._send()
        return len(block)

    def finish(self, storage: Storage) -> None:
        """Start making the file durable as ``data/<digest>.parquet`` of a dataset."""
        self._send()
        self._queue.put(storage)

    def result(self) -> tuple[str, int, str]:
        """Wait for ``finish``; return key, bytes and digest, or raise what went wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def discard(self) -> None:
        """Stop and delete the local file."""
        if self._error is None:
            self._error = StorageError(f"writing {self.path} was aborted")
        self._queue.put(None)
        self._thread.join()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _send(self) -> None:
        blocks, self._buffer, self._buffered = self._buffer, [], 0
        self._queue.put(blocks)

    def _work(self) -> None:
        """Serve the queue until its end; after an error only empty it, so that nobody blocks."""
        digest = hashlib.sha256()
        with ThreadPoolExecutor(1) as hasher, contextlib.closing(self._file):
            while (item := self._queue.get()) is not None:
                try:
                    if self._error is not None:
                        pass
                    elif isinstance(item, Storage):
                        self._store(item, digest.hexdigest())
                    else:
                        self._append(item, digest, hasher)
                except BaseException as error:
                    self._error = error
                if isinstance(item, Storage):
                    return

    def _append(self, item: list[bytes], digest: Any, hasher: ThreadPoolExecutor) -> None:
        block = item[0] if len(item) == 1 else b"".join(item)
        hashed = hasher.submit(digest.update, block)
        with translated("write", self.path):
            self._disk.do_write(self._file, block, str(self.path))
        hashed.result()

    def _store(self, storage: Storage, digest: str) -> None:
        key = f"data/{digest}.parquet"
        if not storage.create_from_file(key, self.path, consume=True):
            try:
                found = storage.size(key)
            except FileNotFoundError:
                # The clean-up of a commit took it: ours will meet that head, and say so.
                found = self._position
            if found != self._position:
                raise IntegrityError(
                    f"{storage.path(key)} exists with {found} bytes, but its name belongs to a "
                    f"file of {self._position} bytes; delete it and run the command again"
                )
        self._result = (key, self._position, digest)
