"""What a generated image shows: a pure function of its URL.

An image is number `n` of the pool with seed `seed`; its URL `generated://pool/<seed>/<n>/<stamp>`
says everything that texts and rendering need. About one image in `1 / TEST_SHARE` belongs to the
test part, by (seed, n) alone. Test backgrounds come from families of their own; the stamps are
shared by both parts, which every dataset made from the pool must say (`WARNING`).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from curation.pool.phrases import COLOURS
from schemas.errors import InputError
from schemas.ids import uniform

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TEST_SHARE: Final = 0.05
TRAIN_BACKGROUNDS = ("gradient", "floor", "stripes", "clouds", "blobs", "checker")
TEST_BACKGROUNDS = ("spot", "dots", "rings", "plaid")
WARNING = (
    "the images and texts of this dataset are generated: real stamps with their real captions, "
    "composed by (seed, number) on drawn backgrounds; the train and test parts share the source "
    "stamps and their names, and differ in backgrounds and wording"
)

SALT_SPLIT, SALT_FAMILY, SALT_COLOUR = 101, 102, 103
_URL = re.compile(r"generated://pool/(\d{1,19})/(\d{1,18})/([^\s?#]+)")


@dataclass(frozen=True)
class Source:
    """What a pool URL names."""

    seed: int
    number: int
    stamp: str

    @functools.cached_property
    def split(self) -> str:
        """ "train" or "test"."""
        return "test" if is_test(self.seed, np.array([self.number]))[0] else "train"

    @property
    def background(self) -> str:
        """Family of the background, one of `TRAIN_BACKGROUNDS` or `TEST_BACKGROUNDS`."""
        names = TEST_BACKGROUNDS if self.split == "test" else TRAIN_BACKGROUNDS
        return names[int(draws(self.seed, np.array([self.number]), SALT_FAMILY)[0] * len(names))]

    @property
    def colour(self) -> str:
        """Name of the background's main colour, one of `COLOURS`."""
        return COLOURS[int(colour_index(self.seed, np.array([self.number]))[0])]


def draws(seed: int, numbers: npt.ArrayLike, salt: int, lane: int = 0) -> Floats:
    """Uniform float64[n] in [0, 1): a pure function of (seed, number, salt, lane)."""
    words = np.empty((len(np.atleast_1d(numbers)), 2), np.uint64)
    words[:, 0] = numbers
    words[:, 1] = lane
    return uniform(seed, 0, words, salt)


def lanes(seed: int, number: int, salt: int, count: int) -> Floats:
    """`count` independent uniforms for one number."""
    words = np.empty((count, 2), np.uint64)
    words[:, 0] = number
    words[:, 1] = np.arange(count)
    return uniform(seed, 0, words, salt)


def is_test(seed: int, numbers: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which numbers belong to the test part: bool[n]."""
    return draws(seed, numbers, SALT_SPLIT) < TEST_SHARE


def colour_index(seed: int, numbers: npt.ArrayLike) -> Ints:
    """Index into `COLOURS` of each number's background: int64[n]."""
    return (draws(seed, numbers, SALT_COLOUR) * len(COLOURS)).astype(np.int64)


def url_of(seed: int, number: int, stamp: str) -> str:
    """The URL of an image."""
    return f"generated://pool/{seed}/{number}/{stamp}"


def parse(url: str | None) -> Source:
    """What a URL names. Raises InputError when it is not one of the pool's."""
    found = _URL.fullmatch(url or "")
    if not found:
        raise InputError(
            f"{url!r} is not an image of the generated pool; expected "
            "generated://pool/<seed>/<number>/<stamp>"
        )
    return Source(int(found[1]), int(found[2]), found[3])


def split_of(url: str | None) -> str:
    """ "train" or "test", by (seed, number) alone."""
    return parse(url).split
