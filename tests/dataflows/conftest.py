"""A small real run for the tests of the data side: few entries, few records, every stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from curation.metadata import builtin
from dataflows.cli import main
from schemas.commit import commit
from schemas.ledger import Ledger
from schemas.manifest import Manifest
from schemas.storage import storage
from schemas.table_schemas import METADATA
from schemas.writer import ShardWriter

LANGUAGES = ("en", "es", "ja", "th")
RECORDS = 3000


def write_metadata(place: str | Path, keys: tuple[str, ...] = LANGUAGES) -> Manifest:
    """Commit the builtin lists of a few languages as a metadata dataset."""
    root = storage(place)
    table = builtin.load(keys)
    with ShardWriter(root, METADATA) as writer:
        writer.write(table)
        shards = writer.close()
    ledger = Ledger()
    ledger.add("entry", "created", "derived", table.num_rows)
    ledger.add("entry", "out", "", table.num_rows)
    manifest = Manifest({"name": "metadata", "version": 1}, counts=ledger.rows())
    return commit(root, manifest, shards)


@pytest.fixture(scope="session")
def small_metadata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("metadata") / "metadata"
    write_metadata(place)
    return place


Run = Callable[..., Path]


@pytest.fixture(scope="session")
def small_run(small_metadata: Path) -> Run:
    """``small_run(output, *words)``: the generated pool through every stage; asserts exit code 0."""

    def run(output: str | Path, *words: str) -> Path:
        base = {
            "input": "generated",
            "metadata": str(small_metadata),
            "p": "0.06",
            "output": str(output),
            "pool.records": str(RECORDS),
            "pool.unit": "800",
            "buckets": "3",
        }
        given = {w.partition("=")[0] for w in words if not w.startswith("-")}
        base = {
            k: v for k, v in base.items() if k not in given and not (k == "p" and "t_en" in given)
        }
        code = main(["run", "metaclip2", *(f"{k}={v}" for k, v in base.items()), *words])
        assert code == 0
        return Path(str(output))

    return run


@pytest.fixture(scope="session")
def baseline(small_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output directory of a finished small run, one process. Not to be changed."""
    return small_run(tmp_path_factory.mktemp("baseline") / "out")
