"""Zero-shot classification: images against the averaged prompts of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainer.evaluation.intervals import macro_interval, mean_interval
from trainer.evaluation.ranking import Features, Ints, first_right

if TYPE_CHECKING:
    from trainer.evaluation.loading import Loaded

TOP = 5


def class_features(
    loaded: Loaded, prompts: Sequence[Sequence[str]], label: str = "prompts"
) -> Features:
    """Return one unit row a class, float32[C, D]: the mean of its prompts' unit features.

    ``prompts`` holds at least one text for each class (CLIP, arXiv:2103.00020, section 3.1.4).
    """
    texts = [text for one in prompts for text in one]
    features = loaded.text_features(texts, label)
    owner = np.repeat(np.arange(len(prompts)), [len(one) for one in prompts])
    total = np.zeros((len(prompts), features.shape[1]), np.float64)
    np.add.at(total, owner, features)
    norm = np.linalg.norm(total, axis=1, keepdims=True)
    return (total / np.maximum(norm, 1e-12)).astype(np.float32)


@dataclass(frozen=True)
class Classified:
    """Images with their classes: labels int64[n], and the rank of the right class int64[n]."""

    labels: Ints
    rank: Ints
    classes: int

    @property
    def hits(self) -> npt.NDArray[np.bool_]:
        """Which images have the right class first."""
        return self.rank == 0

    def per_class(self) -> list[float | None]:
        """Accuracy of each class, None for one without an image."""
        count = np.bincount(self.labels, minlength=self.classes)
        right = np.bincount(self.labels, weights=self.hits, minlength=self.classes)
        return [float(r / n) if n else None for r, n in zip(right, count, strict=True)]

    def scores(self, only: Ints | None = None) -> dict[str, Any]:
        """Return macro and micro top-1 and macro top-5 accuracy with intervals.

        ``only`` names the classes whose images count (default: all); the candidates stay all.
        """
        kept = np.ones(len(self.labels), bool) if only is None else np.isin(self.labels, only)
        labels, rank = self.labels[kept], self.rank[kept]
        return {
            "images": int(kept.sum()),
            "classes": len(np.unique(labels)),
            "candidates": self.classes,
            "macro": macro_interval(rank == 0, labels).to_json(),
            "micro": mean_interval(rank == 0).to_json(),
            "top5": macro_interval(rank < TOP, labels).to_json(),
        }


def classify(images: Features, classes: Features, labels: Ints) -> Classified:
    """Rank the classes [C, D] for each image [n, D]; ``labels`` int64[n] are the right ones."""
    rank = first_right(images, classes, (np.arange(len(images)), labels))
    return Classified(labels, rank, len(classes))


def chance(labels: Ints, group: Ints | None = None) -> float:
    """Return the best macro accuracy that is possible without looking at an image.

    ``labels``: classes of the images that count; ``group``: a number for each class, equal for
    classes that share their prompts and cannot be told apart (default: all differ). One answer for
    all images gets the classes of one group right; no mixture of answers gets more.
    """
    scored = np.unique(labels)
    same = scored if group is None else group[scored]
    return float(np.unique(same, return_counts=True)[1].max() / len(scored))
