"""Which documents stay after deduplication and decontamination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.page.text import terminal
from dataflows.engine.stage import JobContext, Unit
from dataflows.transforms.reading import Ref, unit_tables
from schemas.dataset import Dataset
from schemas.errors import CheckFailed
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome

EXAMPLES = 3

Places = npt.NDArray[np.int64]
"""int64[n, 2]: file and position of documents, ascending."""


@dataclass(frozen=True)
class Gone:
    """The datasets that list documents to leave out."""

    duplicates: Ref | None
    contamination: Ref | None

    @classmethod
    def of(cls, context: JobContext) -> Gone:
        """Those among a job's inputs."""
        refs = (context.inputs.get(name) for name in ("duplicates", "contamination"))
        return cls(*(Ref.of(dataset) if dataset is not None else None for dataset in refs))

    def reasons(self, low: tuple[int, int], high: tuple[int, int]) -> list[tuple[str, Places]]:
        """(reason, places) between two places, both included; the first reason of a place holds."""
        found: list[tuple[str, Places]] = []
        if self.contamination is not None:
            found.append(("contaminated", _places(self.contamination.open(), low, high)))
        if self.duplicates is not None:
            for how in ("exact", "near"):
                places = _places(self.duplicates.open(), low, high, how)
                found.append((f"duplicate_{how}", places))
        return found


def _places(
    dataset: Dataset, low: tuple[int, int], high: tuple[int, int], how: str | None = None
) -> Places:
    """Places of a dataset's rows in a range; the columns are read through, and only it is held."""
    columns = ["file", "position", *(["how"] if how else [])]
    parts = [np.zeros((0, 2), np.int64)]
    for table in dataset.tables(columns=columns):
        if how:
            table = table.filter(pc.equal(table["how"], how))
        places = place_array(table)
        after = _at_least(places, low)
        parts.append(places[after & ~_over(places, high)])
    return np.concatenate(parts)


def _at_least(places: Places, low: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return (places[:, 0] > low[0]) | ((places[:, 0] == low[0]) & (places[:, 1] >= low[1]))


def _over(places: Places, high: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return (places[:, 0] > high[0]) | ((places[:, 0] == high[0]) & (places[:, 1] > high[1]))


def place_array(table: pa.Table) -> Places:
    """Columns file and position as int64[n, 2]."""
    file = table["file"].to_numpy().astype(np.int64)
    return np.stack([file, table["position"].to_numpy().astype(np.int64)], axis=1)


def _in(places: Places, gone: Places) -> npt.NDArray[np.bool_]:
    """bool[n]: which places are in ``gone``."""
    kind = np.dtype([("file", np.int64), ("position", np.int64)])
    mine, others = (np.ascontiguousarray(x).view(kind).ravel() for x in (places, gone))
    return np.isin(mine, others)


def staying(
    shard: Unit, split: str, gone: Gone, columns: list[str] | None = None
) -> Iterator[Outcome]:
    """Rows of one split of a documents shard that stay; the ledger says what became of the rest."""
    ends = _ends(shard)
    if ends is None:
        return
    reasons = gone.reasons(*ends)
    for table in unit_tables(shard, columns):
        table = table.filter(pc.equal(table["split"], split))
        ledger = Ledger()
        ledger.add("document", "in", "", table.num_rows, id_sum(table["doc_id"]))
        places = place_array(table)
        kept = np.ones(table.num_rows, bool)
        for reason, others in reasons:
            hit = kept & _in(places, others)
            kept &= ~hit
            if hit.any():
                kind = "rejected" if reason == "contaminated" else "merged"
                ids = table.filter(pa.array(hit))["doc_id"]
                ledger.add("document", kind, reason, len(ids), id_sum(ids))
        if not kept.all():
            table = table.filter(pa.array(kept))
        ledger.add("document", "out", "", table.num_rows, id_sum(table["doc_id"]))
        yield Outcome(table, ledger)


def _ends(shard: Unit) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The first and last place of a shard, which is sorted; None if it has no row."""
    first = last = None
    for table in unit_tables(shard, ["file", "position"]):
        places = place_array(table)
        first = places[0] if first is None else first
        last = places[-1]
    if first is None or last is None:
        return None
    return (int(first[0]), int(first[1])), (int(last[0]), int(last[1]))


def gate(context: JobContext) -> None:
    """Raises CheckFailed, with counts and examples, if documents share text with evaluation sets and
    the run is to fail for it."""
    found = context.inputs.get("contamination")
    if found is None or context.config["on_contamination"] != "fail" or not len(found):
        return
    counts: Counter[str] = Counter()
    examples: list[str] = []
    for table in found.tables():
        counts.update(table["evaluation"].to_pylist())
        for row in table.slice(0, EXAMPLES - len(examples)).to_pylist():
            shown = terminal(row["ngram"], 120)
            examples.append(f'document {row["doc_id"].hex()} with {row["evaluation"]}: "{shown}"')
    sets = ", ".join(f"{count:,} with {name}" for name, count in sorted(counts.items()))
    documents = found.manifest.stats["documents"]
    raise CheckFailed(
        f"on_contamination=fail, and text shared with evaluation sets was found in {documents:,} of "
        f"{len(context.inputs['documents']):,} documents ({sets}): {'; '.join(examples)}. All are in "
        f"{found.storage.url}. Take them out of the input, or give on_contamination=drop"
    )
