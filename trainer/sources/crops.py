"""Where an image is cut in training: RandomResizedCrop as a function of (seed, epoch, sample).

As torchvision's, which the paper's transform uses (section 7): a part of the area and an aspect ratio are
drawn up to ten times until they fit, else the middle is cut.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from schemas.ids import uniform
from trainer.sources.pictures import Box

RATIO: Final = (3 / 4, 4 / 3)
"""Smallest and largest aspect ratio (width / height) of a crop."""

TRIES: Final = 10
SALT_CROP: Final = 5
Numbers = npt.NDArray[np.float64]


def chances(seed: int, epoch: int, samples: npt.NDArray[np.int64]) -> Numbers:
    """Return float64 [n, TRIES, 4] in [0, 1): what the crops of an epoch's samples are made of."""
    keys = np.empty((len(samples), TRIES * 4, 2), "<u8")
    keys[..., 0] = samples.astype(np.uint64)[:, None]
    keys[..., 1] = np.arange(TRIES * 4, dtype=np.uint64)
    return uniform(seed, epoch, keys.reshape(-1, 2), SALT_CROP).reshape(-1, TRIES, 4)


def crop(width: int, height: int, scale: tuple[float, float], u: Numbers) -> Box:
    """Return the part of a picture that a sample's numbers (float64 [TRIES, 4]) cut.

    ``scale``: smallest and largest part of the area.
    """
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for part, shape, across, down in u.tolist():
        area = width * height * (scale[0] + part * (scale[1] - scale[0]))
        ratio = math.exp(low + shape * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
            return left / width, top / height, (left + w) / width, (top + h) / height
    w, h = width, height
    if width / height < RATIO[0]:
        h = min(height, max(1, round(width / RATIO[0])))
    elif width / height > RATIO[1]:
        w = min(width, max(1, round(height * RATIO[1])))
    left, top = (width - w) // 2, (height - h) // 2
    return left / width, top / height, (left + w) / width, (top + h) / height
