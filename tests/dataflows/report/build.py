"""A small run committed stage by stage with the real steps, without Beam: records to curated."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from curation.evaluation_sets import EvaluationSets
from curation.id_sets import IdSet
from curation.metaclip2 import counts as counting
from curation.metaclip2.balance import balance_tables
from curation.metaclip2.dedup import deduplicate
from curation.metaclip2.draw import draw, keep_valid, with_probability
from curation.metaclip2.explode import explode
from curation.metaclip2.language import Identifier
from curation.metaclip2.match import match
from curation.metaclip2.probabilities import Probabilities
from curation.metaclip2.sample import sample
from curation.metaclip2.thresholds import find_thresholds
from kernels import matching
from schemas.commit import commit
from schemas.dataset import Dataset, open_dataset, put_blob
from schemas.ids import id_sum, image_id
from schemas.ledger import Ledger
from schemas.manifest import Manifest
from schemas.step import Outcome
from schemas.storage import Storage, storage
from schemas.table_schemas import ID, IMAGE, RECORDS, SCHEMAS
from schemas.writer import ShardWriter

STAGES = (
    "records", "metadata", "pool", "automata", "matches", "counts", "sample", "balance", "matched",
    "curated",
)  # fmt: skip


@dataclass
class Plan:
    """What to build: records {url, texts, image?}, entries by language, settings."""

    records: Sequence[Mapping[str, Any]]
    entries: Mapping[str, Sequence[str]]
    p: float = 0.06
    mode: str = "image"
    seed: int = 5
    stages: Sequence[str] = STAGES
    max_text_bytes: int = 100_000
    warnings: Sequence[str] = ()
    licence: Sequence[str] = ()
    command: str = "dataflows run metaclip2 input=records.jsonl p=0.06"
    inputs: Sequence[Mapping[str, Any]] = field(
        default=({"path": "records.jsonl", "bytes": 12, "checksum": "sha256:aa"},)
    )
    shard_bytes: int = 256 << 20
    min_score: float | None = None
    evaluation: Sequence[str] = ()  # URLs
    invalid: Sequence[str] = ()  # URLs that a list of valid ids leaves out


def png(colour: str, size: tuple[int, int] = (96, 64)) -> bytes:
    """A picture of one colour."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


