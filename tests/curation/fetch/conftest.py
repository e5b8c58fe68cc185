from __future__ import annotations

from collections.abc import Iterator

import pytest

from curation.fetch import robots
from tests.fetch_server import FetchServer


@pytest.fixture(scope="module")
def server() -> Iterator[FetchServer]:
    with FetchServer() as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robots, "REMEMBERED", robots.Remembered())
