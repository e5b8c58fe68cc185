"""A run that begins from a checkpoint of another: the same model, data and position, another schedule.

The usual case is the decay of a warmup-stable-decay schedule (arXiv:2404.06395, section 4): one run at
a constant learning rate, and from any of its checkpoints a branch that comes down. ``length`` of the
branch counts from the other run's first step, so with ``schedule={name: wsd, decay: D}`` a branch off
step N comes down at once if ``length.steps`` is N + D.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from schemas.errors import InputError, UsageError
from schemas.storage import Storage, storage
from trainer.config import Branch, RunConfig
from trainer.data_tokenizer import FILE as TOKENIZER
from trainer.engine.checkpoint import latest
from trainer.engine.checkpoint_files import KEY, Manifest, committed
from trainer.engine.checkpoint_place import checkpoints
from trainer.engine.directory import output_of

_SAME = ("model", "objective", "tokenizer", "seed", "batch.size", "optimizer.name")
"""Settings that a branch has from the other run, beside those of its data."""


def checkpoint_of(branch: Branch) -> tuple[Storage, str]:
    """Return folder and name of the checkpoint. InputError if there is none."""
    root = Path(branch.run).expanduser().absolute()
    other = RunConfig.model_validate(_record(root)["config"])
    folder = checkpoints(other, storage(str(root)))
    name = f"step-{branch.step:08}"
    if not folder.exists(f"{name}/{KEY}"):
        steps = ", ".join(str(_step(name)) for name in committed(folder)) or "none"
        raise InputError(
            f"branch.step={branch.step}: {branch.run} has no checkpoint of this step; it has: {steps}. "
            "Give one of them (checkpoint.milestones= of the other run keeps more)"
        )
    return folder, name


def _own(config: RunConfig) -> Storage:
    return checkpoints(config, storage(output_of(config)))


def lineage(config: RunConfig) -> dict[str, Any] | None:
    """Return what run.json says of a branch; None if the run is none, or has begun.

    Errors: InputError if the other run or its checkpoint is not there, UsageError for settings that
    are not that run's, or a length that ends before the branch begins.
    """
    branch = config.branch
    if branch is None or latest(_own(config)) is not None:
        return None
    record = _record(Path(branch.run).expanduser())
    other = RunConfig.model_validate(record["config"])
    _check(config, other, branch)
    manifest = Manifest.load(*checkpoint_of(branch))
    return {
        "run": str(Path(branch.run).expanduser().absolute()),
        "step": branch.step,
        "checkpoint": manifest.digest,
        "config": manifest.facts.get("config"),
        "data": manifest.facts.get("data"),
        "started": record.get("started"),
        "branch": record.get("branch"),
    }


def check_tokenizer(config: RunConfig, output: Path) -> None:
    """Raise UsageError if the tokenizer kept in ``output`` is not that of the other run."""
    assert config.branch is not None
    mine, theirs = (
        path.read_bytes() if path.exists() else None
        for path in (output / TOKENIZER, Path(config.branch.run).expanduser() / TOKENIZER)
    )
    if mine != theirs:
        raise UsageError(
            f"{output / TOKENIZER} is not the tokenizer of branch.run={config.branch.run}: the same "
            "ids would mean other tokens; give that run's tokenizer= and data, and another output="
        )


def check_length(config: RunConfig, steps: int) -> None:
    """Raise UsageError if a branch has no step to make."""
    branch = config.branch
    if branch is not None and steps <= branch.step:
        raise UsageError(
            f"branch.step={branch.step} and a length of {steps} steps: the length counts from the "
            f"first step of {branch.run}; give length.steps={branch.step + 1} at least"
        )


def _record(run: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
        RunConfig.model_validate(record["config"])
    except FileNotFoundError:
        raise InputError(
            f"branch.run={run}: it has no run.json; give the output= of another run"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{run / 'run.json'} is no record of a run ({type(error).__name__}): restore it"
        ) from None
    return record


def _check(config: RunConfig, other: RunConfig, branch: Branch) -> None:
    mine, theirs = (_shown(one) for one in (config, other))
    for name in sorted(mine | theirs):
        if mine.get(name) != theirs.get(name):
            raise UsageError(
                f"{name}={mine.get(name, '(not set)')}, and {branch.run} has "
                f"{name}={theirs.get(name, '(not set)')}: a branch goes on with the other run's model, "
                "data and order of samples; give its setting, or begin a new run (of its weights: "
                "model.init_from=)"
            )


def _shown(config: RunConfig) -> dict[str, Any]:
    """The settings that must be the same: {name: value}. Where data lies does not count: its digest
    is compared."""
    tree = config.model_dump(mode="json")
    found: dict[str, Any] = {}
    for name in _SAME:
        value: Any = tree
        for key in name.split("."):
            value = value[key]
        if isinstance(value, dict):
            found |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            found[name] = value
    for key, value in config.data.items():
        if key == "mix":
            value = [{k: v for k, v in part.items() if k != "path"} for part in value]
        if key != "path":
            found[f"data.{key}"] = value
    return found


def _step(name: str) -> int:
    return int(name.removeprefix("step-"))
