"""A run of the engine and a result of the evaluation, as they are written today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.page.html import parse
from tests.trainer.evaluation import runs
from trainer.cli import main


def test_a_real_run_from_launch_to_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = runs.curated(tmp_path / "data", 30)
    run = runs.trained(tmp_path / "run", data)
    assert main(["eval", str(run), "retrieval", f"path={data}", "least=5"]) == 0
    assert main(["report", str(run)]) == 0
    page = parse((run / "report.html").read_text(encoding="utf-8"))
    last = [json.loads(one) for one in (run / "metrics.jsonl").read_text().splitlines()]
    final = [one for one in last if "loss" in one][-1]
    shown = {t.one("dt").text: t.one("dd").text for t in page.one("dl", cls="tiles").all("div")}
    assert shown["final loss"] == f"{final['loss']:.4f} ln(batch.size) = 2.773"
    assert shown["samples seen"].startswith("32 ")
    head = json.loads((run / "eval" / "retrieval.json").read_text())["headline"]
    assert shown[head["metric"]].replace("\u202f", " ").startswith(f"{100 * head['mean']:.1f} %")
    assert "The run is finished: 2 steps." in page.one("header").text
    examples = page.one("section", id="examples")
    assert len(list(examples.all("img"))) == 8 * 5
    assert "generated *pictures*" in page.one("section", id="warnings").text
    assert runs.LICENCE in page.one("section", id="origin").text
