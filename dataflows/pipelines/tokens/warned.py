"""What a data set of tokens warns of: no document at all, none to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam

from curation.text.documents import VALIDATION
from dataflows.transforms.results import UnitResult
from dataflows.transforms.units import MergeResults


def warnings(whole: UnitResult, validation: float) -> list[str]:
    """Lines about the result of all units; ``validation`` is the share that was to be held out."""
    ledger = whole.ledger
    came, left = ledger.count("document", "in"), ledger.count("document", "out")
    if not came:
        return [
            "no document is in this data set: the filters kept none of the input. `dataflows report` "
            "says by which rule; loosen rules.NAME=, filters= or languages=, or check columns.text="
        ]
    if not left:
        gone = ", ".join(
            f"{row['count']:,} {row['reason']}"
            for row in ledger.rows()
            if row["unit"] == "document" and row["kind"] not in ("in", "out") and row["count"]
        )
        return [
            f"no document is in this data set: of the {came:,} that the filters kept none stayed "
            f"({gone}); give other input, or loosen what took them out"
        ]
    if validation > 0 and not whole.stats.get("documents", {}).get(VALIDATION, 0):
        # Five documents on average: fewer than 1 of 100 such draws hold none out.
        share = min(0.5, max(2 * validation, round(5 / left, 3)))
        return [
            f"no document is in the validation split: validation={validation:g} held none of {left:,} "
            "out, and the trainer's evaluation needs some; give a larger share, as "
            f"validation={share:g}"
        ]
    return []


@dataclass(frozen=True)
class _Lines:
    validation: float

    def __call__(self, merged: bytes) -> Iterator[bytes]:
        if lines := warnings(UnitResult.from_bytes(merged), self.validation):
            yield UnitResult("warnings", warnings=lines).to_bytes()


class Warned(beam.PTransform):
    """Pipeline -> bytes: the unit results of ``job``, and one named `warnings` if they call for it."""

    def __init__(self, job: beam.PTransform, validation: float) -> None:
        super().__init__()
        self._job = job
        self._lines = _Lines(validation)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        results = pipeline | "Job" >> self._job
        more = (
            results
            # Of no unit too: it is then that no document is there.
            | "Whole" >> beam.CombineGlobally(MergeResults()).with_output_types(bytes)
            | "Warn" >> beam.FlatMap(self._lines).with_output_types(bytes)
        )
        return (results, more) | "Both" >> beam.Flatten()
