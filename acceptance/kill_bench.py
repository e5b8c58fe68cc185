"""Where the kill matrix happens: small runs on a disk and on S3, done by forked children.

The run's stages are taken one at a time, each starting from a copy of what the undisturbed run had
committed before it; so a kill in a late stage does not cost all the stages before it again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.schemas.servers import BUCKET

PLACES = ("local", "s3")
LANGUAGES = ("en", "sw")
ENTRIES = 1500
SETTINGS = {
    "input": ["generated"],
    "p": 0.06,
    "buckets": 2,
    "pool": {"records": 120, "unit": 60, "image_size": 16},
}


def warm() -> None:
    """Import what every child needs, without starting a thread."""
    import apache_beam  # noqa: F401
    import boto3  # noqa: F401
    import datasets
    import numba  # noqa: F401
    import polars  # noqa: F401
    import s3fs  # noqa: F401

    import dataflows.engine.run
    import dataflows.transforms.sink  # noqa: F401

    datasets.disable_progress_bars()


@dataclass(frozen=True)
class Bench:
    """One place (`local` or `s3`) and a scratch folder."""

    folder: Path
    place: str

    def output(self, name: str) -> str:
        """Root of the run called `name`."""
        return f"s3://{BUCKET}/{name}" if self.place == "s3" else str(self.folder / name)

    def graph(self, name: str) -> Any:
        """The recipe's stages for that run."""
        from dataflows.pipelines import recipe
        from schemas import settings as config

        module = recipe("metaclip2")
        settings = SETTINGS | {
            "metadata": str(self.folder / "metadata"),
            "output": self.output(name),
        }
        return module.graph(config.build(module.Config, settings, "metaclip2"))

    def run(self, name: str, stages: int) -> None:
        """Bring the first `stages` stages of a run to their commits."""
        from dataflows.engine.run import RunSettings, run_graph

        graph = self.graph(name)
        part = replace(graph, stages=graph.stages[:stages])
        run_graph(part, RunSettings(self.output(name)))

    def copy(self, source: str, target: str) -> None:
        """Make `target` a copy of the run `source` (an absent one is an empty one)."""
        if self.place == "local":
            shutil.rmtree(self.folder / target, ignore_errors=True)
            if (self.folder / source).exists():
                shutil.copytree(self.folder / source, self.folder / target)
            return
        import boto3

        client = boto3.client("s3")
        for key in _keys(client, f"{target}/"):
            client.delete_object(Bucket=BUCKET, Key=key)
        for key in _keys(client, f"{source}/"):
            copied = target + key.removeprefix(source)
            client.copy_object(Bucket=BUCKET, Key=copied, CopySource={"Bucket": BUCKET, "Key": key})

    def digests(self, name: str, first: int, last: int) -> dict[str, str]:
        """{stage: manifest digest} of stages `first` to `last`, 1 the first; rows read, verified."""
        found: dict[str, str] = {}
        for stage in self.graph(name).stages[first - 1 : last]:
            found |= self._checked(name, stage.name)
            with contextlib.suppress(FileNotFoundError):
                found |= self._checked(name, f"{stage.name}.dead_letters")
        return found

    def _checked(self, name: str, stage: str) -> dict[str, str]:
        import datasets
        import polars

        from schemas.storage import storage
        from schemas.verify import verify

        root = storage(self.output(name)).at(stage)
        manifest = json.loads(root.read_bytes("manifest.json"))
        if faults := verify(root):
            raise AssertionError(f"{root}: {faults}")
        with tempfile.TemporaryDirectory() as copy:
            # What ordinary readers see is the listing of data/, whatever the manifest says.
            for number, shard in enumerate(root.list("data")):
                root.fetch(shard, Path(copy) / f"{number:05d}.parquet")
            table = polars.scan_parquet(f"{copy}/*.parquet").select(polars.len())
            counted = {
                "polars": table.collect().item(),
                "datasets": datasets.load_dataset(
                    "parquet", data_dir=copy, split="train", cache_dir=f"{copy}/cache"
                ).num_rows,
            }
        rows = manifest["totals"]["rows"]
        if set(counted.values()) != {rows}:
            raise AssertionError(f"{root}: the manifest says {rows} rows, read {counted}")
        return {stage: manifest["digest"]}


def _keys(client: Any, prefix: str) -> list[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def prepare(bench: Bench) -> None:
    """Commit a metadata dataset of a few entries."""
    import pyarrow.compute as pc

    from curation.metadata import builtin
    from schemas.commit import commit
    from schemas.ledger import Ledger
    from schemas.manifest import Manifest
    from schemas.storage import storage
    from schemas.table_schemas import METADATA
    from schemas.writer import ShardWriter

    root = storage(bench.folder / "metadata")
    table = builtin.load(LANGUAGES)
    table = table.filter(pc.less(table["entry"], ENTRIES))
    with ShardWriter(root, METADATA) as writer:
        writer.write(table)
        shards = writer.close()
    ledger = Ledger()
    ledger.add("entry", "created", "derived", table.num_rows)
    ledger.add("entry", "out", "", table.num_rows)
    head = Manifest({"name": METADATA.name, "version": METADATA.version}, counts=ledger.rows())
    commit(root, head, shards)


def in_child(action: Callable[[], Any], log: Path) -> tuple[int, Any]:
    """(exit code, result) of `action` in a forked child whose output goes to the end of a file."""
    from tests.faults import matrix

    result = log.with_suffix(".json")
    result.unlink(missing_ok=True)

    def work() -> None:
        with open(log, "a", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        value = action()
        result.write_text(json.dumps(value), encoding="utf-8")

    code = matrix.in_child(work)
    return code, json.loads(result.read_text(encoding="utf-8")) if code == 0 else None
