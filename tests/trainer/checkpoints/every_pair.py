"""Saved under one ZeRO stage and number of ranks, continued under another: every pair, on real tokens.

    python -m tests.trainer.checkpoints.every_pair               all 288 pairs
    python -m tests.trainer.checkpoints.every_pair --slice 10    some of them, drawn from --seed

Stages 0 to 3 times 1, 2 and 4 ranks, in fp32 and in bf16: a Llama with tied embeddings trains on
token data under AdamW with clipping, saves after 3 steps and goes on for 21. Each of the 12 layouts
continues from each checkpoint and makes the same 21 steps. What the engine holds and its forward
uses must be, on every rank, the hashes of what was saved, and the losses those of the run that went
on. Prints one JSON object. ``--folder`` keeps what was done: the same command then continues.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import random
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from schemas import records
from schemas.storage import storage
from tests.support import ROOT, free_port
from tests.trainer import real_tokens
from tests.trainer.checkpoints.training import optimizer_shas, sha

STAGES, RANKS, PRECISIONS = (0, 1, 2, 3), (1, 2, 4), ("fp32", "bf16")
SAVED_AT, MORE = 3, 20
BATCH, MICRO = 8, 2
LIMITS = {"fp32": 1e-6, "bf16": 2e-3}
"""Of a loss against the uninterrupted run's, relative."""
SOURCES = (
    *("trainer/engine/*.py", "trainer/packing/*.py", "trainer/sources/tokens.py"),
    *("trainer/models/decoder*.py", "trainer/objectives/l*.py", "trainer/config.py"),
    *("tests/trainer/checkpoints/every_pair.py", "tests/trainer/real_tokens.py"),
)
IMPORTED = (
    *("deepspeed", "trainer.engine.run", "trainer.engine.checkpoint", "trainer.engine.step"),
    *("trainer.models.decoder_model", "trainer.models.decoder"),
    *("trainer.objectives.language", "trainer.sources.tokens"),
)
Layout = tuple[int, int]  # ranks, ZeRO stage
Key = tuple[Any, ...]
"""("whole", precision, *layout), or ("on", precision, *layout saved, *layout)."""


def pairs() -> list[Key]:
    """All continued runs."""
    layouts = list(itertools.product(RANKS, STAGES))
    return [("on", p, *a, *b) for p in PRECISIONS for a in layouts for b in layouts]


# -- in the processes of a group ---------------------------------------------------------------


def do(key: Key, folder: Path, place: Any) -> dict[str, Any]:
    """One run, by all ranks of a group."""
    from trainer.config import load
    from trainer.engine import checkpoint, deepspeed
    from trainer.engine.feed import feed
    from trainer.engine.parts import build
    from trainer.engine.schedule import learning_rate
    from trainer.engine.sizes import sizes
    from trainer.engine.step import Stepper
    from trainer.engine.together import everyone

    kind, precision, *layout = key
    zero = layout[-1]
    at = storage(folder / "-".join(map(str, ("whole", precision, *layout[:2]))))
    words = [f"zero={zero}", f"precision={precision}", f"batch.size={BATCH}", "loaders=0"]
    words += ["schedule.warmup=0", "schedule.name=constant", "clip=1.0"]
    if precision == "fp32" or zero:  # stage 0 in bf16 refuses accumulation
        words.append(f"batch.micro={MICRO}")
    steps = SAVED_AT + 1 + MORE
    given = real_tokens.words(folder / "tokens", folder / "run", steps, *words)
    config = load(given[0], given[1:])
    parts = build(config, place)
    of = sizes(config, place.ranks, parts.source)
    engine = deepspeed.start(parts.model, config, of, place)
    result: dict[str, Any] = {"losses": []}
    first = 0
    if kind == "on":
        facts = checkpoint.restore(at, str(checkpoint.latest(at)), engine)
        first = int(facts["step"])
    ours = deepspeed.clips_itself(config)
    stepper = Stepper(
        engine, parts.objective, place, config.seed, norm=ours, clip=config.clip if ours else None
    )
    for part in feed(parts.source, of, place.rank, 0, first):
        if part.step == SAVED_AT:
            if kind == "whole":
                position = {"step": SAVED_AT, "position": SAVED_AT * BATCH}
                checkpoint.save(at, f"step-{SAVED_AT:08}", engine, position)
            result["held"] = _held(engine, parts.objective, part.batches[0])
        outcome = stepper.step(part, learning_rate(config.schedule, 3e-3, part.step, of.steps))
        if part.step >= SAVED_AT:
            result["losses"].append(outcome.loss)
    every = everyone(place, result["held"])
    result["ranks_apart"] = [rank for rank, held in enumerate(every) if held != every[0]]
    engine.destroy()
    return result


