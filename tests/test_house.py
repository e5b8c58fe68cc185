"""Rules of the house that no linter checks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

CODE = ("schemas", "kernels", "curation", "dataflows", "trainer", "acceptance", "tests", "tools")
# Absolute paths of somebody's machine, and registries by host name.
LOCAL = re.compile(r"(?<![\w./{}-])/(?:work|root|home/\w+|Users/\w+)/|(?<![\w.])pypi" r"\.org")


def files(*suffixes: str) -> Iterator[Path]:
    for top in (*CODE, "deploy", "data", ".ci"):
        for path in (ROOT / top).rglob("*"):
            hidden = {"__pycache__", "out"} & set(path.relative_to(ROOT).parts)
            if path.is_file() and not hidden and (not suffixes or path.suffix in suffixes):
                yield path


def test_files_have_at_most_350_lines() -> None:
    counts = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in files(".py")}
    assert {str(p.relative_to(ROOT)): n for p, n in counts.items() if n > 350} == {}


def test_no_file_is_over_one_megabyte() -> None:
    big = {str(p.relative_to(ROOT)): p.stat().st_size for p in files()}
    assert {name: size for name, size in big.items() if size > 1_000_000} == {}


def test_the_shipped_data_is_at_most_ten_megabytes() -> None:
    assert sum(p.stat().st_size for p in (ROOT / "data").rglob("*") if p.is_file()) <= 10_000_000


def test_no_path_of_one_machine() -> None:
    found = []
    texts = [*files(".py", ".sh", ".md", ".toml", ".yaml"), *ROOT.glob("*.md"), ROOT / "Makefile"]
    for path in texts:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if LOCAL.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []
    assert len(texts) > 100  # the search itself found the files


def test_no_unfinished_work() -> None:
    words = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b|(?<!Arrow)NotImplemented" r"Error")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files(".py", ".sh")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if words.search(line)
    ]
    assert found == []
