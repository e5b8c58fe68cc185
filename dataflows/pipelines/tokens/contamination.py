"""Job: which documents share text with an evaluation set, shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from curation.ingest.files import look
from curation.text.contamination import ContaminationIndex, ContaminationOptions
from curation.text.evaluations import evaluation_texts
from curation.text.sources import pin_texts, unrun
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.listed import check_same
from dataflows.pipelines.tokens.with_blob import Carried, RunWithBlob
from dataflows.transforms.reading import DatasetUnits, Ref, unit_tables
from dataflows.transforms.sink import Sink, scratch_dir
from schemas.ledger import Ledger
from schemas.step import Outcome

INDEX = "evaluation-ngrams"
_COLUMNS = ["doc_id", "file", "position", "text"]


@lru_cache(maxsize=1)
def _index(carried: Carried) -> ContaminationIndex:
    return ContaminationIndex.open(carried.local())


@dataclass(frozen=True)
class _Find:
    """The step over a shard of documents."""

    index: Carried

    def __call__(self, unit: Unit) -> Iterator[Outcome]:
        for table in unit_tables(unit, _COLUMNS):
            found = _index(self.index).find(table)
            ledger = Ledger()
            ledger.add("entry", "created", "derived", found.num_rows)
            yield Outcome(
                found,
                ledger,
                stats={
                    "documents": len(np.unique(found["doc_id"].to_numpy(zero_copy_only=False))),
                    "evaluations": dict(Counter(found["evaluation"].to_pylist())),
                },
            )


def contamination(context: JobContext, sink: Sink) -> RunWithBlob:
    """Indexes the evaluation sets, and looks through every document. Raises InputError for a set
    that cannot be read."""
    config = context.config
    pinned = pin_texts([look(str(pin["path"])) for pin in context.stage.pinned])
    check_same(pinned, context.stage.pinned)
    texts = evaluation_texts(pinned, unrun(config["evaluations"]), config["columns"])
    options = ContaminationOptions.from_json(config["rule"])
    with scratch_dir() as scratch:
        path = Path(scratch) / INDEX
        ContaminationIndex.build(texts, options).write(path)
        carried = Carried.store(sink, INDEX, path)
    units = DatasetUnits((Ref.of(context.inputs["documents"]),))
    return RunWithBlob(units, _Find(carried), carried, sink)
