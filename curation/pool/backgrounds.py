"""Drawn backgrounds of the generated images, by family.

A family is a field t(x, y) in [0, 1] that mixes a main colour with a second one of nearly the same
hue, so that "on a blue background" stays true of what is drawn.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from schemas.ids import uniform

Field = npt.NDArray[np.float32]
Uniforms = npt.NDArray[np.float64]

UNIFORMS: Final = 64
"""How many uniform numbers `draw` wants."""

# Hue, saturation and value of each name in `phrases.COLOURS`.
_HSV: Final = {
    "red": (0.0, 0.80, 0.80),
    "orange": (0.085, 0.85, 0.95),
    "yellow": (0.15, 0.75, 0.95),
    "green": (0.36, 0.65, 0.62),
    "blue": (0.60, 0.70, 0.78),
    "purple": (0.77, 0.60, 0.62),
    "pink": (0.92, 0.38, 0.95),
    "gray": (0.0, 0.0, 0.62),
}
_GRAIN_SIDE: Final = 512


def draw(family: str, colour: str, size: int, u: Uniforms) -> npt.NDArray[np.uint8]:
    """The background as uint8[size, size, 3]; `u` holds `UNIFORMS` numbers in [0, 1)."""
    first, second = _colours(colour, u[:7])
    t = FAMILIES[family](size, u[7:40])
    light = 1 + (u[40] - 0.5) * 0.5 * _along(size, u[41]) + (u[42] - 0.5) * 0.12
    picture = (first + t[..., None] * (second - first)) * light[..., None]
    grain = (u[43] ** 2) * 14 * _grain(size, u[44], u[45])
    return np.clip(picture * 255 + grain[..., None], 0, 255).astype(np.uint8)


def _colours(colour: str, u: Uniforms) -> tuple[Field, Field]:
    hue, saturation, value = _HSV[colour]
    hue += (u[0] - 0.5) * 0.05
    saturation *= 0.85 + 0.25 * u[1]
    value *= 0.9 + 0.15 * u[2]
    step = 0.18 + 0.3 * u[3]
    # The second colour is paler or darker than the first, never another colour.
    lighter = u[4] < 0.5
    other = (
        hue + (u[5] - 0.5) * 0.04,
        saturation * (1 - step if lighter else 1.05),
        value * (1 + 0.3 * step if lighter else 1 - step),
    )
    return _rgb(hue, saturation, value), _rgb(*other)


def _rgb(hue: float, saturation: float, value: float) -> Field:
    rgb = colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0))
    return np.array(rgb, np.float32)


@functools.lru_cache(maxsize=16)
def _grid(size: int) -> tuple[Field, Field]:
    axis = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    return axis[None, :], axis[:, None]


def _along(size: int, u: float, phase: float = 0.0) -> Field:
    """Coordinate along a direction, about -0.7 to 0.7."""
    x, y = _grid(size)
    angle = 2 * np.pi * u
    return (
        x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)) + np.float32(phase)
    ).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _grain_tile() -> Field:
    words = np.zeros((_GRAIN_SIDE * _GRAIN_SIDE, 2), np.uint64)
    words[:, 0] = np.arange(len(words))
    return (uniform(0, 0, words, 7) * 2 - 1).astype(np.float32).reshape(_GRAIN_SIDE, _GRAIN_SIDE)


def _grain(size: int, u: float, v: float) -> Field:
    tile = _grain_tile()
    side = min(size, _GRAIN_SIDE // 2)
    top, left = (int(w * (_GRAIN_SIDE - side)) for w in (u, v))
    part = tile[top : top + side, left : left + side]
    return part if side == size else np.resize(part, (size, size))


def _soft_step(field: Field, width: float) -> Field:
    return np.clip(field / np.float32(width) + np.float32(0.5), 0, 1)


def _noise(size: int, cells: int, values: Uniforms) -> Field:
    """Smooth noise in about [0, 1] from cells x cells values."""
    grid = Image.fromarray(values[: cells * cells].reshape(cells, cells).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))


def _gradient(size: int, u: Uniforms) -> Field:
    return np.clip(_along(size, u[0], (u[1] - 0.5) * 0.4) * np.float32(1.2) + 0.5, 0, 1)


def _floor(size: int, u: Uniforms) -> Field:
    _, y = _grid(size)
    tilt = _along(size, 0.25 + (u[0] - 0.5) * 0.06, -0.1 - 0.25 * u[1])
    return np.clip(_soft_step(tilt, 0.02) * (np.float32(1.1) - np.abs(y)) + y * 0.15, 0, 1)


def _stripes(size: int, u: Uniforms) -> Field:
    wave = np.sin(_along(size, u[0]) * np.float32(2 * np.pi * (2.5 + 7 * u[1])) + 6.28 * u[2])
    return _soft_step(wave.astype(np.float32), 0.3 + 1.7 * u[3])


def _clouds(size: int, u: Uniforms) -> Field:
    return np.clip(0.7 * _noise(size, 3, u) + 0.3 * _noise(size, 4, u[9:]), 0, 1)


def _blobs(size: int, u: Uniforms) -> Field:
    return _soft_step(_noise(size, 5, u) - np.float32(0.5), 0.08 + 0.2 * u[25])


def _checker(size: int, u: Uniforms) -> Field:
    turns = np.float32(2 * np.pi * (1.5 + 3.5 * u[1]))
    a, b = (np.sin(_along(size, u[0] + q) * turns + 6.28 * u[2]) for q in (0.0, 0.25))
    return _soft_step((a * b).astype(np.float32), 0.15 + 0.3 * u[3])


def _distance(size: int, u: Uniforms) -> Field:
    x, y = _grid(size)
    dx, dy = x - np.float32((u[0] - 0.5) * 0.6), y - np.float32((u[1] - 0.5) * 0.6)
    return np.sqrt(dx * dx + dy * dy)


def _spot(size: int, u: Uniforms) -> Field:
    return np.clip(_distance(size, u) * np.float32(1.1 + 0.7 * u[2]), 0, 1)


def _rings(size: int, u: Uniforms) -> Field:
    wave = np.sin(_distance(size, u) * np.float32(2 * np.pi * (4 + 8 * u[2])) + 6.28 * u[3])
    return _soft_step(wave.astype(np.float32), 0.5 + u[4])


def _dots(size: int, u: Uniforms) -> Field:
    turns = np.float32(2 * np.pi * (3 + 4 * u[1]))
    a, b = (np.cos(_along(size, u[0] + q) * turns + 6.28 * u[2]) for q in (0.0, 0.25))
    return _soft_step((a + b).astype(np.float32) - np.float32(0.9 + 0.5 * u[3]), 0.25)


def _plaid(size: int, u: Uniforms) -> Field:
    turns = np.float32(2 * np.pi * (2 + 4 * u[1]))
    a, b = (
        _soft_step(np.sin(_along(size, u[0] + q) * turns + 6.28 * u[2 + i]), 0.2)
        for i, q in enumerate((0.0, 0.25))
    )
    return (a + b) * np.float32(0.5)


FAMILIES: Final[dict[str, Callable[[int, Uniforms], Field]]] = {
    "gradient": _gradient,
    "floor": _floor,
    "stripes": _stripes,
    "clouds": _clouds,
    "blobs": _blobs,
    "checker": _checker,
    "spot": _spot,
    "dots": _dots,
    "rings": _rings,
    "plaid": _plaid,
}
