"""Packing token data into sequences, and mixing sources: from lengths alone, no token is read for it.

`lengths` is the index of a dataset's documents on disk; `concatenate` and `best_fit` say which parts
of which documents the k-th sequence of an epoch has; `mixture` says which source the k-th sequence of
a run comes from; `tokens` reads them; `documents` reads a split whole, in order.
"""
