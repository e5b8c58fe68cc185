"""``python -m tests.trainer.engine.train_rank SETTINGS``: `train` as the rank that the environment
names, with the tiny parts known; what it raises for the user is printed, and its exit code kept.
``long`` of the settings: seconds after which a step is long."""

from __future__ import annotations

import json
import os
import sys

from schemas.command_line import guarded
from tests.trainer.engine import tiny
from trainer.engine import signals
from trainer.engine.run import train
from trainer.protocols import Place

if __name__ == "__main__":
    tiny.register()
    settings = json.loads(sys.argv[1])
    signals.LONG = settings.pop("long", signals.LONG)
    place = Place(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    code = guarded("rank", lambda: train(tiny.run_config(**settings), place))
    sys.stderr.flush()
    os._exit(code)  # the exit of a process group that lost a rank may wait for it
