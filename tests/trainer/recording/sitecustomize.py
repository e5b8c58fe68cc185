"""Loaded by the interpreter where this folder is on PYTHONPATH: ranks write down what they do.

A line of JSON for each step that a rank makes (positions, and a hash of each sample that it is fed)
and after a restore (what the optimizer holds, then what the first forward uses). The training
code itself is the shipped one.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def _record() -> None:
    from trainer.engine import checkpoint
    from trainer.engine.step import Stepper

    restore, step = checkpoint.restore, Stepper.step
    used: dict[str, str] = {}
    hooks: list[Any] = []

    def restored(folder: Any, name: str, engine: Any) -> Any:
        from tests.trainer.checkpoints.training import optimizer_shas, sha

        facts = restore(folder, name, engine)
        _write({"restored": name, "facts": facts, **optimizer_shas(engine)})
        names = {id(p): n for n, p in engine.module.named_parameters()}

        def look(module: Any, *_: Any) -> None:
            for value in module.parameters(recurse=False):
                if value.numel():
                    used.setdefault(names[id(value)], sha(value))

        modules = engine.module.modules()
        hooks.extend(m.register_forward_pre_hook(look, with_kwargs=True) for m in modules)
        return facts

    def made(self: Any, feed: Any, lr: float) -> Any:
        samples = [
            hashlib.sha256(b"".join(b[k][i].numpy().tobytes() for k in sorted(b))).hexdigest()[:16]
            for b in feed.batches
            for i in range(len(next(iter(b.values()))))
        ]
        positions = [int(k) for part in feed.positions for k in part]
        outcome = step(self, feed, lr)
        if hooks:
            for hook in hooks:
                hook.remove()
            hooks.clear()
            _write({"forward": used})
        _write({"step": feed.step, "positions": positions, "samples": samples})
        return outcome

    checkpoint.restore = restored
    Stepper.step = made  # type: ignore[method-assign,assignment]


def _write(line: dict[str, Any]) -> None:
    rank = int(os.environ.get("RANK", "0"))
    with (Path(os.environ["HEADRACE_TEST_RECORD"]) / f"{rank}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


if os.environ.get("HEADRACE_TEST_RECORD"):
    _record()
