"""`launch` of the tiny model, whose steps take 0.15 s: ``python -m tests.trainer.launching.tiny_job
OUTPUT STEPS RANKS [RSH]`` (no RANKS: one process without a launcher, as `trainer launch` does it).
With ``rank`` as its only argument it is one of the ranks."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from schemas.command_line import guarded
from tests.trainer.engine import tiny, tiny_source
from trainer.engine.run import train
from trainer.launching import rank
from trainer.launching.hosts import Host
from trainer.launching.job import Layout, launch, local_layout
from trainer.launching.place import place_of

COMMAND = (sys.executable, "-m", "tests.trainer.launching.tiny_job", "rank")
STEP_SECONDS = 0.15
STARTING = "HEADRACE_TEST_STARTING"
"""A folder: ranks say there that they are up, and never go on."""


def slowed() -> None:
    """Make the tiny parts known, and their steps slow."""
    tiny.register()
    batch = tiny_source.TinySource.batch

    def slow(self: tiny_source.TinySource, positions: Any) -> Any:
        time.sleep(STEP_SECONDS)
        return batch(self, positions)

    tiny_source.TinySource.batch = slow  # type: ignore[method-assign]


def job(output: str, steps: str, ranks: str = "", rsh: str = "") -> int:
    """Launch, or train in this process; returns the exit code."""
    config = tiny.run_config(output, length={"steps": int(steps)}, loaders=1)
    if not ranks:
        slowed()
        return train(config, place_of(os.environ))
    layout = local_layout(int(ranks), None)
    if rsh:
        layout = Layout(tuple(Host(f"h{i}", i, 1) for i in range(int(ranks))), rsh)
    return launch(config, layout, 1, COMMAND)


if __name__ == "__main__":
    if sys.argv[1:] != ["rank"]:
        sys.exit(guarded("trainer", lambda: job(*sys.argv[1:])))
    if folder := os.environ.get(STARTING):
        (Path(folder) / f"up-{os.environ['RANK']}").touch()
        time.sleep(60)
    slowed()
    rank.main()
