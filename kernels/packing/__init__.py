"""Parts of documents to the arrays of a training batch: one pass over the tokens.

`fill` is compiled (numba loads at the first call, not at import); `reference.fill` says slowly what it
does. On 16 sequences of 2,048 tokens a batch took 32 us with it, all else included, where the same in
NumPy took 59 us (73 us with documents apart); what is left is mostly the memory that is written, 28
bytes a token. tests/benchmarks/bench_tokens.py measures whole epochs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernels.packing.reference import IGNORED

__all__ = ["IGNORED", "fill"]

Numbers = npt.NDArray[np.int64]


def fill(
    addresses: Numbers,
    lengths: Numbers,
    width: int,
    masked: bool,
    arrays: tuple[Numbers, Numbers, Numbers, npt.NDArray[np.int32]],
) -> None:
    """Write ``input_ids``, ``labels``, ``position_ids`` (int64 [n, T]) and ``segments`` (int32 [n, T]).

    ``addresses``: of the first token of each part, 0 for padding; ``lengths``: its tokens, int64 [p]
    both. Parts make up n sequences of T + 1 tokens, of which the last is only a label, and none crosses
    from one to the next. ``width``: bytes of a token, 2 or 4. ``masked``: positions begin again with
    each part, and its first token is no label. The caller keeps what lies at the addresses alive.
    ValueError for parts that do not make up whole sequences.
    """
    inputs, labels, positions, segments = arrays
    total, wide = int(lengths.sum()), inputs.shape[1] + 1
    if total != len(inputs) * wide or any(not a.flags.c_contiguous for a in arrays):
        raise ValueError(f"{total} tokens are not {len(inputs)} sequences of {wide}")
    from kernels.packing import compiled

    compiled.fill_arrays(addresses, lengths, width, masked, inputs, labels, positions, segments)
