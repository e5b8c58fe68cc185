"""A trained model with its tokenizer and image transform: from a run, or from a `transformers` folder.

Nothing is downloaded and no code or pickle of a folder is run: weights come from safetensors only.
"""

from __future__ import annotations

import contextlib
import json
import logging as log
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.errors import InputError
from schemas.storage import storage
from trainer.evaluation.progress import Progress
from trainer.evaluation.ranking import Features
from trainer.sources.pictures import MEAN, STD, Pixels

if TYPE_CHECKING:
    import torch

RUN = "run.json"
"""What a run directory of ours has."""


@dataclass(frozen=True)
class Loaded:
    """A model ready to encode: weights in fp32, on the GPU if there is one.

    ``facts`` say where it came from: {kind, place}, of a run also {checkpoint, data, seed}.
    """

    model: Any
    tokenizer: Any  # tokenizers.Tokenizer
    processor: Any  # image processor of transformers, Pillow's variant
    facts: dict[str, Any] = field(default_factory=dict)
    batch: int = 64

    @property
    def context(self) -> int:
        """Tokens of a text, special ones included."""
        return int(self.model.config.text_config.max_position_embeddings)

    @property
    def image_size(self) -> int:
        """Side of the model's images in pixels."""
        return int(self.model.config.vision_config.image_size)

    def image_features(
        self, images: Iterable[Pixels], total: int, label: str = "images"
    ) -> Features:
        """Encode RGB pictures (uint8 [h, w, 3], any size): float32 [n, D], unit rows, in order.

        The pictures are taken one batch at a time, so a generator may decode as it goes.
        """
        import torch
        from PIL import Image

        parts, progress = [], Progress(label, total)
        for batch in _batched(images, self.batch):
            pictures = [Image.fromarray(pixels) for pixels in batch]
            pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                found = self.model.get_image_features(pixel_values=pixels.to(self.model.device))
            parts.append(_unit(found))
            progress.add(len(batch))
        return self._joined(parts)

    def text_features(self, texts: Sequence[str], label: str = "texts") -> Features:
        """Encode texts: float32 [n, D], unit rows, in order. Equal texts have equal rows."""
        import torch

        from trainer.tokenizer import encode

        unique = list(dict.fromkeys(texts))
        parts, progress = [], Progress(label, len(unique))
        for batch in _batched(unique, self.batch):
            ids, mask = (torch.from_numpy(a) for a in encode(self.tokenizer, batch, self.context))
            longest = int(mask.sum(1).max())  # attention is causal: padding at the end is idle
            with torch.inference_mode():
                found = self.model.get_text_features(
                    input_ids=ids[:, :longest].to(self.model.device),
                    attention_mask=mask[:, :longest].to(self.model.device),
                )
            parts.append(_unit(found))
            progress.add(len(batch))
        number = {text: i for i, text in enumerate(unique)}
        return self._joined(parts)[[number[text] for text in texts]]

    def _joined(self, parts: list[Features]) -> Features:
        width = int(self.model.config.projection_dim)
        found = np.concatenate([np.empty((0, width), np.float32), *parts])
        if not np.isfinite(found).all():  # a rank among numbers that compare with nothing is 0
            raise InputError(
                f"{self.facts.get('place', 'the model')}: its features are not finite numbers, so no "
                "score of them means anything; give weights that are finite in fp32"
            )
        return found


def load(place: str | Path, batch: int = 64, step: int | None = None) -> Loaded:
    """Load a run directory or a `transformers` folder with CLIP or MetaCLIP 2.

    ``step``: of a run's checkpoint, the latest if None; UsageError for one that is not there. InputError
    if the place is neither, or lacks a part; the message says what was looked for.
    """
    root = storage(place)
    if root.exists(RUN):
        return of_run(place, batch, step)
    if root.is_local and root.exists("config.json"):
        return of_folder(Path(root.url), batch)
    raise InputError(
        f"{place}: neither a run of `trainer launch` (it would have {RUN}) nor a folder of "
        "transformers (it would have config.json, on a local disk)"
    )


