"""Looking at untrusted images: each is decoded in a child process, so that a bad one costs one row.

What is checked: size in bytes, pixels (a decompression bomb is refused from its header), format
by content, a full decode, time and memory. What is returned: the reason of a refusal, SHA-256 of
the bytes, width, height, format and a perceptual hash. The bytes themselves are never changed.

The perceptual hash (:data:`PHASH`) is pHash: the picture as a viewer shows it (EXIF orientation,
transparent parts on white) in 32 x 32 grey levels, its integer DCT-II, the 8 x 8 lowest
frequencies against their median, 64 bits. Scaled or re-compressed copies differ in few bits.

Not covered: this is no sandbox. The child has no limits besides memory, file size and time, and
relies on Pillow to keep control of itself; SVG and other documents are refused as not an image.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
import pyarrow as pa

from curation import image_child
from curation.image_child import ANSWER, FORMATS, READY
from schemas.errors import JobError, UsageError

PHASH = "phash-64-dct32"
CHILD = "curation.image_child"
_REASONS = {
    image_child.NOT_AN_IMAGE: "not_an_image",
    image_child.TOO_LARGE: "image_too_large",
}
_BATCH_BYTES, _BATCH_IMAGES = 16 * 2**20, 128
_START_SECONDS = 120.0


@dataclass(frozen=True)
class ImageLimits:
    """Bounds of one image: bytes, pixels, seconds to decode, bytes of memory of the decoder."""

    max_bytes: int = 64 * 2**20
    max_pixels: int = 89_478_485  # Pillow's own default: 256 MB of RGB
    seconds: float = 30.0
    memory: int = 3 * 2**30

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "seconds", "memory"):
            if getattr(self, name) <= 0:
                raise UsageError(f"image limit {name} is {getattr(self, name)}; it must be above 0")


@dataclass
class Checked:
    """What was seen of n images; ``reason`` is None for those that decoded and for null."""

    reason: list[str | None]
    error: list[str | None]
    sha256: list[bytes | None]
    phash: np.ndarray  # uint64[n]
    width: np.ndarray  # int32[n]
    height: np.ndarray  # int32[n]
    format: list[str]

    @classmethod
    def empty(cls, n: int) -> Checked:
        """n images of which nothing is known yet."""
        zeros = np.zeros(n, dtype=np.int32)
        return cls(
            [None] * n,
            [None] * n,
            [None] * n,
            np.zeros(n, np.uint64),
            zeros,
            zeros.copy(),
            [""] * n,
        )


class _Crashed(Exception):
    """The child died or went silent; ``answered`` images of the batch had their answer."""


@dataclass
class _Child:
    """One decoder process; started on first use, replaced when it dies."""

    limits: ImageLimits
    module: str | None = None
    words: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    pending: bytearray = field(default_factory=bytearray)

    def _start(self) -> subprocess.Popen[bytes]:
        if self.process is not None and self.process.poll() is None:
            return self.process
        self.stop()
        limits = self.limits
        path = os.pathsep.join(p for p in sys.path if p)
        command = [sys.executable, "-m", self.module or CHILD]
        self.process = subprocess.Popen(
            [*command, str(limits.max_pixels), str(limits.memory), *self.words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={
                "PATH": os.environ.get("PATH", ""),
                "PYTHONPATH": path,
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            },
        )
        try:
            hello = self._take(len(READY), _START_SECONDS)
        except _Crashed as error:
            hello = str(error).encode()
        if hello != READY:
            self.stop()
            raise JobError(
                "the image decoder process did not start "
                f"({' '.join(command)}): check that Pillow and NumPy can be imported there"
            )
        return self.process

    def stop(self) -> None:
        process, self.process = self.process, None
        self.pending.clear()
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _take(self, size: int, seconds: float) -> bytes:
        assert self.process is not None
        assert self.process.stdout is not None
        stream = self.process.stdout.fileno()
        answered = select.poll()  # select() takes no descriptor above 1,023
        answered.register(stream, select.POLLIN)
        deadline = time.monotonic() + seconds
        while len(self.pending) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not answered.poll(left * 1000):
                raise _Crashed(f"the decoder gave no answer within {seconds:g} s")
            data = os.read(stream, 1 << 16)
            if not data:
                code = self.process.wait()
                raise _Crashed(f"the decoder process ended with status {code}")
            self.pending += data
        taken = bytes(self.pending[:size])
        del self.pending[:size]
        return taken

    def ask(self, images: Sequence[bytes]) -> tuple[list[tuple[tuple, bytes]], str | None]:
        """Answers to the images up to the one that broke the child, and how it broke, if it did."""
        answers: list[tuple[tuple, bytes]] = []
        process = self._start()
        assert process.stdin is not None
        lengths = [len(data) for data in images]
        try:
            with contextlib.suppress(BrokenPipeError):  # a dead child is seen when reading
                stream = process.stdin
                for part in (struct.pack(f"<{len(images) + 1}I", len(images), *lengths), *images):
                    view = memoryview(part)
                    while view:
                        view = view[stream.write(view) or 0 :]
            for _ in images:
                values = ANSWER.unpack(self._take(ANSWER.size, self.limits.seconds))
                answers.append((values, self._take(values[-1], 5.0)))
        except _Crashed as error:
            self.stop()
            return answers, str(error)
        return answers, None


class Decoder:
    """A pool of ``workers`` decoder processes. Results do not depend on their number.

    ``child``, ``words`` and ``seen`` are for those that do more with an image: the module run,
    its arguments after the limits, and what is returned.
    """

    child: str | None = None
    words: tuple[str, ...] = ()
    seen: type[Checked] = Checked

    def __init__(self, limits: ImageLimits | None = None, workers: int = 1) -> None:
        if workers < 1:
            raise UsageError(f"{workers} image decoders asked for; at least 1 is needed")
        self.limits = limits or ImageLimits()
        self._children = [_Child(self.limits, self.child, self.words) for _ in range(workers)]
        self._threads = ThreadPoolExecutor(workers) if workers > 1 else None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes. The decoder can be used again: they start anew."""
        for child in self._children:
            with child.lock:
                child.stop()

    def check(self, images: pa.Array | Sequence[bytes | None]) -> Checked:
        """Decode each image (binary array or list; null is passed over) and say what was seen."""
        data = images.to_pylist() if isinstance(images, pa.Array) else list(images)
        result = self.seen.empty(len(data))
        todo = []
        for i, image in enumerate(data):
            if image is None:
                continue
            if len(image) == 0:
                result.reason[i], result.error[i] = "not_an_image", "no bytes"
            elif len(image) > self.limits.max_bytes:
                result.reason[i] = "image_too_large"
                result.error[i] = f"{len(image)} bytes, limit {self.limits.max_bytes}"
            else:
                todo.append(i)
        batches = _batches(todo, data)
        if self._threads is None:
            for batch in batches:
                self._check_batch(self._children[0], batch, data, result)
        else:
            jobs = [
                self._threads.submit(self._check_batch, child, batch, data, result)
                for batch, child in zip(batches, cycle(self._children), strict=False)
            ]
            for job in jobs:
                job.result()
        return result

    def _check_batch(
        self, child: _Child, rows: list[int], data: Sequence[bytes | None], result: Checked
    ) -> None:
        suspect = -1
        with child.lock:
            while rows:
                # After a crash the image at fault goes alone: a decoder killed from outside, or
                # brought down by an earlier image, then costs nothing.
                now = rows[:1] if rows[0] == suspect else rows
                answers, fault = child.ask([data[i] or b"" for i in now])
                for i, (values, rest) in zip(now, answers, strict=False):
                    self._fill(result, i, values, rest)
                rows = rows[len(answers) :]
                if fault is None:
                    continue
                if rows[0] == suspect:
                    result.reason[suspect], result.error[suspect] = "image_crashed_decoder", fault
                    rows = rows[1:]
                else:
                    suspect = rows[0]

    @staticmethod
    def _fill(result: Checked, i: int, values: tuple, rest: bytes) -> None:
        status, kind, width, height, phash, sha, _ = values
        result.width[i] = min(width, 2**31 - 1)
        result.height[i] = min(height, 2**31 - 1)
        result.format[i] = FORMATS[kind]
        result.sha256[i] = sha
        if status == image_child.OK:
            result.phash[i] = phash
        else:
            result.reason[i], result.error[i] = _REASONS[status], rest.decode("utf-8", "replace")


def _batches(rows: list[int], data: Sequence[bytes | None]) -> list[list[int]]:
    batches: list[list[int]] = []
    room = 0
    for i in rows:
        size = len(data[i] or b"")
        if not batches or size > room or len(batches[-1]) == _BATCH_IMAGES:
            batches.append([])
            room = _BATCH_BYTES
        batches[-1].append(i)
        room -= size
    return batches


_shared: dict[tuple[ImageLimits, int, int], Decoder] = {}
_shared_lock = threading.Lock()


def shared_decoder(limits: ImageLimits, workers: int = 1) -> Decoder:
    """This process's decoder for ``limits``: started once, not once a table."""
    with _shared_lock:
        # Keyed by process too: after a fork the parent's pipes are not ours to use.
        key = (limits, workers, os.getpid())
        if key not in _shared:
            _shared[key] = decoder = Decoder(limits, workers)
            atexit.register(decoder.close)
        return _shared[key]
