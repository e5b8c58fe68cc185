"""Decoding JPEG to 256 pixels on one thread: ours, img2dataset's resizer, and `datasets` with Pillow.

All three get the bytes of a JPEG (quality 90, 4:2:0) and give an RGB or BGR array whose shorter side has 256
pixels, aspect kept:

* ours: `trainer.sources.pictures.load` (simplejpeg, scaled in the DCT where twice the size is left, then
  torch's bicubic with antialiasing);
* img2dataset: its `Resizer`, mode keep_ratio with its own defaults (cv2.imdecode, area), called whole
  except that `cv2.imencode` returns at once: up to and including the resized array;
* datasets: `Image().decode_example` of {bytes, path}, then Pillow's bicubic resize and a copy to NumPy.

"psnr" compares ours with Pillow's full decode and bicubic resize, in dB: the worst image. The images
are two photographs that scikit-learn ships, cut or tiled to the size. Run it as a script:
``python tests/benchmarks/bench_decoding.py [--runs 7] [--images 40]``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from trainer.sources import pictures

SIDE = 256
CASES = {"640x480": (640, 480), "1600x1200": (1600, 1200)}


def photographs(width: int, height: int) -> list[bytes]:
    """Two JPEGs, tiled with two photographs in turn and cut to the size."""
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "images"
    photos = [
        np.asarray(Image.open(folder / f"{n}.jpg").convert("RGB")) for n in ("china", "flower")
    ]
    high, wide = photos[0].shape[:2]
    found = []
    for first in range(2):
        rows = [
            np.concatenate([photos[(first + r + c) % 2] for c in range(-(-width // wide))], 1)
            for r in range(-(-height // high))
        ]
        sink = io.BytesIO()
        picture = Image.fromarray(np.concatenate(rows, 0)[:height, :width])
        picture.save(sink, "JPEG", quality=90, subsampling="4:2:0")
        found.append(sink.getvalue())
    return found


def resized(width: int, height: int) -> tuple[int, int]:
    """(width, height) with a shorter side of `SIDE`."""
    scale = SIDE / min(width, height)
    return round(width * scale), round(height * scale)


def ours(data: bytes, size: tuple[int, int]) -> Any:
    """Ours."""
    return pictures.load(data, size)


def by_datasets() -> Callable[[bytes, tuple[int, int]], Any]:
    """The decoder of `datasets`."""
    import datasets

    feature = datasets.Image()

    def decode(data: bytes, size: tuple[int, int]) -> Any:
        image = feature.decode_example({"bytes": data, "path": None})
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC))

    return decode


def by_img2dataset() -> Callable[[bytes, tuple[int, int]], Any]:
    """The resizer of img2dataset without its encoding."""
    import cv2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from img2dataset import resizer

    names = {name: getattr(cv2, name) for name in dir(cv2) if not name.startswith("__")}
    seen = SimpleNamespace(**names)
    seen.imencode = lambda *_, **__: (True, np.empty(0, np.uint8))
    resizer.cv2 = seen
    resize = resizer.Resizer(SIDE, "keep_ratio", False)

    def decode(data: bytes, size: tuple[int, int]) -> Any:
        out = resize(io.BytesIO(data))
        assert out[5] is None and abs(out[1] - size[0]) <= 1 and abs(out[2] - size[1]) <= 1, out
        return out

    return decode


def psnr(data: bytes, size: tuple[int, int]) -> float:
    """Ours against Pillow's, in dB."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    wanted = np.asarray(image.resize(size, Image.Resampling.BICUBIC)).astype(float)
    found = pictures.load(data, size).permute(1, 2, 0).numpy()
    return float(10 * np.log10(255**2 / np.mean((found - wanted) ** 2)))


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def main() -> None:
    """Print one JSON line a case: ratios of the peers' times to ours, and images a second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--images", type=int, default=40, help="decoded a run")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    ways = {"ours": ours, "img2dataset": by_img2dataset(), "datasets": by_datasets()}
    for case, shape in CASES.items():
        data, size = photographs(*shape), resized(*shape)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for run in range(args.runs + 1):
            for name, decode in ways.items():
                start = time.process_time()
                for i in range(args.images):
                    decode(data[i % len(data)], size)
                if run:  # the first warms up
                    times[name].append((time.process_time() - start) / args.images)
        line: dict[str, Any] = {"case": case}
        for peer in ("img2dataset", "datasets"):
            pairs = zip(times[peer], times["ours"], strict=True)
            line[peer] = spread([theirs / mine for theirs, mine in pairs])
        line["images_per_s"] = {k: round(1 / statistics.median(v)) for k, v in times.items()}
        line["psnr"] = round(min(psnr(d, size) for d in data), 1)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
