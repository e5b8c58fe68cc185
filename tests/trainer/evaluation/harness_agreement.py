"""Whether lm-evaluation-harness and `trainer eval` give the same numbers for a trained model.

    python -m tests.trainer.evaluation.harness_agreement RUN [--documents N]

The run is exported; the harness loads the folder by its own ``hf`` model, which is
``AutoModelForCausalLM.from_pretrained``, and runs task files: the shipped ones, and one of passages cut
from the run's own held-out documents. `trainer eval` runs on the run itself. One JSON object a line: each
number by both, then {"largest_difference", "numbers", "exported_class", "accuracies_between_0_and_1"}; a
difference of accuracies is absolute, of perplexities and bits relative.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

TASKS = Path(__file__).parents[3] / "data/tasks"
WORDS = 60
"""Words of a held-out document that make a passage."""


def passages(run: str, most: int) -> list[dict[str, str]]:
    """The first words of held-out documents of the run's data, the last of them apart."""
    from schemas.dataset import open_dataset
    from trainer.data_tokenizer import FILE, parse

    place = json.loads((Path(run) / "run.json").read_text())["data"]["location"]
    dataset = open_dataset(place)
    tokenizer = parse(dataset.blob(FILE).read_bytes(), place)
    kind = np.dtype(f"<u{dataset.manifest.config['tokens']['bytes']}")
    found: list[dict[str, str]] = []
    for table in dataset.tables(["split", "tokens"]):
        for row in table.to_pylist():
            if row["split"] != "validation" or len(found) == most:
                continue
            ids = np.frombuffer(row["tokens"], kind).tolist()
            words = tokenizer.decode(ids, skip_special_tokens=True).split()[:WORDS]
            if len(words) > 2:
                found.append({"context": " ".join(words[:-1]), "target": words[-1]})
    return found


def by_harness(folder: str, files: list[Path], cache: str) -> tuple[dict[str, Any], str]:
    """Results of the harness's own way of loading a folder; and the class that it got."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from trainer.evaluation.harness import read_task

    model = HFLM(pretrained=folder, dtype="float32", batch_size=16, device="cpu")
    found = lm_eval.simple_evaluate(
        model,
        tasks=[read_task(file, cache) for file in files],
        bootstrap_iters=0,
        log_samples=False,
        task_manager=TaskManager(include_defaults=False),
    )
    kind = type(model.model)
    return found["results"], f"{kind.__module__}.{kind.__name__}"


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--documents", type=int, default=300, help="held-out passages")
    args = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "DISABLE_MULTIPROC": "1"}
    with tempfile.TemporaryDirectory() as work:
        print(json.dumps(compare(args.run, args.documents, Path(work))))


def compare(run: str, documents: int, work: Path) -> dict[str, Any]:
    """Print each number by both; return the last line."""
    from trainer.evaluation import registry
    from trainer.evaluation.language import load
    from trainer.export import export

    folder = export(run, str(work / "export"))
    tasks = work / "tasks"
    shutil.copytree(TASKS, tasks)
    held = tasks / "held_out.jsonl"
    rows = passages(run, documents)
    held.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = (tasks / "lambada.yaml").read_text().replace("lambada.jsonl", held.name)
    (tasks / "held_out.yaml").write_text(text.replace("lambada_cut", "held_out"))
    texts = tasks / "texts.jsonl"
    lines = [json.loads(line) for line in (tasks / "lambada.jsonl").read_text().splitlines()]
    texts.write_text(
        "".join(json.dumps({"text": f"{r['context']} {r['target']}"}) + "\n" for r in lines)
    )
    theirs, kind = by_harness(str(folder), sorted(tasks.glob("*.yaml")), str(work / "cache"))
    loaded = load(run)

    def ours(name: str, file: Path) -> dict[str, Any]:
        row = next(
            iter(registry.rows(registry.evaluate(loaded, name, {"path": str(file)})).values())
        )
        return {key: value["mean"] for key, value in row.items() if isinstance(value, dict)}

    mine = {
        "lambada_cut": ours("lambada", tasks / "lambada.jsonl"),
        "held_out": ours("lambada", held),
        "babi_cut": ours("babi", tasks / "babi.jsonl"),
        "passages": ours("perplexity", texts),
    }
    harness = registry.evaluate(loaded, "harness", {"tasks": str(tasks)})["rows"]
    names = {"accuracy": "acc"}
    largest, numbers, between = 0.0, 0, 0
    for task, scores in mine.items():
        for metric, value in scores.items():
            their = theirs[task][f"{names.get(metric, metric)},none"]
            wrapped = harness[task][names.get(metric, metric)]
            wrapped = wrapped["mean"] if isinstance(wrapped, dict) else wrapped
            scale = 1.0 if metric == "accuracy" else abs(their)
            difference = max(abs(value - their), abs(wrapped - their)) / scale
            line = {"task": task, "metric": metric, "harness": their, "trainer_eval": value}
            print(json.dumps({**line, "trainer_eval_harness": wrapped, "difference": difference}))
            largest, numbers = max(largest, difference), numbers + 1
            between += metric == "accuracy" and 0 < their < 1
    return {
        "largest_difference": largest,
        "numbers": numbers,
        "exported_class": kind,
        "accuracies_between_0_and_1": between,
    }


if __name__ == "__main__":
    main()
