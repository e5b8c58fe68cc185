"""A CLIP by `AutoModel` and `AutoProcessor` alone: what our scores are compared with."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image


class Plain:
    """Features one by one, by public classes of `transformers` only."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoProcessor

        self.model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True)

    def image(self, data: bytes) -> npt.NDArray[np.float32]:
        """Unit feature of one picture, float32 [d]."""
        inputs = self.processor(images=[Image.open(io.BytesIO(data))], return_tensors="pt")
        return self._unit(self.model.get_image_features(**inputs))

    def text(self, text: str) -> npt.NDArray[np.float32]:
        """Unit feature of one text, float32 [d]."""
        inputs = self.processor(
            text=[text], padding="max_length", truncation=True, return_tensors="pt"
        )
        return self._unit(self.model.get_text_features(**inputs))

    def _unit(self, found: object) -> npt.NDArray[np.float32]:
        feature = found.pooler_output[0].detach().numpy()  # type: ignore[attr-defined]
        return np.asarray(feature / np.linalg.norm(feature), np.float32)