def of_run(place: str | Path, batch: int = 64, step: int | None = None) -> Loaded:
    """Load a run directory's checkpoint of a step, the latest if None."""
    from trainer import tokenizer as tokenizers
    from trainer.config import RunConfig, part
    from trainer.engine.checkpoint import at_step, latest, read_weights
    from trainer.engine.checkpoint_place import checkpoints
    from trainer.models import library
    from trainer.protocols import Parts

    library.settle()
    root = storage(place)
    run = read_run(place)
    config = RunConfig.model_validate(run["config"])
    folder = checkpoints(config, root)
    checkpoint = latest(folder) if step is None else at_step(folder, step)
    if checkpoint is None:
        raise InputError(f"{place} has no checkpoint yet; let the run go on until it has saved one")
    tokenizer = tokenizers.load(root.url)
    module, settings = part("model", config.model)
    with quiet():
        model = module.build(settings, config, Parts(tokenizer=tokenizer))
    try:
        model.load_state_dict(read_weights(folder, checkpoint), strict=True)
    except RuntimeError as error:
        raise InputError(
            f"{place}: {checkpoint} does not fit the model of {RUN}: {str(error).splitlines()[-1]}"
        ) from None
    facts = {
        "kind": "run",
        "place": str(place),
        "checkpoint": checkpoint,
        "data": run.get("data"),
        "seed": run.get("seed"),
    }
    processor = image_processor(int(model.config.vision_config.image_size))
    return Loaded(ready(model), tokenizer, processor, facts, batch)


def read_run(place: str | Path) -> dict[str, Any]:
    """Return the content of a run's ``run.json``; InputError if it is not one."""
    root = storage(place)
    try:
        run = json.loads(root.read_bytes(RUN))
        run["config"]["model"]
    except FileNotFoundError:
        raise InputError(
            f"{place} is not a run of `trainer launch`: it has no {RUN}; give its output directory"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{root.path(RUN)} is not what `trainer launch` writes ({error}); restore it"
        ) from None
    return dict(run)


def image_processor(size: int) -> Any:
    """Return CLIP's transform: shorter side to ``size``, bicubic, middle cut, OpenAI mean and std."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=list(MEAN),
        image_std=list(STD),
    )


def of_folder(folder: Path, batch: int = 64) -> Loaded:
    """Load a model saved by `transformers`, with its tokenizer and image processor."""
    from transformers import AutoImageProcessor, AutoTokenizer

    from trainer import tokenizer as tokenizers
    from trainer.models.clip import from_folder

    with quiet():
        model: Any = from_folder(str(folder))
        hugging = pretrained(AutoTokenizer, folder, "a tokenizer")
        processor = pretrained(AutoImageProcessor, folder, "an image processor", backend="pil")
    backend = getattr(hugging, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"{folder}: its tokenizer is not one of `tokenizers`; add its tokenizer.json"
        )
    tokenizer = tokenizers.parse(backend.to_str().encode(), str(folder))
    end, wanted = tokenizers.frame(tokenizer).end, model.config.text_config.eos_token_id
    if end == _declared_end(folder):
        model.pool_at(end)  # also 2, which CLIPModel takes as a word for the largest id
    elif end != wanted:  # the feature is taken where this id stands
        raise InputError(
            f"{folder}: texts end with token {end}, but the model looks for {wanted} "
            "(text_config.eos_token_id of config.json); model and tokenizer do not belong together"
        )
    facts = {"kind": "transformers", "place": str(folder)}
    return Loaded(ready(model), tokenizer, processor, facts, batch)


def _declared_end(folder: Path) -> int | None:
    """The end token as config.json has it, if it does."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config")
    return text.get("eos_token_id") if isinstance(text, dict) else None


def pretrained(auto: Any, folder: Path, what: str, **options: Any) -> Any:
    """Return ``auto.from_pretrained(folder)``; InputError for what cannot be loaded.

    No code of the folder runs: without ``trust_remote_code`` the library would ask on the terminal.
    """
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        return auto.from_pretrained(str(folder), **safe, **options)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{folder}: {what} cannot be loaded from it: {first[:300]}") from None


def ready(model: Any) -> Any:
    """Return a model in fp32 that only evaluates, on the GPU if there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device=device, dtype=torch.float32).eval().requires_grad_(False)


def _unit(found: Any) -> Features:
    """Projected features as unit rows (transformers 5 wraps them)."""
    import torch

    features: torch.Tensor = getattr(found, "pooler_output", found)
    unit = torch.nn.functional.normalize(features.float(), dim=-1)
    return np.asarray(unit.cpu().numpy(), np.float32)


def _batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's bars and warnings off stderr, where our own progress is."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    below = log.root.manager.disable
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    log.disable(log.WARNING)  # it imports DeepSpeed where that is installed, which warns on stdout
    try:
        yield
    finally:
        log.disable(below)
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
