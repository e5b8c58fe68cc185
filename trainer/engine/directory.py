"""The run directory: what a run is (run.json), so that only the same run continues in it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from schemas.errors import ConflictError, InputError, UsageError
from schemas.ids import id128
from schemas.redact import without_secrets
from trainer.config import RunConfig
from trainer.engine.final_evaluation import data_of

RUN = "run.json"
_PACKAGES = ("torch", "deepspeed", "transformers", "tokenizers", "numpy", "pyarrow")

FREE = (
    "output",
    "zero",
    "loaders",
    "log_every",
    "evaluate",
    "batch.micro",
    "batch.tokens",
    "checkpoint.every",
    "checkpoint.keep",
    "checkpoint.milestones",
    "checkpoint.wait",
    "faults",
    "deepspeed",
)
"""Settings that a continued run may change: they decide how it runs, not what it computes (``faults``:
what it does from now on; what it has decided stays), or say again what another one does."""


def output_of(config: RunConfig) -> Path:
    """Return the run directory; UsageError for one that is not on a disk of this machine."""
    if "://" in config.output:
        raise UsageError(
            f"output={config.output}: a run directory is a local path (or one that all hosts "
            "mount), since metrics are appended to; checkpoint.path= may be in an object store"
        )
    return Path(config.output).expanduser().absolute()


def identity(config: RunConfig) -> dict[str, Any]:
    """Return {setting: value} of what makes the run: all settings but `FREE` ones."""
    settings = dict(_flat(config.model_dump(mode="json")))
    return {
        name: value
        for name, value in settings.items()
        if not any(name == free or name.startswith(f"{free}.") for free in FREE)
    }


def config_digest(config: RunConfig) -> str:
    """Return the digest of a run's identity."""
    return id128(json.dumps(identity(config), sort_keys=True).encode()).hex()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check(config: RunConfig) -> None:
    """Make the run directory, or see that the run in it is this one; before anything is built.

    Raises ConflictError naming the first setting that differs.
    """
    output = output_of(config)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(
            f"output={config.output}: a file stands where the run directory is needed; choose "
            "another output="
        ) from None
    if (output / RUN).exists():
        before, now = identity(_read(output / RUN)[0]), identity(config)
        changed = [n for n in sorted(before | now) if before.get(n) != now.get(n)]
        if changed:
            raise ConflictError(_difference(output, before, now, changed))


def record(
    config: RunConfig,
    *,
    ranks: int,
    parameters: int,
    digest: str,
    branch: dict[str, Any] | None = None,
) -> None:
    """Write run.json if there is none; else ConflictError if the data is another than then.

    ``branch``: the checkpoint of another run that this one begins from.
    """
    output = output_of(config)
    path = output / RUN
    if path.exists():
        if (data := _read(path)[1]) != digest:
            raise ConflictError(
                f"{output} holds a run on dataset {data[:12]}, and the data is now {digest[:12]}: "
                "choose another output=, or give the dataset that the run began with"
            )
        return
    facts = {
        "recipe": config.recipe,
        "config": config.model_dump(mode="json"),
        "command": command_line(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "ranks": ranks,
        "parameters": parameters,
        "data": {**data_of(config), "digest": digest},
        "seed": config.seed,
        "branch": branch,
    }
    temporary = path.with_suffix(".json.new")
    temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def _read(path: Path) -> tuple[RunConfig, str]:
    """The settings and the data's digest of a run.json."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return RunConfig.model_validate(facts["config"]), str(facts["data"]["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no record of a run ({type(error).__name__}): choose another output="
        ) from None


def _difference(
    output: Path, before: Mapping[str, Any], now: Mapping[str, Any], changed: list[str]
) -> str:
    name = changed[0]
    more = f" (and {len(changed) - 1} more: {', '.join(changed[1:])})" if changed[1:] else ""
    return (
        f"{output} holds a run with {name}={before.get(name, '(not set)')}, and this one has "
        f"{name}={now.get(name, '(not set)')}{more}: choose another output=, or give the run's own "
        "settings to continue it"
    )


COMMAND = "HEADRACE_COMMAND"
"""Variable by which a launcher tells its ranks the command that was typed."""


def command_line() -> str:
    """The command as typed, without user names, passwords and query strings in URLs."""
    if told := os.environ.get(COMMAND):
        return told
    words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
    return " ".join(shlex.quote(without_secrets(word)) for word in words)


def environment() -> dict[str, Any]:
    """Return python, versions of the packages that decide numbers, host and cores."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "versions": versions,
        "host": socket.gethostname(),
        "cores": os.cpu_count(),
    }
