"""Image-text retrieval: recall at 1, 5 and 10 both ways, with several captions an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluation.intervals import Estimate, mean_interval
from trainer.evaluation.ranking import Features, Ints, first_right

AT = (1, 5, 10)


@dataclass(frozen=True)
class Retrieved:
    """Ranks both ways: of each text's image int64[M], and of each image's best text int64[N].

    ``owner`` int64[M] is the image of each text; ``chance`` the best recall at 1 of text to image
    that is possible without reading the text: the share of texts for which one image is right.
    """

    owner: Ints
    text_to_image: Ints
    image_to_text: Ints
    chance: float

    def recall(self, way: str, k: int) -> Estimate:
        """Return recall at k; texts of one image count as one observation of the interval."""
        if way == "text_to_image":
            return mean_interval(self.text_to_image < k, clusters=self.owner)
        return mean_interval(self.image_to_text < k)

    def scores(self) -> dict[str, Any]:
        """Return the sizes and all recalls: {images, texts, way: {"R@k": estimate}}."""
        found: dict[str, Any] = {
            "images": len(self.image_to_text),
            "texts": len(self.text_to_image),
            "chance": self.chance,
        }
        for way in ("text_to_image", "image_to_text"):
            found[way] = {f"R@{k}": self.recall(way, k).to_json() for k in AT}
        return found


def retrieve(
    images: Features, texts: Features, owner: Ints, same: npt.ArrayLike | None = None
) -> Retrieved:
    """Rank all images for each text and all texts for each image.

    ``images`` [N, D], ``texts`` [M, D]; ``owner`` int64[M]: the image of each text, each image at
    least once. An image's rank is that of its best text (recall as big_vision and CLIP_benchmark
    count it). ``same`` [M] numbers the texts by their words: then every image that has the words is
    right for a text, and the words stand only once among the candidates. Without it a text is its
    place in the array, as the published protocols have it.
    """
    if same is None:
        order = np.argsort(owner, kind="stable")
        to_image = first_right(texts, images, (np.arange(len(texts)), owner))
        to_text = first_right(images, texts, (owner[order], order))
        return Retrieved(owner, to_image, to_text, float(np.bincount(owner).max() / len(owner)))
    _, first, word = np.unique(np.asarray(same), return_index=True, return_inverse=True)
    unique = np.unique(np.stack([word, owner]), axis=1)  # ascending by words, then by image
    by_words = first_right(texts[first], images, (unique[0], unique[1]))
    order = np.argsort(unique[1], kind="stable")
    to_text = first_right(images, texts[first], (unique[1][order], unique[0][order]))
    texts_of = np.bincount(unique[1], weights=np.bincount(word)[unique[0]])
    return Retrieved(owner, by_words[word], to_text, float(texts_of.max() / len(owner)))
