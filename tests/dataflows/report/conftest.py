from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataflows.report.render import report
from tests.dataflows.report.build import Builder
from tests.dataflows.report.hostile import hostile_plan


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """A whole run over captions written to break a page. Not to be changed."""
    builder = Builder(tmp_path_factory.mktemp("hostile") / "out", hostile_plan())
    builder.run()
    return builder


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """The same with hardly a plain caption, so that its page shows all of the others. Not to be changed."""
    builder = Builder(tmp_path_factory.mktemp("few") / "out", hostile_plan(plain=1))
    builder.run()
    return builder


@pytest.fixture(scope="session")
def hostile_page(hostile: Builder) -> str:
    return report(hostile.root.url)


Make = Callable[..., Builder]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(**changes)` builds a run of its own with other settings."""

    def build(name: str = "out", **changes: Any) -> Builder:
        builder = Builder(tmp_path / name, hostile_plan(**changes))
        builder.run()
        return builder

    return build
