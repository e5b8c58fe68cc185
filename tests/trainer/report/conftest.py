from __future__ import annotations

from pathlib import Path

import pytest

from tests.dataflows.report.build import Builder
from tests.dataflows.report.hostile import hostile_plan
from tests.page.html import Element, parse
from tests.trainer.report import runs
from trainer.report.render import report


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curated dataset with all that it was made from, of hostile captions, warnings and inputs."""
    root = tmp_path_factory.mktemp("data") / "out"
    Builder(root, hostile_plan(plain=1)).run()
    return root / "curated"


@pytest.fixture(scope="session")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with two evaluations. Not to be changed."""
    folder = runs.written(tmp_path_factory.mktemp("run") / "out", data, runs.metrics())
    runs.put_result(folder, runs.pool_result())
    runs.put_result(folder, runs.retrieval_result(data))
    return folder


@pytest.fixture(scope="session")
def text(run: Path) -> str:
    return report(str(run))


@pytest.fixture(scope="session")
def page(text: str) -> Element:
    return parse(text)
