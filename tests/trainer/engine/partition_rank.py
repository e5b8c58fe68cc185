"""``python -m tests.trainer.engine.partition_rank FILE FOLDER...``: builds models under every stage as the
rank that the environment names, and writes down what each rank held meanwhile.

FILE.RANK gets {case: {"peak": bytes of live storages at most, until DeepSpeed's own start, "total": bytes of
the weights, "largest": of the largest, "masters" and "weights": digests by parameter}}.
"""

from __future__ import annotations

import hashlib
import os
import sys
import weakref
from typing import Any

import deepspeed as library
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainer.objectives import words
from trainer.config import RunConfig, part
from trainer.engine import deepspeed
from trainer.engine.checkpoint_files import MASTERS
from trainer.engine.checkpoint_state import EngineState
from trainer.engine.sizes import sizes
from trainer.protocols import Parts, Place

WIDE = words.SHAPE | {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 6}
UNTIED = WIDE | {"tie_word_embeddings": False}
GPT2 = {key: value for key, value in WIDE.items() if key != "intermediate_size"}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"name": "decoder", "size": "tiny", "shape": WIDE},
    "gpt2": {"name": "decoder", "size": "gpt2-tiny", "context": 32, "shape": GPT2},
}
BATCH = {"size": 8}


class Live(TorchDispatchMode):
    """Counts bytes of storages from the operation that made them to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else (found,):
            if isinstance(one, torch.Tensor) and one.device.type == "cpu":
                self._count(one.untyped_storage())
        return found

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._end, key, size)

    def _end(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def built(config: RunConfig) -> Any:
    """The run's model alone."""
    module, settings = part("model", config.model)
    return module.build(settings, config, Parts()).train()


class Started(Exception):
    """DeepSpeed's own start is reached."""


def until_start(config: Any, place: Place) -> dict[str, int]:
    """What this rank holds until DeepSpeed gets the model."""
    original = library.initialize

    def reached(**_: Any) -> None:
        raise Started

    library.initialize = reached
    live = Live()
    try:
        with live:
            model = built(config)
            deepspeed.start(model, config, sizes(config, place.ranks), place)
    except Started:
        pass
    finally:
        library.initialize = original
    shapes = [getattr(p, "ds_shape", p.shape) for p in model.parameters()]
    sizes_ = [4 * torch.Size(shape).numel() for shape in shapes]
    return {"peak": live.peak, "total": sum(sizes_), "largest": max(sizes_)}


def digests(engine: Any) -> dict[str, dict[str, str]]:
    """Of masters (on rank 0) and of the weights that the forward uses."""
    state = EngineState(engine)
    masters = {name: state.collect(name, MASTERS, 0) for name in state.shapes}
    return {
        "masters": {n: digest(v) for n, v in masters.items() if v is not None},
        "weights": {name: digest(value) for name, value in state.forward_weights()},
    }


def digest(value: torch.Tensor) -> str:
    """Of a tensor's bytes and shape."""
    found = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{hashlib.sha256(found).hexdigest()[:16]} {tuple(value.shape)}"


def stages(name: str) -> tuple[int, ...]:
    """Those that a model is built under: all of the first model, the last one of others."""
    return (0, 1, 2, 3) if name == "llama" else (3,)


def main(file: str, folders: list[str]) -> None:
    words.register()
    place = Place(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    deepspeed.join(place)
    models = MODELS | {
        f"folder {i}": {"name": "decoder", "init_from": f} for i, f in enumerate(folders)
    }
    found: dict[Any, Any] = {}
    for name, settings in models.items():
        for precision in ("fp32", "bf16"):
            for stage in stages(name):
                config = words.run_config(
                    "unused", zero=stage, precision=precision, model=settings, batch=BATCH
                )
                model = built(config)
                engine = deepspeed.start(model, config, sizes(config, place.ranks), place)
                found[name, precision, stage] = digests(engine)
                engine.destroy()
        for stage in (0, 3):
            config = words.run_config("unused", zero=stage, model=settings, batch=BATCH)
            found[name, "held", stage] = until_start(config, place)
    torch.save(found, f"{file}.{place.rank}")
    deepspeed.leave()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
    sys.stderr.flush()
    os._exit(0)  # groups of several engines do not always end in order
