"""`exported_text RUN FOLDER`: the export loads with transformers alone and gives the run's numbers."""

from __future__ import annotations

import sys

from acceptance.checks.common import finish

TEXTS = ["The city of", "La ville de Paris est", "ROMEO: <b>But soft</b>", "白い猫 كلب 🐈"]


def main(run: str, folder: str) -> int:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainer.evaluation.language import LanguageModel, load

    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours = load(run)
    assert isinstance(ours, LanguageModel)
    faults = []
    largest = 0.0
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        if ids[0].tolist() != list(ours.encode(text)):
            faults.append(f"{text!r} has other tokens in the export")
        with torch.no_grad():
            theirs = model(ids).logits
            mine = ours.model(input_ids=ids).logits
        largest = max(largest, float((theirs - mine).abs().max()))
    if not largest <= 1e-4:
        faults.append(f"logits differ by {largest}")
    return finish({"class": type(model).__name__, "largest_difference": largest}, faults)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
