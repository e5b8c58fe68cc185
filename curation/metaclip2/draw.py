"""Balanced sampling (MetaCLIP 2, algorithm 1; curation/curate.py), as a function of ids.

Mode "image" (the released code): each image picks one of its matched texts uniformly, by
(seed, epoch, image id) over ascending pair ids, and that pair is drawn by (seed, epoch, pair id).
Mode "text" (the paper's text): each pair is drawn for itself. So a row's fate depends on no
order, worker or restart; another epoch gives another draw of the same distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.id_sets import IdSet, order_by, run_starts
from curation.metaclip2.probabilities import Floats, Probabilities, keep_probability
from schemas.errors import IntegrityError, UsageError
from schemas.ids import SALT_DRAW, SALT_PICK, id_sum, uniform
from schemas.ledger import Ledger
from schemas.step import Outcome
from schemas.table_schemas import CURATED, IMAGE, MATCHED

IMAGE_MODE, TEXT_MODE = "image", "text"
MODES = (IMAGE_MODE, TEXT_MODE)

DECIDING = ("image_id", "pair_id", "image_texts", "keep_probability")
"""Columns of ``matched`` that the draw decides by."""


def check_mode(mode: str) -> str:
    """Return the mode, or raise UsageError."""
    if mode not in MODES:
        raise UsageError(f"mode={mode} is unknown: give {' or '.join(MODES)}")
    return mode


def keep_valid(table: pa.Table, valid: IdSet) -> Outcome:
    """Return the rows of a table of texts whose image id is in the list of valid ids.

    To be applied before counting, so that counts, thresholds and draw see valid images only.
    """
    ids = table["pair_id"].combine_chunks()
    stay = valid.contains(table["image_id"])
    ledger = Ledger()
    ledger.add("text", "in", "", len(ids), id_sum(ids))
    if not stay.all():
        gone = ids.filter(pa.array(~stay))
        ledger.add("text", "rejected", "not_in_valid_list", len(gone), id_sum(gone))
    out = table.filter(pa.array(stay))
    ledger.add("text", "out", "", out.num_rows, id_sum(out["pair_id"]))
    return Outcome(out, ledger)


def image_texts(table: pa.Table) -> npt.NDArray[np.int32]:
    """Return int32[n]: how many rows have the image id of each row. Rows sorted by image id."""
    starts = run_starts(table["image_id"])
    lengths = np.diff(starts, append=table.num_rows).astype(np.int32)
    return np.repeat(lengths, lengths)


def with_probability(matches: pa.Table, probabilities: Probabilities, *, mode: str) -> Outcome:
    """Return the MATCHED rows of a MATCHES table, by (image_id, pair_id).

    All rows of an image id must be in the table. stats: ``languages`` {metadata key: texts,
    expected, variance} of the number of pairs that one draw in ``mode`` keeps, and ``total``,
    whose variance also knows that texts of one image exclude each other.
    """
    check_mode(mode)
    order = order_by(matches["image_id"], matches["pair_id"])
    table = matches.take(pa.array(order)).combine_chunks()
    keep = keep_probability(table["metadata"], table["entries"], probabilities)
    texts = image_texts(table)
    columns = [*table.columns, pa.array(texts), pa.array(keep)]
    matched = pa.table(columns, schema=MATCHED.arrow)
    ids = id_sum(table["pair_id"])
    ledger = Ledger()
    ledger.add("text", "in", "", table.num_rows, ids)
    ledger.add("text", "out", "", table.num_rows, ids)
    return Outcome(matched, ledger, stats=_expectations(matched, keep, texts, mode))


def draw(matched: pa.Table, seed: int, epoch: int, mode: str) -> Outcome:
    """Return the CURATED rows (image still null) that one draw keeps of MATCHED rows.

    Rows sorted by (image_id, pair_id); every image with all its rows (see ``whole_images``), else
    IntegrityError. stats: ``languages`` {metadata key: texts}.
    """
    table = matched.combine_chunks()
    ids = table["pair_id"].combine_chunks()
    picked, drawn = decide(table, seed, epoch, mode)
    ledger = Ledger()
    ledger.add("text", "in", "", table.num_rows, id_sum(ids))
    for gone, reason in ((~picked, "image_has_another_text"), (picked & ~drawn, "not_drawn")):
        if gone.any():
            left = ids.filter(pa.array(gone))
            ledger.add("text", "sampled_out", reason, len(left), id_sum(left))
    out = table.filter(pa.array(picked & drawn))
    ledger.add("text", "out", "", out.num_rows, id_sum(out["pair_id"]))
    curated = out.append_column("image", pa.nulls(out.num_rows, IMAGE))
    counts = out["metadata"].value_counts().to_pylist()
    languages = {row["values"]: {"texts": row["counts"]} for row in counts}
    return Outcome(CURATED.validate(curated), ledger, stats={"languages": languages})


def decide(
    matched: pa.Table, seed: int, epoch: int, mode: str
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return bool[n] twice: rows that their image picked (all in mode "text"), rows below their
    probability. The draw keeps the rows that are both.

    Needs the columns ``DECIDING`` alone, rows as ``draw`` does.
    """
    check_mode(mode)
    table = matched.combine_chunks()
    picked = np.ones(table.num_rows, bool)
    if mode == IMAGE_MODE:
        picked = _pick(table, seed, epoch)
    number = uniform(seed, epoch, table["pair_id"], SALT_DRAW)
    return picked, number < table["keep_probability"].to_numpy()


