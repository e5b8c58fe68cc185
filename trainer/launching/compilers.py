"""Parts of DeepSpeed that are compiled at their first start: their tools are checked before launch.

A run without a ``deepspeed:`` block compiles nothing, with any number of ranks: the optimizers are
torch's, and the one operation that DeepSpeed would build on CPUs is left out by the engine.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import runpy
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import UsageError

_OFFLOAD = "zero_optimization.offload_{}.device"


@dataclass(frozen=True)
class Compiled:
    """A DeepSpeed operation, the setting that asks for it, and its values that do."""

    op: str
    setting: str
    asks: Callable[[Any], bool]
    cuda: bool = False


COMPILED = (
    Compiled("async_io", _OFFLOAD.format("optimizer"), lambda v: v == "nvme"),
    Compiled("async_io", _OFFLOAD.format("param"), lambda v: v == "nvme"),
    Compiled("cpu_adam", "zero_optimization.offload_optimizer.super_offload", bool),
    Compiled("dc", "compile.deepcompile", bool, cuda=True),
)


def check_compilers(deepspeed: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> None:
    """Raise UsageError if the ``deepspeed:`` block asks for an operation whose tools are missing."""
    path = environ.get("PATH", "")
    for need in COMPILED:
        value = setting_of(deepspeed, need.setting)
        if value is None or not need.asks(value) or _installed(need.op):
            continue
        missing: list[str] = []
        if not shutil.which(environ.get("CXX") or "c++", path=path):
            missing.append("a C++ compiler (Debian: apt install g++)")
        if not shutil.which("ninja", path=path):
            missing.append("ninja (Debian: apt install ninja-build)")
        if need.op == "async_io" and not ctypes.util.find_library("aio"):
            missing.append("libaio (Debian: apt install libaio-dev)")
        cuda_home = environ.get("CUDA_HOME") or "/usr/local/cuda"
        if need.cuda and not shutil.which("nvcc", path=f"{path}:{cuda_home}/bin"):
            missing.append("nvcc of the CUDA toolkit that torch was built with")
        if missing:
            raise UsageError(
                f"deepspeed.{need.setting}={value}: DeepSpeed compiles its {need.op} operation at"
                f" the first start, which needs {' and '.join(missing)}: install it, or leave the"
                " setting out"
            )


def setting_of(tree: Any, path: str) -> Any:
    """Return the value of a setting such as ``zero_optimization.stage``; None where there is none."""
    for name in path.split("."):
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(name)
    return tree


def _installed(op: str) -> bool:
    """Whether DeepSpeed was installed with this operation built; without the seconds of its import."""
    spec = importlib.util.find_spec("deepspeed")
    folders = spec.submodule_search_locations if spec is not None else None
    record = Path(next(iter(folders or ["."]))) / "git_version_info_installed.py"
    found = runpy.run_path(str(record))["installed_ops"] if record.exists() else {}
    return bool(found.get(op))
