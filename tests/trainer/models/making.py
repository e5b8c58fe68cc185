"""Small tokenizers, models and settings that the model's tests share."""

from __future__ import annotations

import functools
from typing import Any

from tokenizers import Tokenizer

from trainer import tokenizer
from trainer.config import RunConfig
from trainer.models import clip
from trainer.models.metaclip2 import Settings, shape


@functools.cache
def a_tokenizer() -> Tokenizer:
    return tokenizer.train(["a red square above a blue circle"] * 3, 300)


def a_config(**fields: Any) -> RunConfig:
    base = {"recipe": "x", "output": "x", "model": {}, "data": {}, "objective": {}}
    return RunConfig.model_validate({**base, "length": {"steps": 1}, **fields})


def a_model(seed: int = 0, tokens: int = 300, **settings: Any) -> clip.MetaClip2Model:
    small = {"size": "tiny", "image": 32, "context": 12, **settings}
    return clip.new(shape(Settings.model_validate(small), tokens, 2), seed)
