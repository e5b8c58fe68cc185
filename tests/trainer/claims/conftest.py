"""The claim `fake`, known in this process and in those of its tasks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import ROOT
from trainer.claims import CLAIMS, harness, records


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLAIMS, "fake", "tests.trainer.claims.fake_claim")
    path = [str(Path(__file__).parent / "path"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a README and the fake claim's source; `fake` is its only claim."""
    monkeypatch.delitem(CLAIMS, "metaclip2")
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "fake.py").write_text("x = 1\n")
    (root / "README.md").write_text(
        "# Title\n\n<!-- claim fake -->\nold\n<!-- end of claim fake -->\n\nThe end\n"
    )
    monkeypatch.setattr(records, "ROOT", root)
    monkeypatch.setattr(harness, "ROOT", root)
    monkeypatch.setattr(records, "FOLDER", root / "records")
    monkeypatch.setattr(records, "README", root / "README.md")
    return root
