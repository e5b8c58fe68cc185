"""One storage over local disk, memory, S3 (moto) and GCS (emulator)."""

from __future__ import annotations

import http.server
import os
import pickle
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas import storage_remote
from schemas.errors import StorageError, UsageError
from schemas.storage import Storage, storage
from tests.schemas import servers
from tests.support import ROOT


def honours_preconditions(root: Storage) -> bool:
    """gcp-storage-emulator ignores ifGenerationMatch and overwrites; the request is tested below."""
    return not root.url.startswith("gs://")


def test_objects(root: Storage) -> None:
    """Create, read, list, replace, delete: the same on every protocol."""
    assert root.create("data/a", b"1")
    assert root.create(".headrace/b c/ü+%.json", b"")
    assert root.read_bytes("data/a") == b"1"
    assert (root.size("data/a"), root.exists("data/a")) == (1, True)
    assert not root.exists("data") and not root.exists("absent") and not root.exists("data/a/x")
    assert root.list() == [".headrace/b c/ü+%.json", "data/a"]
    assert root.list("data") == ["data/a"] and root.list("dat") == [] == root.list("absent")
    root.replace("data/a", b"22")
    root.replace("card", b"3")
    assert root.read_bytes("data/a") == b"22" and root.read_bytes("card") == b"3"
    root.delete("data/a")
    root.delete("data/a")
    assert root.list() == [".headrace/b c/ü+%.json", "card"]
    for read in (root.read_bytes, root.open_input, root.size):
        with pytest.raises(FileNotFoundError):
            read("data/a")


def test_sub_roots_and_pickling(root: Storage) -> None:
    inner = pickle.loads(pickle.dumps(root.at("x", "y")))
    inner.create("z", b"1")
    assert root.read_bytes("x/y/z") == b"1" and inner.name == "y"
    assert inner.sibling("w").url == root.at("x/w").url


def test_create_never_replaces(root: Storage) -> None:
    assert root.create("head", b"first")
    if honours_preconditions(root):
        assert not root.create("head", b"second")
        assert root.read_bytes("head") == b"first"


