"""NOTICE names all data that lies in the project, with its licence."""

from __future__ import annotations

import json
import re

from tests.support import ROOT


def test_notice_lists_every_folder_of_data() -> None:
    notice = (ROOT / "NOTICE").read_text()
    for folder in (path for path in (ROOT / "data").iterdir() if path.is_dir()):
        assert f"data/{folder.name}:" in notice, folder.name
        assert (folder / "SOURCE.md").is_file(), folder.name


def test_notice_gives_every_wordnet_its_licence() -> None:
    notice = (ROOT / "NOTICE").read_text().split("data/wordnets: ")[1]
    listed = json.loads((ROOT / "data/wordnets/index.json").read_text())["wordnets"]
    assert f"lemmas of {len(listed)} languages" in notice
    lines = re.sub(r"\n {3,}", " ", notice).splitlines()
    for wordnet in listed:
        line = next(line for line in lines if line.strip().startswith(wordnet["licence"] + " "))
        codes = re.findall(r"\b[a-z]{2}\b", re.sub(r"\([^)]*\)", "", line))
        assert wordnet["key"] in codes, (wordnet["key"], line)


def test_data_is_small() -> None:
    files = [path for path in (ROOT / "data").rglob("*") if path.is_file()]
    files = [path for path in files if "__pycache__" not in path.parts]
    assert all(path.stat().st_size < 1_000_000 for path in files)
    assert sum(path.stat().st_size for path in files) <= 10_000_000
