"""What a generated pool is like: sizes of languages, tail of concepts, amount of noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from schemas.errors import UsageError

LANGUAGE_SHARES: Final[Mapping[str, float]] = MappingProxyType(
    {
        "en": 0.44,
        "es": 0.09,
        "de": 0.08,
        "fr": 0.07,
        "ja": 0.055,
        "ru": 0.055,
        "zh": 0.04,
        "pt": 0.04,
        "it": 0.03,
        "nl": 0.02,
        "pl": 0.018,
        "id": 0.013,
        "sv": 0.01,
        "th": 0.008,
        "ko": 0.006,
        "tr": 0.005,
        "uk": 0.004,
        "ar": 0.004,
        "vi": 0.003,
        "cs": 0.004,
        "hu": 0.003,
        "el": 0.002,
    }
)
"""Share of each language among images; English as in the paper's pool (section 4.1: 44 %)."""

SPLITS: Final = ("train", "test", "all")


@dataclass(frozen=True)
class PoolConfig:
    """Settings of a pool; with a seed they decide every record.

    zipf: exponent of the concepts' frequencies in the train part (test: all equally frequent).
    skew: standard deviation by which a language shifts the log of a concept's rank; 0 gives every
        language the same ranking, and so worldwide and English the same distribution.
    noise: factor on the shares of file names, shop texts, page furniture, texts in another language
        and broken texts; 0 leaves captions and descriptions only, 1 is web-like.
    duplicates: share of records that show an image seen before in the pool.
    split: which part to emit: "train", "test" or "all".
    concepts: how many of the stamps' concepts occur, the same for every seed; 0: all.
    """

    zipf: float = 1.0
    skew: float = 1.0
    noise: float = 1.0
    duplicates: float = 0.03
    split: str = "all"
    concepts: int = 0

    def __post_init__(self) -> None:
        limits = {"zipf": 4.0, "skew": 10.0, "noise": 5.0, "duplicates": 0.5}
        for name, most in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise UsageError(f"pool.{name}={value} is not between 0 and {most}")
        if self.concepts == 1 or self.concepts < 0:
            raise UsageError(f"pool.concepts={self.concepts}: give 2 or more, or 0 for all")
        if self.split not in SPLITS:
            raise UsageError(
                f"pool.split={self.split!r} is unknown; use one of {', '.join(SPLITS)}"
            )
