"""A tiny CLIP with random weights, as a folder of `transformers`, and pictures to show it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.evaluation.plain import Plain
from trainer.evaluation.loading import Loaded, image_processor, load, quiet

TEXTS = ["a dog on a red background", "eine Katze", "犬の写真", "นกสีแดง", "صورة كلب", "собака"]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, processor and tokenizer, saved as an export is."""
    import torch

    from trainer import export
    from trainer.models import clip
    from trainer.tokenizer import train

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = train(TEXTS * 3, 320)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    tower |= {"num_hidden_layers": 2, "projection_dim": 16}
    text = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 20}
    text |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    shape = {
        "text_config": tower | text,
        "vision_config": tower | {"image_size": 32, "patch_size": 8},
        "projection_dim": 16,
    }
    model = clip.new(shape, seed=3).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Fresh weights see all pictures nearly alike: every one would get the same answer.
            if parameter.ndim > 1 and "embedding" not in name:
                parameter.mul_(4)
    loaded = Loaded(model, tokenizer, image_processor(32))
    with quiet():
        model.save_pretrained(folder)
        export.processor(loaded).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def loaded(clip_folder: Path) -> Loaded:
    return load(clip_folder, batch=4)


@pytest.fixture(scope="session")
def plain(clip_folder: Path) -> Plain:
    """The same model used as its users would, one picture and one text at a time."""
    return Plain(clip_folder)


@pytest.fixture(scope="session")
def picture() -> Callable[[int], bytes]:
    """Picture number k as JPEG, 40 to 80 pixels a side."""

    def made(k: int) -> bytes:
        rng = np.random.default_rng(k)
        small = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        size = tuple(int(n) for n in rng.integers(40, 81, 2))
        buffer = io.BytesIO()
        Image.fromarray(small).resize(size, Image.Resampling.NEAREST).save(buffer, "JPEG")
        return buffer.getvalue()

    return made
