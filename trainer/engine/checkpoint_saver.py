"""When a run saves, and what becomes of it: one checkpoint at a time is written in the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from schemas.storage import Storage
from trainer.config import Checkpoints
from trainer.engine import checkpoint


class Saver:
    """Saves a run's checkpoints. All but `due` and `ready` are called by all ranks together.

    ``told(step, seconds)`` is called after each commit: seconds that training stood still for it.
    """

    def __init__(
        self,
        settings: Checkpoints,
        folder: Storage,
        engine: Any,
        told: Callable[[int, float], None],
    ) -> None:
        self._settings, self._folder, self._engine, self._told = settings, folder, engine, told
        self._writing: checkpoint.Writing | None = None
        self._step = 0
        self._stood = 0.0

    def due(self, step: int) -> bool:
        """Return whether a checkpoint is due after so many steps."""
        settings = self._settings
        return any(n and step % n == 0 for n in (settings.every, settings.milestones))

    def ready(self) -> int:
        """Return 1 if this rank has written its part of a checkpoint that is not committed yet."""
        return int(self._writing is not None and self._writing.ready)

    def save(self, step: int, facts: dict[str, Any], *, wait: bool) -> None:
        """Save after so many steps; ``wait`` for the commit, else return after the copy."""
        self.finish()
        begun = time.perf_counter()
        name, self._step, self._stood = f"step-{step:08}", step, 0.0
        if wait or self._settings.wait:
            checkpoint.save(self._folder, name, self._engine, facts)
            self._committed(begun)
        else:
            self._writing = checkpoint.begin(self._folder, name, self._engine, facts)
            self._stood = time.perf_counter() - begun

    def finish(self) -> None:
        """Commit what is being written, if anything is; waits for all ranks' files."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            begun = time.perf_counter()
            writing.finish()
            self._committed(begun)

    def _committed(self, begun: float) -> None:
        settings = self._settings
        checkpoint.prune(self._folder, settings.keep, settings.milestones)
        self._told(self._step, self._stood + time.perf_counter() - begun)
