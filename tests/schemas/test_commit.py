"""Commit: one exclusive create, conflicts named, strangers swept, nothing lost."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars
import pyarrow as pa
import pytest

from schemas import ids
from schemas.commit import commit, is_tidy, retire, tidy
from schemas.dataset import open_dataset
from schemas.errors import ConflictError, HeadraceError, IntegrityError
from schemas.ledger import Ledger
from schemas.manifest import KEY, Manifest
from schemas.storage import Storage, storage
from schemas.table_schemas import COUNTS, DEAD_LETTERS, POOL
from schemas.verify import verify
from tests.schemas import samples, servers
from tests.support import ROOT


def test_commit_makes_a_dataset(root: Storage) -> None:
    table = samples.pool(300)
    head = samples.committed(root, table=table, target_bytes=9_000, config={"p": 0.1}, seed=4)
    assert head.totals["rows"] == 300 and head.totals["shards"] > 2
    found = open_dataset(root)
    assert found.manifest == head == Manifest.load(root)
    assert pa.concat_tables(found.tables()).equals(table)
    assert verify(root) == [] and is_tidy(root, head)
    assert {k.split("/")[0] for k in root.list()} == {".headrace", "README.md", "data", KEY}
    assert head.totals["bytes"] == sum(root.size(k) for k in root.list("data"))
    assert head.run["host"] and re.match(r"\d{4}-\d\d-\d\dT", head.run["committed"])


def test_digest_is_the_same_on_every_storage(root: Storage, tmp_path: Path) -> None:
    there = samples.committed(root, target_bytes=3_000, run={"runner": "prism", "workers": 9})
    here = samples.committed(storage(tmp_path / "other/name"), target_bytes=3_000)
    assert there.digest == here.digest


def test_second_equal_commit_succeeds(root: Storage) -> None:
    first = samples.committed(root, run={"runner": "a"})
    second = samples.committed(root, run={"runner": "b"})
    assert second == first == Manifest.load(root), "the first head stays"


def test_second_different_commit_names_the_first(root: Storage) -> None:
    first = samples.committed(root, config={"p": 0.1, "mode": "text", "same": 1}, seed=1)
    with pytest.raises(ConflictError) as caught:
        samples.committed(
            root, table=samples.pool(20, seed=5), config={"p": 0.2, "same": 1, "new": 2}, seed=2
        )
    text = str(caught.value)
    for part in (
        root.url, first.digest, "demo pool", first.run["committed"], first.run["host"],
        "p is 0.1 there, 0.2 here", "mode is 'text' there, 'unset' here", "seed is 1 there, 2 here",
        "new is 'unset' there, 2 here", f"supersede={first.digest}", "Choose another output",
    ):  # fmt: skip
        assert part in text
    assert "same is" not in text
    assert Manifest.load(root) == first
    assert verify(root) == [], "the loser's shards are gone, the winner's are whole"


def test_supersede_replaces_exactly_the_named_head(root: Storage) -> None:
    first = samples.committed(root, config={"v": 1})
    other = samples.pool(30, seed=9)

    def again(version: int, supersede: str | None) -> Manifest:
        shards = samples.write(root, POOL, other)
        return commit(
            root, samples.head(POOL, other, config={"v": version}), shards, supersede=supersede
        )

    with pytest.raises(ConflictError):
        again(2, "00" * 32)
    second = again(2, first.digest)
    assert Manifest.load(root) == second and second.rows == 30
    assert verify(root) == [] and is_tidy(root, second)
    archived = root.read_bytes(f".headrace/superseded/{first.digest}.json")
    assert Manifest.from_json(archived, "archive") == first
    assert again(2, first.digest).digest == second.digest, "the same command again succeeds"
    with pytest.raises(ConflictError):
        again(3, first.digest)
    third = again(3, second.digest)
    back = commit(
        root,
        samples.head(POOL, samples.pool(50), config={"v": 1}),
        samples.write(root, POOL, samples.pool(50)),
        supersede=third.digest,
    )
    assert back.digest == first.digest and Manifest.load(root).run["generation"] == 3
    assert verify(root) == []


def test_of_two_that_supersede_one_wins(tmp_path: Path) -> None:
    root = storage(tmp_path / "ds")
    first = samples.committed(root)

    def supersede(version: int) -> str:
        table = samples.pool(20, seed=version)
        head = samples.head(POOL, table, config={"v": version})
        try:
            return commit(
                root, head, samples.write(root, POOL, table), supersede=first.digest
            ).digest
        except (ConflictError, HeadraceError) as error:
            return type(error).__name__

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(supersede, range(4)))
    digests = {r for r in results if len(r) == 64}
    assert digests == {Manifest.load(root).digest}
    assert verify(root) == []


def test_retire_withdraws_a_head_and_lineage_goes_on(root: Storage) -> None:
    """Commit, supersede, retire, and the same again: no claim of an earlier life stands in the way."""
    tables = [samples.pool(10, seed=n) for n in range(3)]

    def made(n: int, supersede: str | None = None) -> Manifest:
        shards = samples.write(root, POOL, tables[n])
        return commit(root, samples.head(POOL, tables[n]), shards, supersede=supersede)

    generations = []
    for last in (1, 2, 1):
        first = made(0)
        second = made(last, supersede=first.digest)
        generations += [first.run["generation"], second.run["generation"]]
        with pytest.raises(ConflictError, match=f"holds {second.digest} by now"):
            retire(root, first.digest)
        retire(root, second.digest)
        assert not root.exists(KEY) and root.list("data") == [] and not root.exists("README.md")
        archived = root.read_bytes(f".headrace/superseded/{second.digest}.json")
        assert Manifest.from_json(archived, "archive").digest == second.digest
    assert generations == [0, 1, 2, 3, 4, 5]


# -- conservation ----------------------------------------------------------------------------


def uncommitted(root: Storage) -> bool:
    return not root.exists(KEY)


def test_unbalanced_ledgers_do_not_commit(root: Storage) -> None:
    table = samples.pool(10)
    shards = samples.write(root, POOL, table)
    for change, message in (
        (("text", "rejected", "empty_text", 1), r"in 10 \+ created 0 = 10, but out 10"),
        (("text", "in", "", 1), "= 11, but out 10"),
    ):
        ledger = samples.balanced(POOL, table)
        ledger.add(*change)  # type: ignore[arg-type]
        with pytest.raises(IntegrityError, match=message):
            commit(root, samples.head(POOL, table, counts=ledger.rows()), shards)
    with pytest.raises(IntegrityError, match="the ledger has 10 rows in, the input manifests 12"):
        commit(root, samples.head(POOL, table), shards, parents={"text": 12})
    with pytest.raises(IntegrityError, match="0 rows out, the shards 10"):
        commit(root, samples.head(POOL, table, counts=[]), shards)
    assert uncommitted(root)


def test_lost_doubled_and_exchanged_rows_do_not_commit(root: Storage) -> None:
    """What the shards hold is compared with the ledger, in number and by the sum of ids."""
    table, other = samples.pool(10), samples.pool(10, seed=3)
    head = samples.head(POOL, table)
    for rows, message in (
        (table.slice(0, 9), "10 rows out, the shards 9"),
        (pa.concat_tables([table, table.slice(9)]), "10 rows out, the shards 11"),
        (other, "are not the ids written"),
    ):
        with pytest.raises(IntegrityError, match=message):
            commit(root, head, samples.write(root, POOL, rows))
    shards = samples.write(root, POOL, table)
    with pytest.raises(IntegrityError, match="two shards have the same content"):
        commit(root, samples.head(POOL, table), [*shards, *shards])
    assert uncommitted(root)


def test_dead_letters_need_no_ledger_of_their_own(root: Storage) -> None:
    row = {
        "stage": "s",
        "reason": "bad_utf8",
        "error": "e",
        "source": "f",
        "position": 1,
        "row": b"",
    }
    table = pa.Table.from_pylist([row], DEAD_LETTERS.arrow)
    assert samples.committed(root, DEAD_LETTERS, table, counts=[]).rows == 1


def test_empty_dataset_keeps_its_columns(tmp_path: Path) -> None:
    root = storage(tmp_path / "ds")
    head = samples.committed(root, table=samples.pool(0))
    assert head.totals == {"rows": 0, "bytes": head.totals["bytes"], "shards": 1}
    assert list(open_dataset(root).tables()) == []
    assert polars.read_parquet(f"{root.url}/data/*.parquet").columns == POOL.arrow.names
    assert verify(root) == []


# -- clean-up --------------------------------------------------------------------------------


def test_strangers_and_finished_attempts_are_removed(root: Storage) -> None:
    root.create("data/stranger.parquet", b"x")
    root.create("data/sub/notes.json", b"{}")
    root.create(".headrace/attempts/mine/1.log", b"x")
    root.create(".headrace/attempts/other/1.log", b"x")
    head = samples.committed(root, stage_key="mine")
    assert len(root.list("data")) == head.totals["shards"]
    assert root.list(".headrace/attempts") == [".headrace/attempts/other/1.log"]


def test_tidy_finishes_what_a_kill_left(root: Storage) -> None:
    head = samples.committed(root)
    for key in root.list():
        if key == "README.md" or key.startswith(".headrace/tidy"):
            root.delete(key)
    root.create("data/stranger.parquet", b"x")
    assert not is_tidy(root, head)
    tidy(root, head, "# my card")
    assert is_tidy(root, head) and root.read_bytes("README.md") == b"# my card"
    assert verify(root) == []


def test_a_superseded_writer_does_not_sweep_its_successor(root: Storage) -> None:
    first = samples.committed(root)
    table = samples.pool(30, seed=2)
    shards = samples.write(root, POOL, table)
    commit(root, samples.head(POOL, table), shards, supersede=first.digest)
    tidy(root, first)
    assert verify(root) == []


# -- processes -------------------------------------------------------------------------------

WRITER = """
import json, sys, time
from pathlib import Path
from schemas.errors import HeadraceError
from schemas.storage import storage
from schemas.table_schemas import POOL
from tests.schemas import samples
root, version, start = storage(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
table = samples.pool(200, seed=version)
time.sleep(max(0, start - time.time()))
try:
    head = samples.committed(root, POOL, table, 9_000, config={"v": version})
    print(json.dumps([0, head.digest]))
except HeadraceError as error:
    print(json.dumps([error.exit_code, str(error)]))
"""


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_racing_processes(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Two pairs of equal writers into one place: one pair wins whole, the other conflicts."""
    import time

    url = str(tmp_path / "ds")
    if kind == "s3":
        request.getfixturevalue("s3")
        url = f"s3://{servers.BUCKET}/race-{secrets.token_hex(4)}"
    start = str(time.time() + 4)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, version, start],
            cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for version in ("1", "1", "2", "2")
    ]  # fmt: skip
    results = []
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        results.append(json.loads(out))
    root = storage(url)
    head = Manifest.load(root)
    winner = results[:2] if head.config["v"] == 1 else results[2:]
    loser = results[2:] if head.config["v"] == 1 else results[:2]
    assert winner == [[0, head.digest]] * 2
    assert [code for code, _ in loser] == [4, 4]
    assert all(head.digest in text for _, text in loser)
    assert verify(root) == []


def test_ids_out_are_checked_against_written_ids(tmp_path: Path) -> None:
    """A ledger with the right count but the sum of other ids is refused."""
    table = samples.pool(10)
    ledger = Ledger()
    ledger.add("text", "in", "", 10)
    ledger.add("text", "out", "", 10, ids.id_sum(table["image_id"]))
    root = storage(tmp_path / "ds")
    with pytest.raises(IntegrityError, match="are not the ids written"):
        commit(
            root, samples.head(POOL, table, counts=ledger.rows()), samples.write(root, POOL, table)
        )


def test_schema_is_stated_with_its_version(tmp_path: Path) -> None:
    head = samples.committed(storage(tmp_path / "c"), COUNTS, samples.counts(4))
    assert head.schema == {"name": "counts", "version": 1}
    assert head.ledger.count("entry", "out") == 4
