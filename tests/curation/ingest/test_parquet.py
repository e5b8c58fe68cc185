"""Parquet in the layouts people have: LAION, DataComp, datasets, and their own."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.ingest import Columns, IngestOptions, find, pin_sources, plan, read
from curation.ingest.options import TABLE_BYTES
from curation.ingest.texts import invalid_utf8
from schemas.errors import InputError
from schemas.ids import image_id
from tests.bad_input.making import picture
from tests.curation.ingest.reading import whole


def write(path: Path, rows_a_group: int = 1000, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=rows_a_group)
    return path


def test_laion(tmp_path: Path) -> None:
    path = write(
        tmp_path / "laion.parquet", SAMPLE_ID=[7, 8], URL=["http://a/1.jpg", "http://a/2.jpg"],
        TEXT=["dog", "cat"], HEIGHT=[10, 20], WIDTH=[10, 20], LICENSE=["?", "?"], NSFW=["U", "U"],
        similarity=[0.3, 0.4],
    )  # fmt: skip
    read = whole(path, score="similarity")
    assert read.notes == [
        "parquet (columns.url=URL columns.text=TEXT columns.score=similarity "
        f"columns.text_format=auto): {path}"
    ]
    assert read.texts() == [[("TEXT", "dog")], [("TEXT", "cat")]]
    assert read.table["image_id"].to_pylist() == [image_id(url=f"http://a/{n}.jpg") for n in (1, 2)]
    assert read.table["score"].to_pylist() == [0.3, 0.4]
    assert read.table["image"].null_count == 2
    assert read.table["position"].to_pylist() == [0, 1]


@pytest.mark.parametrize("binary", [False, True])
def test_datacomp(tmp_path: Path, binary: bool) -> None:
    digests = [hashlib.sha256(bytes([n])).digest() for n in range(3)]
    path = write(
        tmp_path / "pool.parquet", uid=["a", "b", "c"], url=[f"http://a/{n}" for n in range(3)],
        text=["dog", None, "cat"], original_width=[1, 2, 3], original_height=[1, 2, 3],
        clip_b32_similarity_score=[0.1, 0.2, 0.3],
        sha256=pa.array(digests, pa.binary(32)) if binary else [d.hex() for d in digests],
    )  # fmt: skip
    read = whole(path)
    assert "columns.sha256=sha256" in read.notes[0]
    assert "columns.id" not in read.notes[0]  # a URL names the image better
    assert read.table["sha256"].to_pylist() == [digests[0], digests[2]]
    assert read.table["position"].to_pylist() == [0, 2]
    assert read.ledger.count("record", "rejected", "empty_text") == 1


def test_images_of_datasets(tmp_path: Path) -> None:
    data = [picture("JPEG", seed=n) for n in range(3)]
    images = [{"bytes": data[0], "path": "0.jpg"}, {"bytes": data[1], "path": None}, None]
    path = write(tmp_path / "a.parquet", image=images, caption=["a", "b", "c"])
    read = whole(path)
    assert read.table["image"].to_pylist() == images[:2]
    hashes = [hashlib.sha256(d).digest() for d in data[:2]]
    assert read.table["sha256"].to_pylist() == hashes
    assert read.table["image_id"].to_pylist() == [image_id(sha256=h) for h in hashes]
    assert read.table["phash"].null_count == 0
    assert [(x["position"], x["reason"]) for x in read.letters] == [(2, "no_url_no_image")]


def test_an_image_names_itself_before_its_url(tmp_path: Path) -> None:
    data = picture()
    path = write(
        tmp_path / "a.parquet", image=pa.array([data, None, b""]), key=["x", "y", "z"],
        url=["http://a/1", "http://a/2", "http://a/3"], text=["a", "b", "c"],
    )  # fmt: skip
    read = whole(path, id="key")
    sha = hashlib.sha256(data).digest()
    assert read.table["image_id"].to_pylist() == [
        image_id(sha256=sha), image_id(url="http://a/2"), image_id(url="http://a/3"),
    ]  # fmt: skip
    assert read.table["url"].to_pylist() == ["http://a/1", "http://a/2", "http://a/3"]
    assert read.table["image"].to_pylist()[1:] == [None, None]


@pytest.mark.parametrize("ids", [pa.array([5, 6]), pa.array(["5", "6"]), pa.array([b"5", b"6"])])
def test_a_column_id_names_what_has_no_other_name(tmp_path: Path, ids: pa.Array) -> None:
    read = whole(write(tmp_path / "a.parquet", id=ids, text=["dog", "cat"]))
    assert read.table["image_id"].to_pylist() == [image_id(key=b"5"), image_id(key=b"6")]


TEXTS = {
    "list": pa.array([["a", "b"], None, [], ["c", None, ""]]),
    "large list": pa.array([["a", "b"], None, [], ["c"]], pa.large_list(pa.large_string())),
    "fixed list": pa.array(
        [["a", "b"], ["", ""], [None, ""], ["c", None]], pa.list_(pa.string(), 2)
    ),
    "map": pa.array(
        [[("k", "a"), ("l", "b")], None, [], [("k", "c")]], pa.map_(pa.string(), pa.string())
    ),
    "struct": pa.array([{"k": "a", "l": "b"}, None, {"k": None}, {"k": "c", "l": ""}]),
    "struct of lists": pa.array([{"k": ["a", "b"]}, None, {"k": []}, {"k": ["c"]}]),
    "dictionary list": pa.array([["a", "b"], None, [], ["c"]]).cast(
        pa.list_(pa.dictionary(pa.int32(), pa.string()))
    ),
    "views": pa.array(["a", None, "", "c"], pa.string_view()),
    "large": pa.array(["a", None, "", "c"], pa.large_string()),
    "binary": pa.array([b"a", None, b"", b"c"]),
    "dictionary": pa.array(["a", None, "", "c"]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_columns_of_any_type(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a.parquet", url=[f"http://a/{n}" for n in range(4)], text=TEXTS[kind])
    read = whole(path)
    single = kind in ("views", "large", "binary", "dictionary")
    assert [text for _, text in read.texts()[0]] == (["a"] if single else ["a", "b"])
    assert [text for _, text in read.texts()[1]] == ["c"]
    assert read.table["position"].to_pylist() == [0, 3]
    keys = [key for key, _ in read.texts()[0]]
    expected = {"map": ["k", "l"], "struct": ["k", "l"], "struct of lists": ["k", "k"]}
    assert keys == expected.get(kind, ["text"] * len(keys))


def test_several_text_columns_in_their_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet", url=["http://a/1", "http://a/2"], title=["t1", "t2"],
        words=[["w1", "w2"], []], alt=[None, "a2"],
    )  # fmt: skip
    assert whole(path, text="alt,title,words").texts() == [
        [("title", "t1"), ("words", "w1"), ("words", "w2")],
        [("alt", "a2"), ("title", "t2")],
    ]


def test_json_texts(tmp_path: Path) -> None:
    texts = ['{"en": "dog", "fr": ["chien", "toutou"]}', '["a", "b"]', '"plain"', "", None, "{}"]
    path = write(tmp_path / "a.parquet", url=[f"http://a/{n}" for n in range(6)], text=texts)
    assert whole(path, text_format="json").texts() == [
        [("en", "dog"), ("fr", "chien"), ("fr", "toutou")],
        [("text", "a"), ("text", "b")],
        [("text", "plain")],
    ]


def test_units_are_ranges_of_row_groups_and_keep_positions(tmp_path: Path) -> None:
    rows = 5000
    path = write(
        tmp_path / "a.parquet", 500, url=[f"http://a/{n}" for n in range(rows)], text=["dog"] * rows
    )
    one = whole(path)
    parts = whole(path, IngestOptions(unit_bytes=20_000))
    assert len(one.units) == 1
    assert 1 < len(parts.units) <= 10
    assert parts.table.equals(one.table)
    assert one.table["position"].to_pylist() == list(range(rows))


@pytest.mark.parametrize("limit", [1, 499, 500, 501, 4999, 9999])
def test_limit(tmp_path: Path, limit: int) -> None:
    rows = 5000
    path = write(
        tmp_path / "a.parquet", 500, url=[f"http://a/{n}" for n in range(rows)], text=["dog"] * rows
    )
    read = whole(path, IngestOptions(limit=limit, unit_bytes=20_000))
    assert read.table["position"].to_pylist() == list(range(min(limit, rows)))


def test_tables_are_bounded(tmp_path: Path) -> None:
    texts = ["x" * 1_000_000 if n % 3 == 0 else "y" for n in range(150)]
    path = write(tmp_path / "a.parquet", url=[f"http://a/{n}" for n in range(150)], text=texts)
    read = whole(path)
    assert len(read.tables) > 1
    assert max(table.nbytes for table in read.tables) <= TABLE_BYTES + 1_100_000
    assert [text[0][1] for text in read.texts()] == texts


def test_a_column_name_that_looks_nested(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", **{"a.url": ["http://a/1"], "a.text": ["dog"], "b": [1]})
    assert whole(path, url="a.url", text="a.text").texts() == [[("a.text", "dog")]]


def test_columns_twice_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, ["url", "text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="twice"):
        whole(tmp_path / "a.parquet")


def test_a_choice_can_be_switched_off(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet", url=["http://a/1"], text=["dog"], image=pa.array([b"<html>"])
    )
    assert len(whole(path).letters) == 1
    read = whole(path, IngestOptions(columns=Columns(image="none")))
    assert read.table["image_id"].to_pylist() == [image_id(url="http://a/1")]


@given(st.lists(st.one_of(st.none(), st.binary(max_size=6), st.text(max_size=3).map(str.encode))))
@settings(max_examples=200, deadline=None)
def test_invalid_utf8_equals_decoding(values: list[bytes | None]) -> None:
    def bad(value: bytes | None) -> bool:
        try:
            (value or b"").decode()
        except UnicodeDecodeError:
            return True
        return False

    array = pa.array([b"\xff", *values, b"\xff"], pa.binary()).slice(1, len(values))
    assert invalid_utf8(array).tolist() == [bad(value) for value in values]


def test_rate_without_images(tmp_path: Path) -> None:
    """At least 300,000 rows a second of processor time: no row is handled on its own in Python."""
    rows = 400_000
    path = write(
        tmp_path / "a.parquet", 100_000, url=[f"http://example.org/{n}.jpg" for n in range(rows)],
        text=[f"a photo of a dog and {n % 1000} cats" for n in range(rows)],
    )  # fmt: skip
    options = IngestOptions()
    (unit,) = plan(pin_sources(find(str(path))), options)
    started = time.process_time()
    assert sum(outcome.table.num_rows for outcome in read(unit, options)) == rows
    assert rows / (time.process_time() - started) > 300_000
