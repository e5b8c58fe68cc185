"""Small JPEGs of untrusted images, decoded and encoded anew in a child process."""

from __future__ import annotations

import base64
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from curation.page.thumbnail_child import ANSWER

SIDE = 232
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 64_000_000
MEMORY = 2 * 2**30
SECONDS = 20.0


@dataclass(frozen=True)
class Thumbnail:
    """A `data:` URI and its size in pixels, or, with an empty URI, why there is none."""

    uri: str
    width: int
    height: int
    note: str = ""


def thumbnails(images: Sequence[bytes | None], side: int = SIDE) -> list[Thumbnail]:
    """One thumbnail an image, at most ``side`` pixels wide and high.

    Cost: 0.3 s to start the child, some 5 ms an image of 200 kB.
    """
    found: dict[int, Thumbnail] = {}
    todo: list[int] = []
    for i, data in enumerate(images):
        if not data:
            found[i] = Thumbnail("", 0, 0, "no picture in this dataset")
        elif len(data) > MAX_BYTES:
            found[i] = Thumbnail("", 0, 0, f"picture of {len(data):,} bytes, too large to show")
        else:
            todo.append(i)
    while todo:
        answers = _ask([images[i] or b"" for i in todo], side)
        for i, answer in zip(todo, answers, strict=False):
            found[i] = answer
        todo = todo[len(answers) :]
        if todo:  # the first without an answer ended the child; the others are asked again
            found[todo[0]] = Thumbnail("", 0, 0, "decoding this picture ended the decoder")
            todo = todo[1:]
    return [found[i] for i in range(len(images))]


def _ask(images: Sequence[bytes], side: int) -> list[Thumbnail]:
    """Answers up to the image that ended the child or took too long."""
    request = b"".join(struct.pack("<I", len(data)) + data for data in images)
    command = [sys.executable, "-m", "curation.page.thumbnail_child"]
    numbers = [str(side), str(MAX_PIXELS), str(MEMORY)]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
    }
    try:
        output = subprocess.run(
            [*command, *numbers],
            input=request,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=SECONDS + len(images),
            check=False,
        ).stdout
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
    return _answers(output)


def _answers(output: bytes) -> list[Thumbnail]:
    answers: list[Thumbnail] = []
    position = 0
    while position + ANSWER.size <= len(output):
        width, height, length = ANSWER.unpack_from(output, position)
        body = output[position + ANSWER.size : position + ANSWER.size + length]
        if len(body) < length:
            break
        position += ANSWER.size + length
        if width:
            uri = "data:image/jpeg;base64," + base64.b64encode(body).decode("ascii")
            answers.append(Thumbnail(uri, width, height))
        else:
            answers.append(Thumbnail("", 0, 0, "this picture cannot be decoded"))
    return answers
