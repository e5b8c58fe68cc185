"""Real servers for object stores: moto for S3, gcp-storage-emulator for GCS."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fsspec

import schemas.storage
from tests.support import free_port

BUCKET = "headrace-tests"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextlib.contextmanager
def moto() -> Iterator[dict[str, str]]:
    """Run an S3 server with ``BUCKET``; yield the variables that lead clients to it."""
    port = free_port()
    command = [_script("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    endpoint = f"http://127.0.0.1:{port}"
    with _serving(command, endpoint):
        request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        yield {"AWS_ENDPOINT_URL": endpoint, **CREDENTIALS}


@contextlib.contextmanager
def gcs() -> Iterator[dict[str, str]]:
    """Run a GCS server with ``BUCKET``; yield the variables that lead clients to it."""
    port = free_port()
    command = [_script("gcp-storage-emulator"), "start", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--in-memory", "--default-bucket", BUCKET]
    endpoint = f"http://127.0.0.1:{port}"
    with _serving(command, endpoint):
        yield {"STORAGE_EMULATOR_HOST": endpoint}


@contextlib.contextmanager
def variables(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a block; clients of this process are made anew for it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    _forget_clients()
    try:
        yield
    finally:
        _forget_clients()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _forget_clients() -> None:
    """Clients are kept by their arguments, and these variables are none."""
    schemas.storage._backend.cache_clear()
    for protocol in ("s3", "gs"):
        fsspec.get_filesystem_class(protocol).clear_instance_cache()


def _script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


@contextlib.contextmanager
def _serving(command: list[str], endpoint: str) -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 60
            while not _answers(endpoint):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{command[0]}: {log.read().decode()[-2000:]}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(10)


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