class Builder:
    """Commits the stages of a plan below a root, in order."""

    def __init__(self, root: str | Path, plan: Plan) -> None:
        self.root = storage(root)
        self.plan = plan

    def run(self) -> Storage:
        """Build the plan's stages."""
        for stage in STAGES:
            if stage in self.plan.stages:
                getattr(self, f"_{stage}")()
        return self.root

    def open(self, name: str) -> Dataset:
        """A dataset built before."""
        return open_dataset(self.root.at(name))

    def table(self, name: str) -> pa.Table:
        """All rows of a dataset built before."""
        dataset = self.open(name)
        return pa.concat_tables([dataset.schema.empty_table(), *dataset.tables()])

    def commit(
        self,
        name: str,
        tables: Iterable[pa.Table],
        ledger: Ledger,
        parents: Sequence[str] = (),
        dead: pa.Table | None = None,
        schema: str | None = None,
        **fields: Any,
    ) -> Manifest:
        """Commit one dataset, its dead letters first."""
        spec = SCHEMAS[schema or name]
        linked = [{"name": p, "digest": self.open(p).manifest.digest} for p in parents]
        if dead is not None and dead.num_rows:
            self.commit(f"{name}.dead_letters", [dead], Ledger(), parents, schema="dead_letters")
        place = self.root.at(name)
        with ShardWriter(place, spec, target_bytes=self.plan.shard_bytes) as writer:
            for table in tables:
                writer.write(table)
            shards = writer.close()
        manifest = Manifest(
            schema={"name": spec.name, "version": spec.version},
            counts=ledger.rows(),
            parents=linked,
            recipe={"name": "metaclip2", "stage": name},
            libraries={"pyarrow": pa.__version__},
            run={"runner": "none", "workers": 1, "command": self.plan.command},
            **fields,
        )
        return commit(place, manifest, shards)

    def _records(self) -> None:
        rows = [
            {
                "image_id": image_id(url=record["url"]),
                "url": record["url"],
                "texts": [{"key": key, "text": text} for key, text in record["texts"]],
                "image": record.get("image")
                and {"bytes": record["image"], "path": f"{position}.png"},
                "score": record.get("score"),
                "file": 0,
                "position": position,
            }
            for position, record in enumerate(self.plan.records)
        ]
        table = RECORDS.validate(pa.Table.from_pylist(rows, schema=RECORDS.arrow))
        ledger = Ledger()
        ids = id_sum(table["image_id"])
        ledger.add("record", "in", "", table.num_rows, ids)
        ledger.add("record", "out", "", table.num_rows, ids)
        self.commit(
            "records",
            [table],
            ledger,
            inputs=[dict(pin) for pin in self.plan.inputs],
            warnings=list(self.plan.warnings),
            licence=list(self.plan.licence),
        )

    def _metadata(self) -> None:
        rows = [
            {"metadata": key, "entry": number, "text": text, "source": "w"}
            for key, texts in sorted(self.plan.entries.items())
            for number, text in enumerate(texts)
        ]
        self.commit(
            "metadata", [SCHEMAS["metadata"].validate(pa.Table.from_pylist(rows))], made(rows)
        )

    def _pool(self) -> None:
        records = self.table("records").drop_columns(["image"])
        parents, sets = ["records"], None
        if self.plan.evaluation:
            self._evaluation()
            parents.append("evaluation")
            sets = EvaluationSets.of([self.table("evaluation").select(["url", "sha256", "phash"])])
        limits: dict[str, Any] = {
            "max_text_bytes": self.plan.max_text_bytes,
            "min_score": self.plan.min_score,
        }
        first = explode(records, 0, 0, evaluation=sets, **limits)
        second = deduplicate(first.table)
        # What explode lets out is what deduplicate takes in: one stage, one law.
        ledger = Ledger()
        passed = [
            row for row in first.ledger.rows() if (row["unit"], row["kind"]) != ("text", "out")
        ]
        passed += [row for row in second.ledger.rows() if row["kind"] != "in"]
        for row in passed:
            ledger.add(
                row["unit"], row["kind"], row["reason"], row["count"], int(row["id_sum"], 16)
            )
        config = {**limits, "limit": None}
        self.commit(
            "pool", [second.table], ledger, parents, first.dead, config=config, stats=first.stats
        )

    def _evaluation(self) -> None:
        rows = [
            {"image_id": image_id(url=url), "url": url, "texts": [], "file": 0, "position": number}
            for number, url in enumerate(self.plan.evaluation)
        ]
        table = RECORDS.validate(pa.Table.from_pylist(rows, schema=RECORDS.arrow))
        self.commit("evaluation", [table], made(rows, "record"), schema="records")

    def _valid_matches(self) -> Outcome:
        """The matches of valid images; the list is committed when there is one."""
        matches = self.table("matches")
        gone = pa.array([image_id(url=url) for url in self.plan.invalid], ID)
        ids = pc.unique(matches["image_id"])
        ids = ids.filter(pc.invert(pc.is_in(ids, value_set=gone))).sort()
        if self.plan.invalid and not self.root.at("valid").exists("manifest.json"):
            table = SCHEMAS["valid"].validate(pa.table({"image_id": ids}))
            self.commit("valid", [table], made(table, "image"))
        return keep_valid(matches, IdSet.of([ids]))

    def _automata(self) -> None:
        rows, blobs = [], {}
        place = self.root.at("automata")
        for key, texts in sorted(self.plan.entries.items()):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "automaton"
                matching.build(texts, mode="repaired", path=path)
                blobs[f"automaton/{key}"] = put_blob(place, path)
            digest = blobs[f"automaton/{key}"]["digest"]
            rows.append(
                {"metadata": key, "entries": len(texts), "blob": digest, "match": "repaired"}
            )
        table = SCHEMAS["automata"].validate(pa.Table.from_pylist(rows))
        self.commit("automata", [table], made(rows), ["metadata"], blobs=blobs)

    def _matches(self) -> None:
        automata = {}
        dataset = self.open("automata")
        for key in self.plan.entries:
            automata[key] = matching.Automaton.open(dataset.blob(f"automaton/{key}"))
        outcome = match(self.table("pool"), automata, Identifier())
        self.commit(
            "matches", [outcome.table], outcome.ledger, ["pool", "automata"], stats=outcome.stats
        )

    def _counts(self) -> None:
        table = counting.count(self._valid_matches().table)
        self.commit("counts", [table], made(table), ["matches"])

    def _sample(self) -> None:
        matches = self._valid_matches().table
        images = matches["image_id"].to_pylist()
        texts = pa.array([images.count(image) for image in images], pa.int32()).to_numpy()
        table = sample(matches, texts)
        self.commit("sample", [table], made(table), ["matches"])

    def _balance(self) -> None:
        counts = counting.by_language(self.table("counts"))
        sizes = {key: len(texts) for key, texts in self.plan.entries.items()}
        found = find_thresholds(counts, sizes, p=self.plan.p)
        tables = list(balance_tables(counts, found, [self.table("metadata")]))
        self.commit(
            "balance",
            tables,
            made(pa.concat_tables(tables)),
            ["counts", "metadata", "automata"],
            config={"p": self.plan.p},
            stats={**found.to_stats(), "mode": self.plan.mode, "isolation": True},
            warnings=found.warnings,
        )

    def _matched(self) -> None:
        probabilities = Probabilities.of_table(self.table("balance"))
        valid = self._valid_matches()
        outcome = with_probability(valid.table, probabilities, mode=self.plan.mode)
        self.commit(
            "matched",
            [outcome.table],
            valid.ledger,
            ["matches", *(["valid"] if self.plan.invalid else []), "balance"],
            config={"mode": self.plan.mode},
            stats=outcome.stats,
        )

    def _curated(self) -> None:
        outcome = draw(self.table("matched"), self.plan.seed, 0, self.plan.mode)
        images = self.table("records")["image"].combine_chunks().take(outcome.table["row"])
        place = outcome.table.schema.get_field_index("image")
        table = outcome.table.set_column(place, pa.field("image", IMAGE), images)
        self.commit(
            "curated",
            [table],
            outcome.ledger,
            ["matched", "records"],
            config={"mode": self.plan.mode, "epoch": 0, "images": "records"},
            seed=self.plan.seed,
            stats=outcome.stats,
        )


def made(rows: Sequence[Any] | pa.Table, unit: str = "entry") -> Ledger:
    """The ledger of a stage that derives its rows."""
    count = rows.num_rows if isinstance(rows, pa.Table) else len(rows)
    ids = 0
    if isinstance(rows, pa.Table) and "pair_id" in rows.column_names:
        unit, ids = "text", id_sum(rows["pair_id"])
    ledger = Ledger()
    ledger.add(unit, "created", "derived", count, ids)
    ledger.add(unit, "out", "", count, ids)
    return ledger
