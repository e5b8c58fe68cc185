"""The shipped wordnets: published counts, plain-loop equality, errors, notices."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.metadata import builtin
from curation.metadata.strings import NUMBERS, is_entry
from schemas.errors import InputError, IntegrityError, UsageError
from schemas.table_schemas import METADATA

ROOT = Path(__file__).resolve().parents[3]
WORDNETS = ROOT / "data" / "wordnets"


def plain_entries(lemmas: list[str]) -> list[str]:
    """Spec 3.2 item 2, one string at a time."""
    kept = set()
    for lemma in lemmas:
        text = lemma.replace("_", " ").replace("+", "").strip()
        if is_entry(text, limit=None) and text not in NUMBERS:
            kept.add(text)
    return list(NUMBERS) + sorted(kept)


@pytest.mark.parametrize("key", ["en", "zh", "ja", "th", "pl", "sk"])
def test_load_equals_a_plain_loop(key: str) -> None:
    table = builtin.load([key])
    lemmas = pq.read_table(WORDNETS / f"{key}.parquet")["lemma"].to_pylist()
    assert table["text"].to_pylist() == plain_entries(lemmas)
    assert table["entry"].to_pylist() == list(range(table.num_rows))
    assert table["source"].to_pylist() == [""] * 100 + ["w"] * (table.num_rows - 100)


def test_counts_published_by_the_papers() -> None:
    # Meta CLIP 1, table 1: 86,654 WordNet entries, the 100 numbers among them.
    names = builtin.entries("en", english="synsets").to_pylist()
    assert len({*names, *NUMBERS}) == 86_654
    # Spec 11 B: the French lemmas plus "0".."99" make 55,366 entries.
    assert builtin.load(["fr"]).num_rows == 55_366


def test_all_languages_in_order_and_of_the_schema() -> None:
    table = builtin.load()
    assert table.schema.equals(METADATA.arrow)
    keys = table["metadata"].to_pylist()
    assert sorted(set(keys)) == list(builtin.languages())
    order = list(zip(keys, table["entry"].to_pylist(), strict=True))
    assert order == sorted(set(order))
    assert {"en", "fr", "es", "it", "pt", "nl", "pl", "id", "sv", "ja", "zh", "th"} <= set(keys)


def test_files_are_small_and_each_has_its_licence() -> None:
    files = sorted(WORDNETS.glob("*.parquet"))
    assert [f.stem for f in files] == list(builtin.languages())
    assert max(f.stat().st_size for f in files) < 1_000_000
    assert sum(f.stat().st_size for f in WORDNETS.rglob("*") if f.is_file()) < 5_000_000
    source = (WORDNETS / "SOURCE.md").read_text(encoding="utf-8")
    for wordnet in builtin.wordnets():
        assert (WORDNETS / "licences" / wordnet.licence_file).stat().st_size > 500
        assert f"| {wordnet.key} | {wordnet.name} " in source
    notices = builtin.licences(["fr", "nl"])
    assert [n.split(":")[0] for n in notices] == ["fr", "nl"]
    assert "CeCILL-C" in notices[0] and "CC BY-SA 4.0" in notices[1]


@pytest.mark.spec("metaclip2", 25)
def test_the_build_script_writes_the_same_bytes(shared_data: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "tools" / "build_wordnets.py")]
    source = shared_data / "wordnet-multilingual"
    subprocess.run([*script, str(source), str(tmp_path)], check=True)
    for built in sorted(tmp_path.iterdir()):
        assert built.read_bytes() == (WORDNETS / built.name).read_bytes(), built.name


def test_unknown_language_and_rule_are_usage_errors() -> None:
    with pytest.raises(UsageError, match=r"'xx'; shipped: af, ar"):
        builtin.load(["xx"])
    with pytest.raises(UsageError, match="expected lemmas or synsets"):
        builtin.entries("en", english="all")


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of two languages where an installation without a checkout would look."""
    monkeypatch.setattr(builtin, "_CHECKOUT", tmp_path / "no-checkout")
    monkeypatch.setenv(builtin.ASSETS_VARIABLE, str(tmp_path))
    folder = tmp_path / "wordnets"
    folder.mkdir()
    for name in ("index.json", "sw.parquet", "th.parquet"):
        shutil.copy(WORDNETS / name, folder / name)
    return folder


def test_assets_variable_is_the_second_place(assets: Path) -> None:
    assert builtin.folder() == assets
    assert builtin.load(["th"]).num_rows == 3_065


def test_without_either_place_the_error_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtin, "_CHECKOUT", tmp_path)
    monkeypatch.delenv(builtin.ASSETS_VARIABLE, raising=False)
    with pytest.raises(UsageError, match="set HEADRACE_ASSETS to the checkout's data folder"):
        builtin.load()


def test_a_changed_missing_or_unreadable_file_is_named(assets: Path) -> None:
    data = bytearray((assets / "sw.parquet").read_bytes())
    data[100] ^= 1
    (assets / "sw.parquet").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"sw\.parquet: the file's digest is"):
        builtin.load(["sw"])
    (assets / "sw.parquet").unlink()
    with pytest.raises(InputError, match=r"sw\.parquet: shipped wordnet unreadable"):
        builtin.load(["sw"])
    page = json.loads((assets / "index.json").read_text(encoding="utf-8"))
    (assets / "index.json").write_text(json.dumps({"wordnets": [{}] + page["wordnets"]}))
    with pytest.raises(InputError, match=r"index\.json: the index .* is unreadable"):
        builtin._read_index.__wrapped__(assets / "index.json")
