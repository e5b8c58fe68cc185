"""Job: a byte-level BPE tokenizer of a sample of the training split. One unit of work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa

from curation.text.documents import TRAIN
from curation.text.tokenising import BLOB, load_tokenizer
from curation.text.training import sampled, train_bpe
from dataflows.engine.stage import JobContext, Unit
from dataflows.pipelines.tokens.staying import Gone, gate, staying
from dataflows.transforms.reading import DatasetUnits, Ref
from dataflows.transforms.results import UnitResult
from dataflows.transforms.sink import Sink, scratch_dir
from dataflows.transforms.units import Units
from schemas.ledger import Ledger
from schemas.step import Outcome

_COLUMNS = ["doc_id", "split", "text", "file", "position"]


def _one() -> Iterator[Unit]:
    yield Unit("all", {})


@dataclass(frozen=True)
class _Sample:
    """Texts of the training split that stay; of more than ``bytes`` a share drawn by id."""

    documents: Ref
    gone: Gone
    bytes: int
    seed: int

    def __call__(self) -> Iterator[str]:
        whole = self.documents.open().manifest.stats["bytes"][TRAIN]
        share = min(1.0, self.bytes / max(1, whole))
        for shard in DatasetUnits((self.documents,))():
            for kept in staying(shard, TRAIN, self.gone, _COLUMNS):
                drawn = sampled(kept.table["doc_id"], share, self.seed)
                yield from kept.table.filter(pa.array(drawn))["text"].to_pylist()


class _Train(beam.DoFn):
    def __init__(self, sample: _Sample, vocabulary: int, special: list[str], sink: Sink) -> None:
        self._sample = sample
        self._vocabulary = vocabulary
        self._special = special
        self._sink = sink

    def process(self, element: bytes) -> Iterator[bytes]:
        unit = Unit.from_bytes(element)
        done = self._sink.finished(unit.name)
        yield (done or self._train(unit)).to_bytes()

    def _train(self, unit: Unit) -> UnitResult:
        data = train_bpe(self._sample(), self._vocabulary, self._special)
        vocabulary = load_tokenizer(data, BLOB).get_vocab(with_added_tokens=True)
        with scratch_dir() as scratch:
            path = Path(scratch) / BLOB
            path.write_bytes(data)
            blob = self._sink.put_blob(path)
        tokens = sorted(vocabulary, key=vocabulary.__getitem__)
        rows: dict[str, Any] = {"id": [vocabulary[token] for token in tokens], "token": tokens}
        ledger = Ledger()
        ledger.add("entry", "created", "derived", len(tokens))
        return self._sink.write(unit.name, [Outcome(pa.table(rows), ledger)], blobs={BLOB: blob})


class _Tokenizer(beam.PTransform):
    def __init__(self, step: _Train) -> None:
        super().__init__()
        self._step = step

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        return (
            pipeline
            | "Once" >> Units(_one)
            | "Train" >> beam.ParDo(self._step).with_output_types(bytes)
        )


def tokenizer(context: JobContext, sink: Sink) -> _Tokenizer:
    """Trains in one process. Raises CheckFailed if the gate of evaluation sets fails."""
    gate(context)
    config = context.config
    sample = _Sample(
        Ref.of(context.inputs["documents"]),
        Gone.of(context),
        config["sample_bytes"],
        context.stage.seed or 0,
    )
    return _Tokenizer(_Train(sample, config["vocabulary"], config["special_tokens"], sink))
