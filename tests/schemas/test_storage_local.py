"""Local disk: durable creates, temporary files, and disks that refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from schemas import storage_local
from schemas.errors import StorageError, UsageError
from schemas.storage import storage
from tests.support import ROOT, require


def test_temporary_files_lie_outside_data_and_are_swept(tmp_path: Path) -> None:
    root = storage(tmp_path)
    places = {
        storage_local.temporary_folder(f"{tmp_path}/{key}")
        for key in (
            "data/x.parquet",
            "manifest.json",
            ".headrace/blobs/x",
            ".headrace/attempts/k/u",
        )
    }
    assert places == {f"{tmp_path}/.headrace/tmp"}
    folder = tmp_path / ".headrace/tmp"
    folder.mkdir(parents=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = os.uname().nodename
    mine = root.scratch()
    for name in (f"{host}+{dead.pid}+aa.tmp", f"elsewhere+{dead.pid}+bb.tmp", "elsewhere+1+cc.tmp"):
        (folder / name).write_bytes(b"")
    mine.write_bytes(b"")
    os.utime(folder / "elsewhere+1+cc.tmp", (0, 0))
    root.clean_temporary()
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [mine.name, f"elsewhere+{dead.pid}+bb.tmp"]
    )


def test_order_of_a_durable_create(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content is synced before the name appears, the directory after it."""
    calls: list[str] = []
    for name in ("fsync", "link", "unlink"):
        original = getattr(os, name)

        def traced(*args: object, name: str = name, original: object = original) -> object:
            what = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else str(args[-1])
            calls.append(f"{name} {'file' if what.endswith('.tmp') else os.path.basename(what)}")
            return original(*args)  # type: ignore[operator]

        monkeypatch.setattr(os, name, traced)
    root = storage(tmp_path / "ds")
    (tmp_path / "ds/data").mkdir(parents=True)
    (tmp_path / "ds/.headrace/tmp").mkdir(parents=True)
    root.create("data/x", b"1")
    assert calls == ["fsync file", "link x", "fsync data", "unlink file"]


@pytest.mark.parametrize("consume", [True, False])
def test_order_of_a_durable_create_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, consume: bool
) -> None:
    """A shard's bytes are synced before its name appears in data/."""
    root = storage(tmp_path)
    (tmp_path / "data").mkdir()
    source = root.scratch()
    source.write_bytes(b"shard")
    calls: list[str] = []
    for name in ("fsync", "link"):
        original = getattr(os, name)

        def traced(*args: object, name: str = name, original: object = original) -> object:
            what = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else str(args[-1])
            calls.append(f"{name} {'file' if what.endswith('.tmp') else os.path.basename(what)}")
            return original(*args)  # type: ignore[operator]

        monkeypatch.setattr(os, name, traced)
    assert root.create_from_file("data/x", source, consume=consume)
    assert calls == ["fsync file", "link x", "fsync data"]
    assert source.exists() != consume


def test_missing_permission_and_odd_paths_name_path_and_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file stands where a directory is needed"):
        storage(tmp_path / "file").create("data/x", b"")
    with pytest.raises(UsageError, match=r"without \.\."):
        storage(tmp_path).create("../x", b"")
    with pytest.raises(UsageError):
        storage(tmp_path).read_bytes("/etc/passwd")
    with pytest.raises(UsageError, match="the path is empty"):
        storage("")
    with pytest.raises(StorageError, match="too long: choose a shorter"):
        storage(tmp_path).create("x" * 300, b"")


def test_read_only_directory() -> None:
    """As another user where the test runs as root, who may write everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        code = (
            "import os\n"
            "from schemas.storage import storage\nfrom schemas.errors import StorageError\n"
            "import schemas.storage_local\n"
            "if os.getuid() == 0: os.setuid(65534)\n"
            f"try: storage({folder!r}).create('x', b'1')\n"
            "except StorageError as error: print(error.exit_code, error)"
        )
        os.chmod(folder, 0o555)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        os.chmod(folder, 0o755)
    assert done.stdout.startswith(f"6 cannot create {folder}/x: "), done.stderr
    assert "permission is missing: check owner and mode" in done.stdout


FULL_DISK = """
import json
from schemas.errors import StorageError
from schemas.storage import storage
from schemas.table_schemas import RECORDS
from schemas.writer import ShardWriter
from tests.benchmarks.bench_sink import images
root = storage("/mnt/ds")
try:
    with ShardWriter(root, RECORDS, target_bytes=700_000) as writer:
        writer.write(images(200))
except StorageError as error:
    left = root.list(".headrace/tmp")
    print(json.dumps([error.exit_code, str(error), len(root.list("data")), left]))
"""


def test_a_really_full_disk() -> None:
    """A tmpfs of 2 MB in a namespace of its own: whole shards, then one message, no litter."""
    require("netns")
    mount = 'mount -t tmpfs -o size=2m tmpfs /mnt && exec "$0" -c "$1"'
    command = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        mount,
        sys.executable,
        FULL_DISK,
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.stdout, done.stderr
    exit_code, message, whole, left = json.loads(done.stdout)
    assert exit_code == 6 and "the disk is full: free space and run the same command" in message
    assert 1 <= whole <= 3 and left == []
