"""Best-fit packing: few documents are cut, and sequences are padded (arXiv:2404.10830, section 3).

Documents longer than T are cut into chunks of T tokens and a rest, and the pieces are packed into
sequences of T by best-fit decreasing: the longest piece first, each into the sequence with the least
room that it fits. That is done once for each window of ``window`` row groups, in an order drawn from
the seed, and kept on disk: four bytes a piece and a sequence. Epochs have the same sequences in another
order: windows are permuted, and sequences in theirs.

Each token is an input once an epoch. The last token of a chunk that the document continues after has
the next token as its label, so a cut loses none.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.order import permutation
from trainer.packing import cache
from trainer.packing.lengths import FORMAT, Lengths, Numbers
from trainer.packing.parts import Parts, Recent, following, ranges, windows_of


def pack(lengths: Numbers, room: int) -> Numbers:
    """Return the sequence of each piece, int64[p] from 0 on, by best-fit decreasing.

    ``lengths``: int64[p], 1 to ``room``. Pieces of one length are placed together, into all sequences of
    one room at a time: the same packing as one by one, since the sequence that is the best fit stays
    it until the length no longer fits.
    """
    order = np.argsort(-lengths, kind="stable")
    found = np.empty(len(lengths), np.int64)
    sizes, begins = np.unique(-lengths[order], return_index=True)
    open_: dict[int, list[int]] = {}  # sequences by the room they have left
    rooms: list[int] = []  # the keys, ascending
    made = 0

    def put(left: int, sequences: list[int]) -> None:
        if left in open_:
            open_[left] += sequences
        elif left:
            open_[left] = sequences
            insort(rooms, left)

    ends = [*begins[1:].tolist(), len(lengths)]
    for size, begin, end in zip((-sizes).tolist(), begins.tolist(), ends, strict=True):
        placed: list[int] = []
        todo = end - begin
        while todo:
            at = bisect_left(rooms, size)
            if at < len(rooms):
                left = rooms[at]
                here = open_[left]
            else:
                left, needed = room, -(-todo // (room // size))
                here = list(range(made, made + needed))
                made += needed
            fit = left // size
            whole, rest = min(len(here), todo // fit), 0
            if whole < len(here):
                rest = todo - whole * fit  # less than fit: one more sequence takes them
            full, partly, others = (
                here[:whole],
                here[whole : whole + (rest > 0)],
                here[whole + (rest > 0) :],
            )
            if at < len(rooms):
                if others:
                    open_[left] = others
                else:
                    del open_[left], rooms[at]
            for some, count in ((full, fit), (partly, rest)):
                if some:
                    placed += some if count == 1 else [s for s in some for _ in range(count)]
                    todo -= count * len(some)
                    put(left - count * size, list(some))
        found[order[begin:end]] = placed
    return found


@dataclass(frozen=True)
class _Pieces:
    """Pieces of a window, in the order of their documents: int64[p] each."""

    group: Numbers
    row: Numbers
    start: Numbers
    offset: Numbers
    length: Numbers
    ends: npt.NDArray[np.bool_]
    """Whether the document ends with the piece."""

    @classmethod
    def of(cls, lengths: Lengths, groups: Numbers, code: int, room: int) -> _Pieces:
        docs = lengths.of_groups(groups, code)
        chunk, doc = ranges(np.zeros_like(docs.length), -(-docs.length // room))
        start = chunk * room
        rest = docs.length[doc] - start
        length = np.minimum(rest, room)
        return cls(
            docs.group[doc], docs.row[doc], start, docs.offset[doc] + start, length, rest <= room
        )


@dataclass(frozen=True)
class _Window:
    """Pieces of a window sequence by sequence; ``ends``: int64[s + 1], the pieces before each."""

    pieces: _Pieces
    order: Numbers
    ends: Numbers


class BestFit:
    """See the module; a `Packing`. One thread at a time."""

    unused = 0

    def __init__(
        self, lengths: Lengths, code: int, digest: str, seed: int, length: int, window: int
    ) -> None:
        """``code``: number of the split; ``digest``: of the dataset; ``length``: T.

        Packs all documents if that was not done before: half a microsecond each. StorageError for
        the cache.
        """
        self.lengths = lengths
        self.code = code
        self.length = length
        self.window = window
        self._name = digest
        self._seed = seed
        groups = np.flatnonzero(lengths.tokens[:, code])
        self._permuted = groups[permutation(digest, seed, 0, "packed groups", 0, len(groups))]
        facts = {
            "format": FORMAT,
            "dataset": digest,
            "split": lengths.splits[code],
            "length": length,
            "seed": seed,
            "window": window,
        }
        folder = cache.built("best-fit", facts, self._build)
        counts = np.array(json.loads((folder / "windows.json").read_text("utf-8")), np.int64)
        self._pieces_before, self._before = np.concatenate([[[0, 0]], np.cumsum(counts, axis=0)]).T
        self._order = np.memmap(folder / "order.u32", "<u4", "r")
        self._ends = np.memmap(folder / "ends.u32", "<u4", "r")
        self.sequences = int(self._before[-1])
        self.padding = self.sequences * length - int(lengths.tokens[:, code].sum())
        self._epochs: Recent[tuple[Numbers, Numbers]] = Recent()
        self._windows: Recent[_Window] = Recent()
        self._permutations: Recent[Numbers] = Recent()

    def parts(self, epoch: int, sequences: Numbers) -> Parts:
        """Return the parts of sequences: T tokens at most, and one more of a document that goes on."""
        order, starts = self._windows_in(epoch)
        found = []
        for at, which in windows_of(sequences, sequences + 1, starts):
            number = int(order[at])
            window, inside = self._window(number), self._inside(epoch, number)
            packed = inside[sequences[which] - starts[at]]
            place, owner = ranges(window.ends[packed], window.ends[packed + 1])
            piece, pieces = window.order[place], window.pieces
            found.append(
                Parts(
                    which[owner],
                    pieces.group[piece],
                    pieces.row[piece],
                    pieces.start[piece],
                    pieces.offset[piece],
                    pieces.length[piece] + ~pieces.ends[piece],
                )
            )
        return Parts.joined(found)

    def following(self, epoch: int, sequence: int) -> tuple[int, int] | None:
        """Return epoch and window that come next, if a sequence is far enough in its own."""
        return following(epoch, sequence, self._windows_in(epoch)[1])

    def row_groups(self, epoch: int, window: int) -> Numbers:
        """Return the row groups of a window."""
        return self._packed_groups(int(self._windows_in(epoch)[0][window]))

    def _windows_in(self, epoch: int) -> tuple[Numbers, Numbers]:
        """Windows of an epoch in order, and the sequences before each."""
        return self._epochs.get_or((epoch, 0), lambda: self._order_of(epoch))

    def _order_of(self, epoch: int) -> tuple[Numbers, Numbers]:
        sizes = np.diff(self._before)
        order = permutation(self._name, self._seed, epoch, "packed windows", 0, len(sizes))
        return order, np.concatenate([[0], np.cumsum(sizes[order])])

    def _inside(self, epoch: int, number: int) -> Numbers:
        """The order of an epoch's sequences in a window."""
        size = int(self._before[number + 1] - self._before[number])
        return self._permutations.get_or(
            (epoch, number),
            lambda: permutation(self._name, self._seed, epoch, "packed sequences", number, size),
        )

    def _window(self, number: int) -> _Window:
        return self._windows.get_or((0, number), lambda: self._opened(number))

    def _opened(self, number: int) -> _Window:
        groups = self._packed_groups(number)
        pieces = _Pieces.of(self.lengths, groups, self.code, self.length)
        order = self._order[self._pieces_before[number] : self._pieces_before[number + 1]]
        ends = self._ends[self._before[number] : self._before[number + 1]]
        return _Window(pieces, order.astype(np.int64), np.concatenate([[0], ends.astype(np.int64)]))

    def _packed_groups(self, number: int) -> Numbers:
        """Row groups of a window: of an order that is no epoch's."""
        return self._permuted[number * self.window :][: self.window]

    def _build(self, folder: Path) -> None:
        counts = []
        with open(folder / "order.u32", "wb") as orders, open(folder / "ends.u32", "wb") as ends:
            for order, end in self._packed():
                orders.write(order.astype("<u4").tobytes())
                ends.write(end.astype("<u4").tobytes())
                counts.append([len(order), len(end)])
        (folder / "windows.json").write_text(json.dumps(counts), encoding="utf-8")

    def _packed(self) -> Iterator[tuple[Numbers, Numbers]]:
        """Of each window, its pieces sequence by sequence, and where each sequence ends in them."""
        for number in range(-(-len(self._permuted) // self.window)):
            groups = self._packed_groups(number)
            pieces = _Pieces.of(self.lengths, groups, self.code, self.length)
            sequence = pack(pieces.length, self.length)
            yield np.argsort(sequence, kind="stable"), np.cumsum(np.bincount(sequence))
