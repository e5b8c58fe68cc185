"""Run directories written by hand: metrics, events and results of known numbers, in hostile texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from curation.pool.config import PoolConfig
from curation.pool.generate import generate
from schemas.dataset import open_dataset
from tests.page import texts
from trainer.config import RunConfig

BATCH = 64
STEPS = 40
LOG_EVERY = 2
RESTART = 20  # continued from here, after the steps up to LOST had been made
LOST = 26
CAPTIONS = (texts.SCRIPT, texts.HANDLER, texts.SVG, texts.ENTITY, texts.TEMPLATE, texts.ARABIC,
            texts.ARABIC_BRAND, texts.HEBREW)  # fmt: skip
PROMPTS = ("cat", texts.JAPANESE, texts.CHINESE, texts.OVERRIDE, texts.CONTROLS, texts.LONG_WORD)
BAD_URL = 'generated://pool/"><script>window.owned=1</script>/1/x'
CLASSES = ["cat", "dog", texts.SCRIPT, texts.ARABIC, "cow", "owl"]


def config(folder: Path, data: Path, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "recipe": f"tiny {texts.SCRIPT}",
        "output": f"{folder}/<img src=x onerror=window.owned=1>\u202e",
        "model": {"name": "metaclip2", "size": "tiny", texts.HANDLER: texts.SVG},
        "data": {"name": "image_text", "path": str(data)},
        "objective": {"name": "contrastive"},
        "batch": {"size": BATCH, "micro": 16},
        "length": {"steps": STEPS},
        "precision": "bf16",
        "zero": 1,
    }
    return RunConfig.model_validate(settings | changes)


def loss(step: int) -> float:
    """Loss of a step as logged; finite binary fractions, so no digit is lost on the way."""
    return 4.5 - step / 32


def line(step: int, **values: Any) -> dict[str, Any]:
    return {
        "step": step,
        "samples": step * BATCH,
        "epoch": step * BATCH / 1000,
        "loss": loss(step),
        "contrastive": loss(step) - 0.5,
        "<b>distill</b>": 0.5,
        "lr": 4e-4 * step / STEPS,
        "grad_norm": 1.0 + step / 8,
        "samples_per_s": 100.0 + step,
        "host_ms": 2.0,
        "seconds": step * 0.5,
    } | values


def metrics() -> list[dict[str, Any]]:
    """Started on one rank, killed after LOST, continued at RESTART on two, finished."""
    lines: list[dict[str, Any]] = [{"event": "started", "step": 0, "ranks": 1}]
    for step in range(LOG_EVERY, LOST + 1, LOG_EVERY):
        lines.append(line(step, loss=9.75 if step > RESTART else loss(step)))
        if step == RESTART:
            lines.append({"event": "saved", "step": step, "checkpoint": "step-00000020"})
    lines.append({"event": "continued", "step": RESTART, "ranks": 2})
    lines += [line(step, seconds=(step - RESTART) * 0.5)
              for step in range(RESTART + LOG_EVERY, STEPS + 1, LOG_EVERY)]  # fmt: skip
    for place, reason in enumerate(("truncated", "truncated", "<i>bomb</i>")):
        lines.append(
            {"event": "replaced", "step": STEPS, "position": 1400 + place, "reason": reason}
        )
    lines.append({"event": "saved", "step": STEPS, "checkpoint": "step-00000040"})
    lines.append({"event": "finished", "step": STEPS})
    return lines


def estimate(mean: float, low: float, high: float) -> dict[str, float]:
    return {"mean": mean, "low": low, "high": high, "n": 96.0}


def pool_result() -> dict[str, Any]:
    """A result of `trainer eval RUN pool` with six classes of 16 images, two of them in the tail."""
    urls = generate(5, 0, 3, PoolConfig(noise=0, duplicates=0))["url"].to_pylist()
    images = [{"url": url, "class": CLASSES[i], "right": i == 1} for i, url in enumerate(urls)]
    images.append({"url": BAD_URL, "class": texts.HANDLER, "right": False})
    per_class = {
        "en": [1.0, 0.5, 0.25, 0.0, 0.75, 0.125],
        "ar": [0.5, 0.5, 0.5, None, 0.25, 0.0],
        'x"><img src=x onerror=window.owned=1>': [0.0] * 6,
    }
    languages = {
        name: {
            "images": 96,
            "classes": 6,
            "candidates": 6,
            "macro": estimate(0.4375 - k / 8, 0.3125 - k / 8, 0.5625 - k / 8),
            "micro": estimate(0.4 - k / 8, 0.3 - k / 8, 0.5 - k / 8),
            "top5": estimate(0.9, 0.8, 0.95),
            "chance": 1 / 6,
            "per_class": per_class[name],
        }
        for k, name in enumerate(per_class)
    }
    return {
        "evaluation": "pool",
        "settings": {"images": 16, "size": 40, "run": f"{texts.SCRIPT}"},
        "model": {"kind": "run", "checkpoint": "step-00000040"},
        "interval": "95 %, as computed",
        "headline": {
            "metric": "macro zero-shot accuracy", **estimate(0.4375, 0.3125, 0.5625), "chance": 1 / 6,
        },
        "languages": languages,
        "classes": CLASSES,
        "images_per_class": 16,
        "t": 30,
        "english_count": [500, 40, 12, 3, None, 30],
        "tail": [False, False, True, True, False, False],
        "examples": [
            {"language": language, "text": prompt, "images": images}
            for language, prompt in zip(("en", "ja", "zh", "en", "en", "en"), PROMPTS, strict=True)
        ],
    }  # fmt: skip


def retrieval_result(data: Path) -> dict[str, Any]:
    """A result of `trainer eval RUN retrieval` over a dataset whose pictures are looked up."""
    dataset = open_dataset(data)
    ids = [
        one.hex() for table in dataset.tables(["image_id"]) for one in table["image_id"].to_pylist()
    ]
    languages = ["en", "en", "en", "en", "en", "ar", "ar", "he"]
    examples = [
        {
            "language": languages[place],
            "text": text,
            "images": [
                {"image_id": ids[(place + k) % len(ids)], "url": "https://example.org/1.jpg", "right": k == 0}
                for k in range(2)
            ] + [{"image_id": "ff" * 16, "url": None, "right": False}],
        }
        for place, text in enumerate(CAPTIONS)
    ]  # fmt: skip
    ways = {"R@1": estimate(0.25, 0.125, 0.5), "R@5": estimate(0.5, 0.25, 0.75)}
    scores = {
        "images": 9,
        "texts": 13,
        "chance": 0.0625,
        "text_to_image": ways,
        "image_to_text": ways,
    }
    return {
        "evaluation": "retrieval",
        "settings": {"path": str(data), "image_column": "image"},
        "model": {"kind": "run", "checkpoint": "step-00000020"},
        "headline": {"metric": "text to image recall at 1", **ways["R@1"], "chance": 0.0625},
        "languages": {"all": scores, "ja": scores},
        "few": {"<u>zz</u>": 3},
        "unreadable": 1,
        "dataset": dataset.manifest.digest,
        "examples": examples,
    }


def written(folder: Path, data: Path, lines: list[dict[str, Any]], **changes: Any) -> Path:
    """Write run.json and metrics.jsonl."""
    settings = config(folder, data, **changes)
    facts = {
        "recipe": settings.recipe,
        "config": settings.model_dump(mode="json"),
        "command": f"trainer launch tiny data.path='{texts.SCRIPT}'",
        "started": "2026-01-02T03:04:05+00:00",
        "environment": {
            "python": "3.11.7", "versions": {"torch": "2.13.0", texts.SVG: texts.SCRIPT},
            "host": texts.SVG, "cores": 4,
        },
        "ranks": 1,
        "parameters": 1_234_567,
        "data": {"location": str(data), "digest": open_dataset(data).manifest.digest},
        "seed": 11,
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    text = "".join(json.dumps(one) + "\n" for one in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    return folder


def put_result(folder: Path, result: dict[str, Any]) -> None:
    (folder / "eval").mkdir(exist_ok=True)
    path = folder / "eval" / f"{result['evaluation']}.json"
    path.write_text(json.dumps(result), encoding="utf-8")
