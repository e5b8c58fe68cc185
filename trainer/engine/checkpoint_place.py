"""Where a run's checkpoints are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from schemas.storage import Storage, storage

FOLDER = "checkpoints"
"""Of the run directory, unless ``checkpoint.path`` names another place."""


def checkpoints(config: Any, root: Storage) -> Storage:
    """Return the folder of the checkpoints of a run (a `RunConfig`) whose directory is ``root``."""
    path = config.checkpoint.path
    if path is None:
        return root.at(FOLDER)
    return storage(path if "://" in path else Path(path).expanduser().absolute())
