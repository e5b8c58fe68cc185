"""`trainer where RUN --step N`: which samples a step of a run took, and where each lies."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import InputError, IntegrityError, UsageError

if TYPE_CHECKING:
    from trainer.config import RunConfig
    from trainer.protocols import Source

HELP = "name shard, row group, row, ids and epoch of every sample of a step"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run directory: output= of `trainer launch`")
    parser.add_argument(
        "--step", type=int, required=True, metavar="N", help="as in metrics.jsonl: the first is 1"
    )
    parser.add_argument("--rank", type=int, metavar="R", help="samples of this rank only")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the samples; exit code 0."""
    found = where(Path(args.run), args.step, args.rank)
    if args.json:
        print(json.dumps(found))
        return 0
    first, end = found["positions"]
    print(
        f"step {found['step']:,} of {found['steps']:,}: samples {first:,} to {end - 1:,} of the "
        f"run, on {found['ranks']} rank{'s' if found['ranks'] > 1 else ''}"
    )
    if found["left_out"]:
        print(f"left out of the run, no weight learnt from it: {found['left_out']}")
    for sample in found["samples"]:
        print(_line(sample))
    return 0


def where(output: Path, step: int, rank: int | None = None) -> dict[str, Any]:
    """Return what the step took: {step, steps, positions: [first, end), ranks, left_out,
    samples}; ``left_out``: the fault for which the run made no such step, else None.

    A sample: position in the run, rank, what the source says of its place (epoch, shard, row group,
    row, ids), and ``replaced`` if its image was bad. Only the source is built, no model.
    Errors: UsageError for a step or rank that the run has not, InputError for what is no run,
    IntegrityError when the data is no longer that of the run.
    """
    import numpy as np

    from trainer.engine.sizes import sizes
    from trainer.protocols import rows_of

    config, record = _run_of(output)
    source = _source(config)
    if source.digest != record["data"]["digest"]:
        path = config.data.get("path")
        named = f"data.path={path}" if path else "data.mix"
        raise IntegrityError(
            f"{output} is a run on dataset {record['data']['digest']}, and {named} is "
            f"{source.digest}: bring the run's dataset back there"
        )
    steps = sizes(config, 1, source).steps
    if not 1 <= step <= steps:
        raise UsageError(f"--step {step}: the run has {steps} steps, give 1 to {steps}")
    events = list(_events(output))
    ranks = _ranks(events, step, record["ranks"])
    if rank is not None and not 0 <= rank < ranks:
        raise UsageError(f"--rank {rank}: step {step} ran on {ranks} ranks, give 0 to {ranks - 1}")
    size = config.batch.size
    first, end = (step - 1) * size, step * size
    replaced = {e["position"]: e for e in events if e["event"] == "replaced"}
    samples = []
    for one in range(ranks) if rank is None else [rank]:
        mine = rows_of(np.arange(first, end, dtype=np.int64), one, ranks)
        for position, place in zip(mine.tolist(), source.places(mine), strict=True):
            sample = {"position": position, "rank": one, **place}
            if event := replaced.get(position):
                sample["replaced"] = {key: event[key] for key in ("reason", "by") if key in event}
            samples.append(sample)
    faults = [e for e in events if e["event"] == "left_out" and e["first"] <= step <= e["step"]]
    return {
        "step": step,
        "steps": steps,
        "positions": [first, end],
        "ranks": ranks,
        "left_out": f"{faults[-1]['fault']}; see {faults[-1]['file']}" if faults else None,
        "samples": samples,
    }


def _run_of(output: Path) -> tuple[RunConfig, dict[str, Any]]:
    """The settings of a run, and all that run.json says."""
    from trainer.config import RunConfig

    path = output / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        config = RunConfig.model_validate(record["config"])
        record["data"]["digest"], record["ranks"]
    except FileNotFoundError:
        raise InputError(
            f"{output} is no run directory: it has no run.json; give the output= of a run"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no record of a run ({type(error).__name__}): restore it"
        ) from None
    return config, record


def _source(config: RunConfig) -> Source:
    """The run's source without the parts that only its batches need."""
    from trainer.config import part
    from trainer.protocols import Parts

    module, settings = part("data", config.data)
    source: Source = module.build(settings, config, Parts())
    return source


def _events(output: Path) -> Iterator[dict[str, Any]]:
    """Events of metrics.jsonl, in order; the last line of a killed run may be half."""
    try:
        lines = (output / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and "event" in found:
            yield found


def _ranks(events: list[dict[str, Any]], step: int, first: int) -> int:
    """On how many ranks the step ran: a run may continue with others."""
    begun = [e for e in events if e["event"] in ("started", "continued") and e["step"] < step]
    return int(begun[-1].get("ranks", first)) if begun else first


def _line(sample: dict[str, Any]) -> str:
    """One sample for people; of a sequence its parts below, one line each, with their ids."""
    values = dict(sample)
    ids = values.pop("ids", {})
    parts = values.pop("parts", [])
    replaced = values.pop("replaced", None)
    words = [f"{values.pop('position'):>10}  rank {values.pop('rank')}"]
    words += [f"{name} {value}" for name, value in values.items()]
    if not parts:
        words += _ids(ids)
    if replaced:
        words.append(f"replaced by sample {replaced.get('by')} ({replaced.get('reason')})")
    lines = ["  ".join(words)]
    for i, part in enumerate(parts):
        own = _ids({name: of_parts[i] for name, of_parts in ids.items()})
        lines.append("  ".join(["", *(f"{name} {value}" for name, value in part.items()), *own]))
    return "\n      ".join(lines)


def _ids(ids: dict[str, Any]) -> list[str]:
    # URLs are anyone's: JSON shows what a terminal would obey.
    return [f"{name}={json.dumps(value)}".replace("\x7f", "\\u007f") for name, value in ids.items()]
