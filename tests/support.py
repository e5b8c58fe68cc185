"""What tests share: the shared data, tools that may be absent, and free ports.

A test that needs something a machine may lack calls `require("chromium")`: it skips with the
reason, or fails where `HEADRACE_REQUIRE=prism,chromium,...` names it.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import lzma
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRISM_SHA256 = "ea9e9a58c5c95f3c2a03e096d4fc9d3b6676b3959e0b7adbaf125913ce541e36"


class Missing(Exception):
    """Something optional is not on this machine; the message says what to do about it."""


def shared_folder(name: str, variable: str) -> Path:
    """`$variable`, else ../shared/NAME beside the checkout; Missing if there is no such folder."""
    given = os.environ.get(variable)
    path = Path(given) if given else ROOT.parent / "shared" / name
    if not path.exists():
        where = f"{variable}={given}" if given else f"../shared/{name} beside the checkout"
        raise Missing(f"no {where} (set {variable})")
    return path


def _program(*names: str) -> Callable[[], str]:
    def probe() -> str:
        for name in names:
            if found := shutil.which(name):
                return found
        raise Missing(f"{' or '.join(names)} is not installed (make system)")

    return probe


def _succeeds(*command: str) -> Callable[[], str]:
    def probe() -> str:
        if not (program := shutil.which(command[0])):
            raise Missing(f"{command[0]} is not installed (make system)")
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise Missing(f"`{' '.join(command)}` failed: {done.stderr.strip()[-200:]}")
        return program

    return probe


def _module(name: str) -> Callable[[], str]:
    def probe() -> str:
        if importlib.util.find_spec(name) is None:
            raise Missing(f"the Python package {name} is not installed")
        return name

    return probe


def cache_folder() -> Path:
    """A folder of this user's that outlives a test run, for unpacked tools."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "headrace-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def prism() -> str:
    """The path of an executable Prism: $HEADRACE_PRISM (a binary, an .xz, or a folder with one)."""
    given = shared_folder("tools", "HEADRACE_PRISM")
    packed = given
    if given.is_dir():
        found = sorted(given.glob("prism-*.xz"))
        if not found:
            raise Missing(f"no prism-*.xz in {given} (set HEADRACE_PRISM)")
        packed = found[-1]
    if packed.suffix != ".xz":
        return str(packed)
    binary = cache_folder() / packed.name.removesuffix(".xz")
    with open(cache_folder() / "prism.lock", "w") as lock:  # test workers unpack it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            with tempfile.NamedTemporaryFile(dir=binary.parent, delete=False) as out:
                out.write(lzma.decompress(packed.read_bytes()))
            os.chmod(out.name, 0o755)
            os.replace(out.name, binary)
    digest = hashlib.sha256(binary.read_bytes()).hexdigest()
    if "2.77.0" in packed.name and digest != PRISM_SHA256:
        raise Missing(f"{binary} has SHA-256 {digest}, expected {PRISM_SHA256}: remove it")
    return str(binary)


PROBES: dict[str, Callable[[], str]] = {
    "prism": prism,
    "chromium": _program("chromium", "chromium-browser"),
    "bwrap": _succeeds("bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"),
    "netns": _succeeds("unshare", "--net", "--map-root-user", "true"),
    "slurm": _program("sbatch"),
    "vllm": _module("vllm"),
    "gpu": _succeeds("nvidia-smi", "--list-gpus"),
}


def required() -> set[str]:
    """The names in HEADRACE_REQUIRE; an unknown one is an error, lest a typo turn a check off."""
    names = {n for n in os.environ.get("HEADRACE_REQUIRE", "").replace(" ", ",").split(",") if n}
    if unknown := names - set(PROBES) - {"data"}:
        raise pytest.UsageError(
            f"HEADRACE_REQUIRE names {', '.join(sorted(unknown))}; known: {', '.join(PROBES)}, data"
        )
    return names


def give_up(name: str, reason: str) -> None:
    """Skip the test with the reason, or fail it where HEADRACE_REQUIRE names `name`."""
    if name in required():
        pytest.fail(f"HEADRACE_REQUIRE names {name}, but {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")


def require(name: str) -> str:
    """The path (or module name) of an optional tool in PROBES; skips or fails without it."""
    try:
        return PROBES[name]()
    except Missing as missing:
        give_up(name, str(missing))
        raise


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
