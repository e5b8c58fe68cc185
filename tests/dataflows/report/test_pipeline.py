"""The page and the commands on a run that the pipeline itself made."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflows.cli import main
from dataflows.report.render import report
from schemas.dataset import open_dataset
from tests.page.html import numbers, parse

pytestmark = pytest.mark.slow


def test_the_page_of_a_real_run(baseline: Path) -> None:
    page = parse(report(str(baseline)))
    curated = open_dataset(str(baseline / "curated"))
    text = page.text
    assert "✗" not in text and curated.manifest.digest in text
    assert f"{curated.manifest.rows:,} rows in curated" in page.one("section", id="funnel").text
    alerts = page.one("section", id="warnings").text
    assert "No filter for illegal or adult images" in alerts
    assert "generated" in alerts
    pictures = [image for image in page.all("img") if image.attributes["src"].startswith("data:")]
    assert len(pictures) == len(list(page.all("article", cls="card"))) > 10
    assert page.one("pre").text == " ".join(str(curated.manifest.run["command"]).split())


def test_the_commands_on_a_real_run(baseline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(baseline)
    assert main(["verify", run]) == 0
    assert main(["inspect", f"{run}/curated"]) == 0
    assert main(["what-if", run, "p=0.06"]) == 0
    capsys.readouterr()
    curated = set(_ids(run, "curated"))
    pool = _ids(run, "pool")
    for pair in [*pool[:: len(pool) // 12], *sorted(curated)[:3]]:
        assert main(["why", run, pair.hex()]) == 0
        told = capsys.readouterr().out
        assert ("=> kept" in told) == (pair in curated)
        assert "contradiction" not in told and len(numbers(told)) > 3


def _ids(run: str, name: str) -> list[bytes]:
    dataset = open_dataset(f"{run}/{name}")
    return [i for table in dataset.tables(["pair_id"]) for i in table["pair_id"].to_pylist()]
