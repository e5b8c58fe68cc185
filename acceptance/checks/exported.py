"""`exported RUN FOLDER`: the export loads with transformers alone and gives the run's features."""

from __future__ import annotations

import sys

from acceptance.checks.common import finish

TEXTS = ["a dog", "Ein roter Apfel </s> auf dem Tisch", "白い猫", "كلب", "แมวสีดำ"]


def main(run: str, folder: str) -> int:
    import numpy as np
    import torch
    from PIL import Image
    from transformers import AutoModel, AutoProcessor

    from curation.pool.generate import generate
    from curation.pool.render import render_images
    from trainer.evaluation.loading import load

    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    encoded = render_images(generate(7, 0, 6)["url"], 96)
    from trainer.sources.pictures import decode

    pixels = [decode(row["bytes"]) for row in encoded.to_pylist()]
    pictures = [Image.fromarray(array) for array in pixels]
    with torch.no_grad():
        inputs = processor(text=TEXTS, images=pictures, return_tensors="pt", padding=True)
        out = model(**inputs)
    ours = load(run)
    differences = {
        "images": ours.image_features(iter(pixels), len(pixels), "pictures"),
        "texts": ours.text_features(TEXTS, "texts"),
    }
    theirs = {"images": out.image_embeds.numpy(), "texts": out.text_embeds.numpy()}
    values = {
        name: float(np.abs(found - theirs[name]).max()) for name, found in differences.items()
    }
    faults = [f"{name} differ by {value}" for name, value in values.items() if not value <= 1e-5]
    return finish({"largest_difference": values}, faults)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
