"""Fixtures of the corpus of bad inputs."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def checksum_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Remembered checksums stay inside the tests."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for all cases of a module."""
    return tmp_path_factory.mktemp("case")
