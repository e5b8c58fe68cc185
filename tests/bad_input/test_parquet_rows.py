"""Bad values in Parquet rows, and pages that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bad_input.command import Ran, ingest
from tests.bad_input.making import raw_strings

SHA = b"ab" * 32
URL = b"http://example.org/x.jpg"

# name: ((url, text, sha256), reason, what the error says)
Values = tuple[bytes | None, bytes | None, bytes | None]
CASES: dict[str, tuple[Values, str, str]] = {
    "latin-1 text": ((URL, b"caf\xe9", SHA), "bad_utf8", "text 'TEXT'"),
    "cut character": ((URL, "日本".encode()[:-1], SHA), "bad_utf8", "text 'TEXT'"),
    "overlong NUL": ((URL, b"a\xc0\x80b", SHA), "bad_utf8", "text 'TEXT'"),
    "surrogate": ((URL, b"\xed\xa0\xbd", SHA), "bad_utf8", "text 'TEXT'"),
    "UTF-16": ((URL, "dog".encode("utf-16"), SHA), "bad_utf8", "text 'TEXT'"),
    "lone continuation": ((URL, b"\x80", SHA), "bad_utf8", "text 'TEXT'"),
    "beyond Unicode": ((URL, b"\xf5\x80\x80\x80", SHA), "bad_utf8", "text 'TEXT'"),
    "bad URL bytes": ((b"http://a/\xff", b"dog", SHA), "bad_utf8", "the URL"),
    "null URL": ((None, b"dog", SHA), "no_url_no_image", "columns.url"),
    "empty URL": ((b"", b"dog", SHA), "no_url_no_image", "columns.url"),
    "short SHA-256": ((URL, b"dog", b"abcd"), "bad_record", "neither 64 hex digits"),
    "SHA-256 with a space": ((URL, b"dog", b" " + SHA[1:]), "bad_record", "64 hex digits"),
    "SHA-256 in Cyrillic": ((URL, b"dog", "а".encode() * 32), "bad_record", "64 hex digits"),
}

# name: (JSON in the text column, what the error says)
KEYED: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"{dog}", "column 'TEXT' is not the JSON"),
    "a number": (b"5", "found int"),
    "holds a number": (b'{"en": 5}', "a text is expected in 'en', found int"),
    "holds a list of lists with true": (b'[["dog", [true]]]', "found bool"),
    "bad bytes": (b'{"en": "\xff"}', "column 'TEXT' is not the JSON"),
    "nested too deeply": (b"[" * 40 + b"]" * 40, "nested more than 16 deep"),
}


def encoded(table: pa.Table, how: str) -> pa.Table:
    names = table.column_names
    if how == "large_utf8":
        wide = [c.combine_chunks().view(pa.binary()).cast(pa.large_binary()) for c in table.columns]
        return pa.table([c.view(pa.large_string()) for c in wide], names)
    if how == "dictionary":
        return pa.table([c.dictionary_encode() for c in table.columns], names)
    return table


def written(path: Path, rows: list[Values], how: str = "utf8") -> Path:
    columns = [raw_strings(values) for values in zip(*rows, strict=True)]
    table = encoded(pa.table(columns, ["URL", "TEXT", "SHA256"]), how)
    pq.write_table(table, path, row_group_size=len(rows) // 2)
    return path


def between_good_ones(rows: list[Values], good: bytes = b"a dog") -> list[Values]:
    found: list[Values] = []
    for number, values in enumerate(rows):
        found += [(b"http://example.org/%d.jpg" % number, good, SHA), values]
    return found


@pytest.fixture(scope="module", params=["utf8", "large_utf8", "dictionary"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    place = tmp_path_factory.mktemp("parquet")
    rows = between_good_ones([values for values, _, _ in CASES.values()])
    return ingest(written(place / "pool.parquet", rows, request.param), place / "out")


@pytest.mark.parametrize("name", CASES)
def test_dead_letter_names_row_and_reason(ran: Ran, name: str) -> None:
    _, reason, message = CASES[name]
    letter = ran.letter(2 * list(CASES).index(name) + 1)
    assert letter["reason"] == reason
    assert message in letter["error"]


def test_the_other_rows_stay(ran: Ran) -> None:
    assert ran.positions == list(range(0, 2 * len(CASES), 2))
    assert len(ran.letters) == len(CASES)


@pytest.fixture(scope="module")
def keyed(place: Path) -> Ran:
    rows = between_good_ones([(URL, text, SHA) for text, _ in KEYED.values()], b'{"en": "dog"}')
    source = written(place / "keyed.parquet", rows)
    return ingest(source, place / "keyed", "columns.text_format=json")


@pytest.mark.parametrize("name", KEYED)
def test_json_texts(keyed: Ran, name: str) -> None:
    letter = keyed.letter(2 * list(KEYED).index(name) + 1)
    assert letter["reason"] == "bad_record"
    assert KEYED[name][1] in letter["error"]
    assert keyed.positions == list(range(0, 2 * len(KEYED), 2))


def test_one_bad_row_in_ten_thousand_costs_exactly_that_row(tmp_path: Path) -> None:
    rows: list[Values] = [(b"http://example.org/%d" % n, b"dog", SHA) for n in range(10_000)]
    rows[9_999] = (URL, b"\xff", SHA)
    ran = ingest(written(tmp_path / "a.parquet", rows), tmp_path / "out")
    assert ran.positions == list(range(9_999))
    assert [letter["position"] for letter in ran.letters] == [9_999]


@pytest.mark.parametrize("codec", ["snappy", "zstd", "none"])
def test_a_damaged_page_costs_the_rest_of_its_row_group(tmp_path: Path, codec: str) -> None:
    rng = np.random.default_rng(0)
    words = [f"{n} {rng.bytes(12).hex()}" for n in range(4000)]
    table = pa.table({"url": [f"http://a/{n}" for n in range(4000)], "text": words})
    path = tmp_path / "pool.parquet"
    pq.write_table(
        table, path, row_group_size=1000, compression=codec, use_dictionary=False,
        data_page_size=4096, write_batch_size=64, write_page_checksum=True,
    )  # fmt: skip
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    data = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    data[middle : middle + 8] = bytes(b ^ 0x55 for b in data[middle : middle + 8])
    path.write_bytes(data)
    ran = ingest(path, tmp_path / "out")
    (letter,) = ran.letters
    assert letter["reason"] == "bad_parquet_row"
    assert f"rows {letter['position']} to 1999 of row group 1 cannot be read" in letter["error"]
    lost = ran.rejected["bad_parquet_row"]
    assert lost == 2000 - letter["position"]
    assert ran.positions == [*range(letter["position"]), *range(2000, 4000)]