def whole_images(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Cut a stream of tables sorted by image id anew, so that no image lies in two tables."""
    rest: list[pa.Table] = []
    for table in tables:
        if table.num_rows == 0:
            continue
        joined = pa.concat_tables([*rest, table])
        last = int(run_starts(joined["image_id"])[-1])
        if last:
            yield joined.slice(0, last)
        rest = [joined.slice(last)]
    yield from rest


def _pick(table: pa.Table, seed: int, epoch: int) -> npt.NDArray[np.bool_]:
    starts = run_starts(table["image_id"])
    lengths = np.diff(starts, append=table.num_rows)
    stated = table["image_texts"].to_numpy()
    wrong = np.flatnonzero(np.repeat(lengths, lengths) != stated)
    if len(wrong):
        row = int(wrong[0])
        raise IntegrityError(
            f"image {table['image_id'][row].as_py().hex()} has {stated[row]} matched texts, but "
            f"{int(np.repeat(lengths, lengths)[row])} lie together here: draw over whole images, "
            "sorted by image id"
        )
    images = table["image_id"].combine_chunks().take(pa.array(starts))
    chosen = np.floor(uniform(seed, epoch, images, SALT_PICK) * lengths).astype(np.int64)
    # u < 1, but u * n can round up to n.
    picked = np.zeros(table.num_rows, bool)
    picked[starts + np.minimum(chosen, lengths - 1)] = True
    return picked


def _expectations(
    table: pa.Table, keep: Floats, texts: npt.NDArray[np.int32], mode: str
) -> dict[str, Any]:
    encoded = table["metadata"].combine_chunks().dictionary_encode()
    codes, keys = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    if mode == TEXT_MODE:
        value, group = keep, np.arange(len(keep))
    else:
        value = keep / texts
        starts = run_starts(table["image_id"])
        group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(keep)))
    languages = {key: _moments(value[codes == i], group[codes == i]) for i, key in enumerate(keys)}
    return {"languages": dict(sorted(languages.items())), "total": _moments(value, group)}


def _moments(value: Floats, group: npt.NDArray[np.int64]) -> dict[str, float]:
    """Expected size and variance: of each group (ascending numbers) at most one text is kept."""
    if len(value) == 0:
        return {"texts": 0, "expected": 0.0, "variance": 0.0}
    first = np.flatnonzero(np.diff(group, prepend=-1))
    q = np.add.reduceat(value, first)
    return {
        "texts": len(value),
        # fsum rounds once, so the statistics are the same bits on every machine.
        "expected": math.fsum(q),
        "variance": math.fsum(q * (1.0 - q)),
    }