def test_of_many_creators_one_wins(root: Storage) -> None:
    if not honours_preconditions(root):
        pytest.skip("gcp-storage-emulator ignores ifGenerationMatch")
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda i: root.create("head", b"%d" % i), range(8)))
    assert sum(won) == 1
    assert root.read_bytes("head") == b"%d" % won.index(True)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload in parts from 10 MB on, so that tests need not send 64 MB."""
    monkeypatch.setattr(storage_remote, "_PART_BYTES", 5 << 20)


@pytest.mark.parametrize("size", [0, 1000, 11 << 20])
def test_create_from_file(root: Storage, tmp_path: Path, size: int, small_parts: None) -> None:
    """Also above the size from which object stores take parts."""
    source = tmp_path / "source"
    data = os.urandom(min(size, 1 << 20)) * max(1, size >> 20)
    source.write_bytes(data)
    assert root.create_from_file("data/x", source)
    assert source.read_bytes() == data
    other = root.scratch()
    other.write_bytes(b"other")
    assert not root.create_from_file("data/x", other, consume=True)
    assert not other.exists()
    assert root.read_bytes("data/x") == data
    target = tmp_path / "copy"
    root.fetch("data/x", target)
    assert target.read_bytes() == data
    source.write_bytes(b"changed")  # a copy, not a link to the caller's file
    assert root.size("data/x") == len(data)


def test_large_upload_that_loses_a_race_changes_nothing(
    s3: dict[str, str], tmp_path: Path, small_parts: None
) -> None:
    """The multipart completion itself carries the precondition, not only the look before it."""
    root = storage(f"s3://{servers.BUCKET}/race")
    source = tmp_path / "source"
    source.write_bytes(bytes(11 << 20))
    root.create("data/x", b"winner")
    backend = root._backend
    assert isinstance(backend, storage_remote.RemoteBackend)
    path = root.path("data/x")
    assert backend._once("create", path, lambda: backend.do_put_file(path, str(source))) is False
    assert root.read_bytes("data/x") == b"winner"
    left = backend.fs.call_s3("list_multipart_uploads", Bucket=servers.BUCKET)
    assert not left.get("Uploads"), "the refused upload's parts were not given back"


def test_parquet_reads_through_storage(root: Storage, tmp_path: Path) -> None:
    table = pa.table({"a": list(range(1000)), "b": ["x" * 50] * 1000})
    source = tmp_path / "t.parquet"
    pq.write_table(table, source, row_group_size=100)
    root.create_from_file("data/t.parquet", source)
    with root.open_input("data/t.parquet") as file:
        assert pq.ParquetFile(file).read_row_group(7, ["a"])["a"].to_pylist() == list(
            range(700, 800)
        )


def test_another_writers_objects_are_seen_at_once(s3: dict[str, str]) -> None:
    """No cached listing hides what another process created after the first look."""
    root = storage(f"s3://{servers.BUCKET}/fresh")
    root.create("data/mine", b"1")
    assert root.list("data") == ["data/mine"] and not root.exists("data/theirs")
    url = f"{s3['AWS_ENDPOINT_URL']}/{servers.BUCKET}/fresh/data/theirs"
    kind = {"Content-Type": "application/octet-stream"}
    put = urllib.request.Request(url, b"22", kind, method="PUT")
    urllib.request.urlopen(put, timeout=10).close()
    assert root.list("data") == ["data/mine", "data/theirs"] and root.size("data/theirs") == 2


# -- what is sent to object stores ------------------------------------------------------------


@pytest.fixture
def recorded(gs: dict[str, str]) -> Iterator[list[str]]:
    """A proxy before the GCS emulator that answers 412 as GCS does, and records requests."""
    upstream = gs["STORAGE_EMULATOR_HOST"]
    seen: list[str] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            seen.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            # The object exists in these tests if anything was uploaded before.
            starts = [s for s in seen[:-1] if "uploadType" in s]
            if "upload_id" not in query and query.get("ifGenerationMatch") == ["0"] and starts:
                self.reply(412, b'{"error": {"code": 412, "message": "conditionNotMet"}}', {})
                return
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            request = urllib.request.Request(
                upstream + self.path, body or None, headers, method=self.command
            )
            try:
                with urllib.request.urlopen(request, timeout=20) as reply:
                    mine = f"http://127.0.0.1:{self.server.server_address[1]}"
                    extra = {
                        "Location": (reply.headers.get("Location") or "").replace(upstream, mine)
                    }
                    self.reply(reply.status, reply.read(), extra)
            except urllib.error.HTTPError as error:
                self.reply(error.code, error.read(), {})

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    with servers.variables({"STORAGE_EMULATOR_HOST": address}):
        yield seen
    server.shutdown()


@pytest.mark.parametrize("size", [10, 11 << 20])
def test_gcs_creates_carry_generation_zero(
    recorded: list[str], tmp_path: Path, size: int, small_parts: None
) -> None:
    """Every upload of a create asks for ifGenerationMatch=0, and a 412 answer means "exists"."""
    # An endpoint of its own, so that no cached client of another test is used.
    root = storage(
        f"gs://{servers.BUCKET}/g{size}", endpoint_url=os.environ["STORAGE_EMULATOR_HOST"]
    )
    source = tmp_path / "source"
    source.write_bytes(bytes(size))
    path = root.path("data/x")
    backend = root._backend
    assert isinstance(backend, storage_remote.RemoteBackend)

    def put() -> bool:
        return backend._once("create", path, lambda: backend.do_put_file(path, str(source)))

    assert put() is True
    uploads = [r for r in recorded if "uploadType" in r and "upload_id" not in r]
    assert len(uploads) == 1 and "ifGenerationMatch=0" in uploads[0], recorded
    assert put() is False
    assert root.create("data/y", b"x") is False  # the proxy refuses every further create
    creates = [r for r in recorded if "uploadType" in r and "upload_id" not in r]
    assert len(creates) == 3 and all("ifGenerationMatch=0" in r for r in creates)
    root.replace("card", b"x")
    assert "ifGenerationMatch" not in [r for r in recorded if "uploadType" in r][-1]


# -- remote faults ----------------------------------------------------------------------------


def test_missing_bucket_and_protocols_without_exclusive_create(s3: dict[str, str]) -> None:
    with pytest.raises(StorageError, match="create the bucket or correct its name"):
        storage("s3://no-such-bucket/x").create("a", b"")
    with pytest.raises(UsageError, match=r"http:// has no exclusive create"):
        storage("http://127.0.0.1:9/x").create("a", b"")
    with pytest.raises(UsageError, match=r"cannot use nonsense://"):
        storage("nonsense://x").read_bytes("a")


def test_unreachable_store_is_a_storage_error() -> None:
    code = """
from schemas.errors import StorageError
from schemas.storage import storage
fast = {"connect_timeout": 1, "retries": {"max_attempts": 0}}
try:
    storage("s3://b/x", config_kwargs=fast).create("a", b"")
except StorageError as error:
    print(error)
"""
    env = {**os.environ, **servers.CREDENTIALS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("cannot create s3://b/x/a: "), done.stderr[-2000:]
    assert "check the credentials, the endpoint" in done.stdout
