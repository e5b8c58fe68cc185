"""Fixtures of the tests of texts."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def checksum_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remembered checksums stay inside the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
