"""The page of a language model's run: amounts are no shares, rates are of tokens, memory beside the plan."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.page.html import Element, parse
from tests.support import ROOT
from tests.trainer.evaluation.token_data import corpus
from tests.trainer.report.test_page import facts, row_of, section, tiles
from trainer.report.render import report


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a process of its own: one in which others trained before grows by nothing."""
    root = tmp_path_factory.mktemp("language")
    called = f"trained(Path({str(root / 'run')!r}), Path({str(corpus(root))!r}), 'log_every=1')"
    imports = "from pathlib import Path; from tests.trainer.evaluation.token_data import trained"
    subprocess.run([sys.executable, "-c", f"{imports}; {called}"], check=True, cwd=ROOT)
    return root / "run"


@pytest.fixture(scope="module")
def page(run: Path) -> Element:
    return parse(report(str(run)))


@pytest.fixture(scope="module")
def result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "eval" / "bits.json").read_text(encoding="utf-8"))
    return found


def test_bits_are_bits(page: Element, result: dict[str, Any]) -> None:
    assert section(page, "accuracy").one("h2").text == "Scores"
    table = section(page, "accuracy").one("table", cls="scores")
    names = [next(row.all("th")).text for row in list(table.all("tr"))[1:]]
    assert names == list(result["rows"]) == ["model", "5-gram", "xz -9"]
    for name, scores in result["rows"].items():
        cells = row_of(table, name)
        value = scores["bits_per_byte"]
        mean = value["mean"] if isinstance(value, dict) else value
        assert cells["bits per byte"].startswith(f"{mean:.4f}")
        assert "Chance" not in cells and "%" not in cells["bits per byte"]
    assert tiles(page)["bits per byte"].startswith(f"{result['headline']['mean']:.4f}")


def test_rates_are_of_tokens_and_no_components(page: Element, run: Path) -> None:
    assert "Components" not in section(page, "curves").text
    told = facts(section(page, "speed").one("dl"))
    assert told["tokens a second"].endswith("without padding") and "0." in told["MFU"]
    assert tiles(page)["tokens seen"].startswith(f"{6 * 8 * 32:,}")
    shown = section(page, "speed").text
    assert "Tokens a second, all ranks" in shown and "Model FLOPs utilisation" in shown


def test_memory_is_held_against_the_plan(page: Element, run: Path) -> None:
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    took = next(e["memory"] for e in events if e.get("event") == "finished")
    assert 1 << 20 < took < 4 << 30
    told = facts(section(page, "speed").one("dl"))["memory of a rank"]
    assert told.startswith(f"{took / (1 << 20):,.0f} MiB, planned") and "% measured)" in told


def test_steps_left_out_are_told(run: Path, tmp_path: Path) -> None:
    event = {"event": "left_out", "step": 4, "first": 3, "fault": "the loss is <b>nan</b>"}
    copied = tmp_path / "run"
    copied.mkdir()
    (copied / "run.json").write_bytes((run / "run.json").read_bytes())
    text = (run / "metrics.jsonl").read_text() + json.dumps(event) + "\n"
    (copied / "metrics.jsonl").write_text(text)
    events = facts(section(parse(report(str(copied))), "curves").one("dl"))
    assert events["left out"].startswith("steps 3 to 4 (the loss is <b>nan</b>)")
