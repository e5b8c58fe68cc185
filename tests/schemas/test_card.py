"""The card, and the ordinary readers it is for."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
import polars
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from schemas.card import escape, render
from schemas.commit import commit
from schemas.errors import HeadraceError
from schemas.manifest import Manifest
from schemas.storage import storage
from schemas.table_schemas import CURATED, IMAGE, POOL, SCHEMAS
from tests.schemas import samples


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    datasets.disable_progress_bars()


def made(tmp_path: Path, rows: int = 40) -> tuple[Path, Manifest]:
    root = storage(tmp_path / "curated")
    root.create(".headrace/attempts/other/log.json", b"{}")  # must disturb no reader
    head = samples.committed(
        root, CURATED, samples.curated(rows), target_bytes=4_000, licence=["CC-BY-SA-4.0"]
    )
    return tmp_path / "curated", head


def test_datasets_loads_the_directory(tmp_path: Path) -> None:
    folder, head = made(tmp_path)
    assert head.totals["shards"] > 1
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "c"))
    assert list(found) == ["train"] and found["train"].num_rows == head.rows == 40
    by_row = {r["row"]: r for r in found["train"]}
    for i, expected in enumerate(samples.curated(40).to_pylist()):
        row = by_row[expected["row"]]
        assert row["text"] == expected["text"] and row["pair_id"] == expected["pair_id"]
        assert row["entries"] == expected["entries"]
        assert isinstance(row["image"], Image.Image) and row["image"].size == (4, 4)
        assert row["image"].getpixel((0, 0)) == (i % 256, 10, 20)


def test_datasets_loads_data_dir_and_streams(tmp_path: Path) -> None:
    folder, head = made(tmp_path)
    plain = datasets.load_dataset(
        "parquet", data_dir=str(folder / "data"), cache_dir=str(tmp_path / "c")
    )
    assert plain["train"].num_rows == head.rows
    assert isinstance(plain["train"][0]["image"], Image.Image)
    stream = datasets.load_dataset(str(folder), streaming=True)["train"]
    assert sum(1 for _ in stream) == head.rows


def test_polars_reads_the_glob(tmp_path: Path) -> None:
    folder, head = made(tmp_path)
    frame = polars.read_parquet(folder / "data/*.parquet").sort("image_id", "pair_id")
    assert frame.height == head.rows
    expected = samples.curated(40)
    assert frame["pair_id"].to_list() == expected["pair_id"].to_pylist()
    assert frame["entries"].to_list() == expected["entries"].to_pylist()
    assert frame["image"].struct.field("bytes").to_list()[0].startswith(b"\x89PNG")


def value(kind: pa.DataType) -> object:
    """Some value of a type."""
    if pa.types.is_list(kind):
        return [value(kind.value_type)]
    if kind == IMAGE:
        return samples.curated(1)["image"].to_pylist()[0]
    if pa.types.is_struct(kind):
        return {f.name: value(f.type) for f in kind.fields}
    if pa.types.is_fixed_size_binary(kind):
        return bytes(range(kind.byte_width))
    return {pa.string(): "ü", pa.binary(): b"\x00\xff", pa.float64(): 0.5}.get(kind, 7)


@pytest.mark.parametrize("name", SCHEMAS)
def test_datasets_and_polars_read_every_schema(tmp_path: Path, name: str) -> None:
    spec = SCHEMAS[name]
    row = {f.name: value(f.type) for f in spec.arrow}
    table = pa.Table.from_pylist([row], spec.arrow)
    root = storage(tmp_path / name)
    samples.committed(root, spec, table)
    found = datasets.load_dataset(root.url, cache_dir=str(tmp_path / "c"))["train"]
    assert found.num_rows == 1 and found.column_names == spec.arrow.names
    decoded = found[0]
    if "image" in row:
        assert isinstance(decoded.pop("image"), Image.Image)
        del row["image"]
    assert decoded == row
    frame = polars.read_parquet(f"{root.url}/data/*.parquet")
    assert frame.select(list(row)).to_dicts() == [row]


def test_an_empty_dataset_keeps_its_columns_for_readers(tmp_path: Path) -> None:
    """`datasets` itself refuses to build a split without rows; it streams one."""
    root = storage(tmp_path / "empty")
    samples.committed(root, CURATED, CURATED.empty())
    assert polars.read_parquet(f"{root.url}/data/*.parquet").columns == CURATED.arrow.names
    stream = datasets.load_dataset(root.url, streaming=True)["train"]
    assert list(stream.features) == CURATED.arrow.names and list(stream) == []


def front_matter(card: str) -> dict[str, object]:
    match = re.match(r"---\n(.*?)\n---\n", card, re.S)
    assert match
    loaded = yaml.safe_load(match[1])
    assert isinstance(loaded, dict)
    return loaded


def head(**fields: object) -> Manifest:
    made = samples.head(POOL, samples.pool(3), **fields)
    made.totals = {"rows": 3, "bytes": 9, "shards": 1}
    return made.sealed()


def test_card_says_licences_safety_warnings_and_counts() -> None:
    card = render(
        head(licence=["CC-BY-4.0", "GPL-2.0-or-later"], warnings=["t = 1: the pool is small"]),
        title="Stamps",
        safety="No filter for illegal or adult images was applied.",
        sections=[("Splits", "By rendering.")],
    )
    for part in ("CC-BY-4.0", "GPL-2.0-or-later", "t = 1: the pool is small", "# Stamps",
                 "No filter for illegal or adult images was applied.", "| text | out |  | 3 |",
                 "## Splits", head().spec.doc[:20]):  # fmt: skip
        assert part in card or escape(part) in card
    front = front_matter(card)
    assert front["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}
    ]
    assert front["license_name"] == "CC-BY-4.0; GPL-2.0-or-later"


HOSTILE = [
    "---\nconfigs: []\n---",
    '"\n- evil: yes',
    "<script>alert(1)</script>",
    "[x](javascript:alert(1)) ![i](http://e.org/t.png)",
    "| a | b |\n|---|---|",
    "\n# Heading\n* item",
    "`code` **bold** _it_ ~~s~~ $x$",
    "\u202eright to left\u0000\x1b[31m",
    "https://e.org/track",
    "&lt;b&gt; &#60;img&#62;",
    "{{ template }} {% x %}",
    "1. list\n- list\n+ list\n> quote",
    "\ud800",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    benign = render(head(licence=["x"], warnings=["x"]), title="x", description="x", safety="x",
                    sections=[("x", "x")])  # fmt: skip
    card = render(head(licence=[text], warnings=[text]), title=text, description=text, safety=text,
                  sections=[(text, text)])  # fmt: skip
    card.encode()  # no lone surrogate
    assert set(front_matter(card)) == set(front_matter(benign))
    assert front_matter(card)["configs"] == front_matter(benign)["configs"]
    assert card.count("\n") == benign.count("\n"), "no text makes a line of its own"
    body = card.split("---\n", 2)[2]
    plain = benign.split("---\n", 2)[2]
    assert "<" not in body and "\u202e" not in body and "\x1b" not in body
    for mark in ("#", "*", "|", "`", "[", "!", "---", "$", "~"):
        unescaped = re.findall(rf"(?<!\\){re.escape(mark)}", body)
        assert len(unescaped) == len(re.findall(rf"(?<!\\){re.escape(mark)}", plain)), mark


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_front_matter_survives_any_text(text: str) -> None:
    card = render(head(licence=[text]), title=text)
    assert set(front_matter(card)) == {"configs", "license", "license_name", "pretty_name"}


def test_default_card_is_written_and_own_card_kept(tmp_path: Path) -> None:
    root = storage(tmp_path / "ds")
    table = samples.pool(3)
    shards = samples.write(root, POOL, table)
    commit(root, samples.head(POOL, table), shards, card="# mine\n")
    assert root.read_bytes("README.md") == b"# mine\n"
    other = storage(tmp_path / "other")
    samples.committed(other)
    assert b"# other" in other.read_bytes("README.md")


def test_readers_see_no_row_of_an_uncommitted_directory(tmp_path: Path) -> None:
    """Ours refuse; that ordinary readers cannot is why a commit sweeps data/."""
    root = storage(tmp_path / "ds")
    samples.write(root, POOL, samples.pool(3))
    with pytest.raises(HeadraceError, match="is not a committed dataset"):
        Manifest.load(root)
    samples.committed(root, table=samples.pool(5, seed=1))
    assert polars.read_parquet(f"{root.url}/data/*.parquet").height == 5
