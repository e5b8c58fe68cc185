"""Plain loops that the curation code is held against, and tables made from short lists."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from curation.metaclip2.counts import LanguageCounts
from schemas.ids import image_id, pair_id
from schemas.table_schemas import COUNTS, MATCHES, POOL, RECORDS

Row = tuple[str, str, str, Sequence[int]]  # image name, text, metadata key, entries


def records(rows: Iterable[Mapping]) -> pa.Table:
    """RECORDS of {url, texts: [(key, text)], ...}; the image id is that of the URL."""
    full = []
    for position, row in enumerate(rows):
        texts = [{"key": key, "text": text} for key, text in row.get("texts", [])]
        full.append(
            {
                "image_id": image_id(url=row["url"]),
                "file": 0,
                "position": position,
                **row,
                "texts": texts,
            }
        )
    return pa.Table.from_pylist(full, schema=RECORDS.arrow)


def pool(texts: Sequence[str], images: Sequence[str] | None = None) -> pa.Table:
    """POOL rows in the order given; each text has an image of its own unless ``images`` says."""
    names = images or [f"image {i}" for i in range(len(texts))]
    rows = []
    for i, (name, text) in enumerate(zip(names, texts, strict=True)):
        image = image_id(key=name)
        rows.append(
            {
                "pair_id": pair_id(image, text),
                "image_id": image,
                "key": "alt",
                "text": text,
                "source": 0,
                "shard": 0,
                "row": i,
            }
        )
    return pa.Table.from_pylist(rows, schema=POOL.arrow)


def matches(rows: Sequence[Row]) -> pa.Table:
    """MATCHES sorted by (image_id, pair_id)."""
    base = pool([text for _, text, _, _ in rows], [name for name, _, _, _ in rows])
    table = base.append_column("language", pa.array([key for _, _, key, _ in rows], pa.string()))
    table = table.append_column("metadata", pa.array([key for _, _, key, _ in rows], pa.string()))
    entries = pa.array([sorted(e) for _, _, _, e in rows], pa.list_(pa.uint32()))
    table = MATCHES.validate(table.append_column("entries", entries))
    return table.sort_by([("image_id", "ascending"), ("pair_id", "ascending")])


def random_matches(seed: int, images: int, sizes: Mapping[str, int], texts: int = 3) -> pa.Table:
    """MATCHES of 1 to ``texts`` texts an image, Zipf entries, languages in unequal parts."""
    rng = random.Random(seed)
    keys = list(sizes)
    rows: list[Row] = []
    for image in range(images):
        for text in range(rng.randint(1, texts)):
            key = keys[min(int(rng.expovariate(1.2)), len(keys) - 1)]
            size = sizes[key]
            found = {int(size ** rng.random()) - 1 for _ in range(rng.randint(1, 5))}
            rows.append((f"{seed}/{image}", f"text {text}", key, sorted(found)))
    return matches(rows)


def counts_table(counts: Mapping[tuple[str, int], int]) -> pa.Table:
    rows = [
        {"metadata": key, "entry": entry, "count": n} for (key, entry), n in sorted(counts.items())
    ]
    return pa.Table.from_pylist(rows, schema=COUNTS.arrow)


def count(table: pa.Table) -> Counter:
    """{(metadata, entry): texts} by a plain loop."""
    found: Counter = Counter()
    for row in table.select(["metadata", "entries"]).to_pylist():
        found.update((row["metadata"], entry) for entry in set(row["entries"]))
    return found


def language_counts(dense: Sequence[int]) -> LanguageCounts:
    """Sparse counts of a dense list."""
    values = np.array(dense, np.uint64)
    entries = np.flatnonzero(values)
    return LanguageCounts(entries.astype(np.uint32), values[entries])


def t_to_p(dense: Sequence[int], t: int) -> float:
    """The released code's formula on dense counts (spec 5)."""
    return sum(c for c in dense if c < t) / sum(dense)


def p_to_t(dense: Sequence[int], p: float) -> int:
    """The released code's formula on dense counts, with the guard t = max(1, t)."""
    ascending = sorted(dense)
    total, running, best, best_distance = sum(ascending), 0, 0, float("inf")
    for c in ascending:
        running += c
        if abs(running / total - p) < best_distance:
            best, best_distance = c, abs(running / total - p)
    return max(1, best)


def probability(c: int, t: int) -> float:
    return 1.0 if c < t else t / c


def keep(probabilities: Sequence[float]) -> float:
    """1 - prod(1 - prob), entry by entry."""
    miss = 1.0
    for value in probabilities:
        miss *= 1.0 - value
    return 1.0 - miss


def loop_form(probabilities: Sequence[float], rng: random.Random) -> bool:
    """The paper's form: walk the entries, draw for each, keep at the first success."""
    return any(rng.random() < value for value in probabilities)
