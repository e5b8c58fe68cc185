"""Tokens one after the other from a language model, seeded.

The same model, prompt, settings and seed give the same tokens on the same machine: every draw is by
inverse transform from a number of (seed, sample, place), not from a generator's state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import UsageError
from schemas.ids import id128, id_array, uniform

if TYPE_CHECKING:
    from trainer.evaluation.language import LanguageModel

_SALT = 511


class Settings(BaseModel):
    """Settings of ``trainer generate``."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field("", description="text to continue")
    tokens: int = Field(200, ge=1, description="at most so many new ones")
    samples: int = Field(1, ge=1, le=1000, description="continuations of the prompt")
    temperature: float = Field(0.8, ge=0, le=100, description="0: always the most probable token")
    top_p: float = Field(1.0, gt=0, le=1, description="the most probable that make up so much")
    top_k: int = Field(0, ge=0, description="the k most probable; 0: all")
    seed: int = Field(0, ge=0, lt=1 << 63)


def start(loaded: LanguageModel, settings: Settings) -> list[int]:
    """Return the prompt's tokens.

    UsageError for a prompt that leaves no room in the context, or an empty one to a model that never
    saw what stands before a text.
    """
    ids = loaded.encode(settings.prompt)
    if not ids:
        if loaded.documents or loaded.eos is None:
            raise UsageError(
                "prompt: it is empty, and this model never saw what comes before a text's first word: "
                'give words to continue, as in prompt="The city of"'
            )
        ids = [loaded.eos]
    if len(ids) >= loaded.context:
        raise UsageError(
            f"prompt: {len(ids)} tokens leave no room in the {loaded.context} of the model's context: "
            "give a shorter one"
        )
    return ids


def continuation(loaded: LanguageModel, settings: Settings, sample: int = 0) -> Iterator[int]:
    """Yield new tokens, up to ``settings.tokens``, the end of text (not yielded) or the full context."""
    import torch

    ids = start(loaded, settings)
    room = min(settings.tokens, loaded.context - len(ids))
    given, past = torch.tensor([ids], device=loaded.model.device), None
    for place in range(room):
        with torch.inference_mode():
            out = loaded.model(
                input_ids=given, past_key_values=past, use_cache=True, logits_to_keep=1
            )
        past = out.past_key_values
        logits: npt.NDArray[np.float64] = out.logits[0, -1].double().cpu().numpy()
        token = chosen(logits, settings, draw(settings.seed, sample, place))
        if token == loaded.eos:
            return
        yield token
        given = torch.tensor([[token]], device=loaded.model.device)


def draw(seed: int, sample: int, place: int) -> float:
    """Return the number in [0, 1) that decides a token."""
    key = id128(b"token", *(n.to_bytes(8, "little") for n in (sample, place)))
    return float(uniform(seed, 0, id_array([key]), _SALT)[0])


def chosen(logits: npt.NDArray[np.float64], settings: Settings, number: float) -> int:
    """Return a token by inverse transform over the tokens in falling order of probability.

    ``top_k`` keeps the k most probable; of these ``top_p`` keeps the fewest whose probabilities, at the
    temperature, sum to it at least. Equal ones go by their ids.
    """
    if settings.temperature == 0:
        return int(logits.argmax())
    order = np.argsort(-logits, kind="stable")
    if settings.top_k:
        order = order[: settings.top_k]
    scaled = logits[order] / settings.temperature
    probability = np.exp(scaled - scaled[0])
    mass = probability.cumsum() / probability.sum()
    kept = int(np.searchsorted(mass, settings.top_p - 1e-12)) + 1
    mass = mass[:kept]
    return int(order[min(int(np.searchsorted(mass, number * mass[-1], side="right")), kept - 1)])


def pieces(tokenizer: Any, tokens: Iterator[int], before: Sequence[int] = ()) -> Iterator[str]:
    """Yield the text of tokens as they come; characters of several tokens come whole.

    ``before``: tokens that stand before them, for a decoder that joins words.
    """
    known = list(before)
    said = len(tokenizer.decode(known, skip_special_tokens=True))
    for token in tokens:
        known.append(token)
        text = tokenizer.decode(known, skip_special_tokens=True)
        if not text.endswith("\ufffd"):
            if len(text) > said:
                yield text[said:]
            said = len(text)
    text = tokenizer.decode(known, skip_special_tokens=True)
    if len(text) > said:
        yield text[said:]