def _held(engine: Any, objective: Any, batch: Any) -> dict[str, Any]:
    """SHA-256 of masters and moments, and of each weight while a forward pass uses it."""
    import torch

    found = optimizer_shas(engine)
    names = {id(p): n for n, p in engine.module.named_parameters()}

    def look(module: Any, *_: Any) -> None:
        for value in module.parameters(recurse=False):
            found["tensors"][names[id(value)]]["forward"] = sha(value)

    hooks = [
        m.register_forward_pre_hook(look, with_kwargs=True)
        for m in engine.module.modules()
        if next(m.parameters(recurse=False), None) is not None
    ]
    with torch.no_grad():
        objective.components(engine, batch)
    for hook in hooks:
        hook.remove()
    return found


def _member(rank: int, ranks: int, port: int, keys: list[Key], folder: Path, name: str) -> None:
    """A process of a group: does the runs one after another; rank 0 notes each result."""
    from torch.nn import functional

    from trainer.engine import checkpoint_files, deepspeed
    from trainer.protocols import Place

    log = os.open(folder / f"{name}-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    checkpoint_files.SHARD_BYTES = 20_000  # several shards of a kind
    place = Place(rank, ranks, rank)
    deepspeed.join(place)
    linear = functional.linear
    for key in keys:
        result = do(key, folder, place)
        functional.linear = linear  # stage 3 leaves its own
        gc.freeze()  # DeepSpeed collects garbage at every start, through all of torch's modules
        if rank == 0:
            with open(folder / "journal.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps([key, result]) + "\n")


# -- the program -------------------------------------------------------------------------------


class Work:
    """What was done in a folder, and what is to be done there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.journal = folder, folder / "journal.jsonl"
        digest = records.sources_digest(SOURCES, ROOT)
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / "sources"
        if not kept.exists() or kept.read_text(encoding="utf-8") != digest:
            self.journal.unlink(missing_ok=True)  # it speaks of other sources
            kept.write_text(digest, encoding="utf-8")

    def done(self) -> dict[Key, dict[str, Any]]:
        """Results by key; the last line of a killed run may be half."""
        if not self.journal.exists():
            return {}
        lines = self.journal.read_text(encoding="utf-8").split("\n")[:-1]
        return {tuple(key): result for key, result in map(json.loads, lines)}

    def do(self, keys: list[Key]) -> None:
        """Do the runs that are not done, in groups of 1, 2 and 4 processes: forked, so that torch
        and DeepSpeed are imported once."""
        done = self.done()
        todo = [key for key in keys if key not in done]
        for ranks in RANKS:
            mine = [key for key in todo if key[-2] == ranks]
            lanes = [mine[0::2], mine[1::2]] if ranks == 1 else [mine]
            self._groups(ranks, [lane for lane in lanes if lane])

    def _groups(self, ranks: int, lanes: list[list[Key]]) -> None:
        running = {}
        for number, keys in enumerate(lanes):
            port = free_port()
            for rank in range(ranks):
                name = f"ranks-{ranks}-{number}"
                if (pid := os.fork()) == 0:
                    code = 1
                    try:
                        _member(rank, ranks, port, keys, self.folder, name)
                        code = 0
                    except BaseException:
                        traceback.print_exc()
                    sys.stderr.flush()
                    os._exit(code)  # groups of so many engines do not always end in order
                running[pid] = self.folder / f"{name}-{rank}.log"
        told = time.monotonic()
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                log = running.pop(pid)
                if status:
                    for other in running:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(other, 9)
                    raise SystemExit(f"a rank ended early: {log.read_text()[-3000:]}")
                continue
            time.sleep(0.1)
            if time.monotonic() - told > 10:
                told = time.monotonic()
                print(f"{len(self.done())} runs done", file=sys.stderr, flush=True)


def compared(done: dict[Key, dict[str, Any]], keys: list[Key]) -> dict[str, Any]:
    """The figures of pairs, and what was not as promised."""
    faults: list[str] = []
    first, later = dict.fromkeys(PRECISIONS, 0.0), dict.fromkeys(PRECISIONS, 0.0)
    mismatched = identical = 0
    for key in keys:
        _, precision, *layouts = key
        saved, on = done["whole", precision, *layouts[:2]], done[key]
        what = (
            f"{precision}, saved with {layouts[0]} ranks at stage {layouts[1]}, continued with "
            f"{layouts[2]} at {layouts[3]}"
        )
        wrong = [
            f"{kind} of {name}"
            for name, kinds in saved["held"]["tensors"].items()
            for kind in ("masters", "exp_avg", "exp_avg_sq", "forward")
            if on["held"]["tensors"][name].get(kind) != kinds[kind]
        ]
        mismatched += len(wrong)
        if wrong or on["held"]["steps"] != saved["held"]["steps"]:
            faults.append(f"{what}: {wrong[:1] or on['held']['steps']} is not what was saved")
        if on["ranks_apart"]:
            faults.append(f"{what}: ranks {on['ranks_apart']} hold something else than rank 0")
        if len(on["losses"]) != MORE + 1:
            faults.append(f"{what}: {len(on['losses'])} steps")
        apart = [abs(a - b) / abs(b) for a, b in zip(on["losses"], saved["losses"], strict=True)]
        first[precision] = max(first[precision], apart[0])
        later[precision] = max(later[precision], *apart[1:])
        if max(apart) > LIMITS[precision]:
            faults.append(f"{what}: losses differ by {apart[0]:.1e}, then {max(apart[1:]):.1e}")
        if layouts[:2] == layouts[2:]:
            identical += max(apart) == 0
    return {
        "pairs": len(keys),
        "checkpoints": len({key[1:4] for key in keys}),
        "steps_continued": MORE + 1,
        "first_loss_apart": first,
        "later_losses_apart": later,
        "mismatched_hashes": mismatched,
        "same_layout": sum(key[2:4] == key[4:] for key in keys),
        "same_layout_identical": identical,
        "faults": faults,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slice", type=int, default=0, help="how many pairs, instead of all")
    parser.add_argument("--seed", type=int, default=0, help="of the slice")
    parser.add_argument("--folder", type=Path, help="where to keep what was done, and continue")
    args = parser.parse_args(argv)
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    begun = time.monotonic()
    keys = pairs()
    if args.slice:
        keys = random.Random(args.seed).sample(keys, args.slice)
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work = Work(folder)
        if not (folder / "tokens").exists():
            real_tokens.dataset(folder)
        os.environ["DS_ACCELERATOR"] = "cpu"
        for name in IMPORTED:  # before the processes fork
            import_module(name)
        work.do(list(dict.fromkeys(("whole", *key[1:4]) for key in keys)))
        work.do(keys)
        found = compared(work.done(), keys)
    seconds = round(time.monotonic() - begun, 1)
    print(json.dumps({**found, "seed": args.seed, "seconds": seconds}))
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
