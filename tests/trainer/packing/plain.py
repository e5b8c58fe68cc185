"""Sequences as a reader of the whole corpus would make them, in plain Python: no index, no arrays."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.dataset import Dataset

IGNORED = -100


@dataclass(frozen=True)
class Sequence:
    """A sequence of T tokens as four lists."""

    input_ids: list[int]
    labels: list[int]
    position_ids: list[int]
    segments: list[int]


def corpus(dataset: Dataset, width: int = 4) -> list[tuple[str, list[int]]]:
    """(split, tokens) of every document, read by other means than the source's."""
    rows = [
        r for shard in range(len(dataset.shards())) for r in dataset.read_shard(shard).to_pylist()
    ]
    return [
        (
            row["split"],
            [
                int.from_bytes(row["tokens"][i : i + width], "little")
                for i in range(0, len(row["tokens"]), width)
            ],
        )
        for row in rows
    ]


def sequence(parts: list[list[int]], after: int | None, length: int, mask: bool) -> Sequence:
    """The lists of a sequence of parts of documents; ``after``: the token that follows the last, if the
    document goes on or, in a stream without a mask, another one begins."""
    tokens = [t for part in parts for t in part]
    labels = [*tokens[1:], IGNORED if after is None else after]
    positions = list(range(len(tokens)))
    segments = [0] * len(tokens)
    if mask:
        end = 0
        for part in parts[:-1]:
            end += len(part)
            labels[end - 1] = IGNORED
        positions = [i for part in parts for i in range(len(part))]
        segments = [s for s, part in enumerate(parts) for _ in part]
    missing = length - len(tokens)
    return Sequence(
        tokens + [0] * missing,
        labels + [IGNORED] * missing,
        positions,
        segments + [-1] * missing,
    )


def concatenated(documents: list[list[int]], length: int, mask: bool) -> list[Sequence]:
    """The sequences of a stream of documents in the order given."""
    stream = [(doc, token) for doc, tokens in enumerate(documents) for token in tokens]
    found = []
    for start in range(0, len(stream) - length, length):
        parts: list[list[int]] = []
        last = -1
        for doc, token in stream[start : start + length]:
            if doc != last:
                parts.append([])
            parts[-1].append(token)
            last = doc
        doc, token = stream[start + length]
        after = token if doc == last or not mask else None
        found.append(sequence(parts, after, length, mask))
    return found
