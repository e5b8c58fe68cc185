"""Killed at any storage operation, the same run ends with the same dataset."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import StorageError
from schemas.storage import storage
from tests.faults import inject
from tests.schemas import samples, servers
from tests.support import ROOT


def kill(root: str, *options: str, env: dict[str, str] | None = None) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.faults.kill_small_run", root, *options]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_killed_at_every_operation_on_local_disk(tmp_path: Path) -> None:
    report = kill(str(tmp_path), "--modes", "torn")
    assert report["killed"] == report["completed"] == report["operations"]
    assert int(str(report["operations"])) >= 100
    # Every kind of primitive was struck, so no step of a create is missing from the count.
    assert set(report["kinds"]) == set(inject.LOCAL)  # type: ignore[call-overload]


@pytest.mark.slow
def test_killed_after_operations_twice_in_a_row(tmp_path: Path) -> None:
    report = kill(str(tmp_path), "--modes", "after", "--step", "4", "--again", "2")
    assert int(str(report["completed"])) >= 25


@pytest.mark.slow
def test_killed_at_every_operation_on_s3(tmp_path: Path) -> None:
    with servers.moto() as environment:
        environment["TMPDIR"] = str(tmp_path)  # other runs' scratch files are not swept here
        root = f"s3://{servers.BUCKET}/kill-{secrets.token_hex(4)}"
        report = kill(root, "--modes", "after", env=environment)
        torn = kill(root, "--modes", "torn", "--only", "do_put_file", env=environment)
    assert report["killed"] == report["completed"] == report["operations"]
    # do_write is the local file of a shard before its upload.
    assert set(report["kinds"]) == {*inject.REMOTE, "do_write"}  # type: ignore[call-overload]
    assert torn["killed"] == report["kinds"]["do_put_file"]  # type: ignore[index]
    # Independent of storage: the digest is the one of the same run on local disk.
    work = tmp_path / "work"
    work.mkdir()
    assert samples.small_run(storage(tmp_path / "x"), work).digest == report["digest"]


def test_torn_write_never_shows(tmp_path: Path) -> None:
    """Half of a file's bytes on disk: neither a create nor a replace shows them."""
    root = storage(tmp_path)
    root.replace("card", b"old old old")
    command = (
        "from tests.faults import inject; from schemas.storage import storage; "
        f"root = storage({str(tmp_path)!r}); inject.install(2, mode='torn'); "
    )
    # Operation 1 makes the temporary directory's first use; the write is the second at most.
    for call in ("root.create('head', b'new new new')", "root.replace('card', b'new new new')"):
        for number in (1, 2):
            code = command.replace("install(2", f"install({number}") + call
            done = subprocess.run([sys.executable, "-c", code], cwd=ROOT)
            assert done.returncode == inject.EXIT
            assert not root.exists("head")
            assert root.read_bytes("card") == b"old old old"
    leftovers = list((tmp_path / ".headrace/tmp").iterdir())
    assert any(0 < p.stat().st_size < 11 for p in leftovers), "no write was torn"
    root.clean_temporary()
    assert not list((tmp_path / ".headrace/tmp").iterdir())


def test_injector_strikes_in_child_processes(tmp_path: Path) -> None:
    """The variables reach Python children, which share one count."""
    counter = tmp_path / "operations"
    code = f"from schemas.storage import storage; storage({str(tmp_path)!r}).create('KEY', b'1')"

    def run(key: str, kill_at: int) -> int:
        env = {**os.environ, **inject.environment(counter, kill_at)}
        return subprocess.run([sys.executable, "-c", code.replace("KEY", key)], env=env).returncode

    assert run("a", 0) == 0
    first = len(inject.operations(counter))
    assert first > 5
    assert run("b", first + 3) == inject.EXIT
    assert len(inject.operations(counter)) == first + 3
    assert not (tmp_path / "b").exists()


def test_seed_names_what_it_strikes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with inject.installed(seed=11, among=50) as plan:
        assert 1 <= plan.kill_at <= 50
    assert f"seed 11 strikes at {plan.kill_at} ({plan.mode})" in capfd.readouterr().err
    with inject.installed(seed=11, among=50) as again:
        assert (again.kill_at, again.mode) == (plan.kill_at, plan.mode)


@pytest.mark.parametrize("number", range(1, 14))
def test_full_disk_is_a_storage_error(tmp_path: Path, number: int) -> None:
    """ENOSPC at each operation of a commit, the writer's thread included, is one message."""
    root = storage(tmp_path / "pool")
    work = tmp_path / "work"
    work.mkdir()
    with inject.installed(number * 4, mode="enospc"), pytest.raises(StorageError) as caught:
        samples.small_run(root, work)
    assert "the disk is full: free space and run the same command again" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    again = samples.small_run(root, work)
    assert again.digest == samples.small_run(storage(tmp_path / "reference"), work).digest
