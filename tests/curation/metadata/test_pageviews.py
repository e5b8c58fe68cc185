"""Page-view lines against a plain loop over the true format."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.metadata import pageviews
from schemas.errors import InputError
from tests.curation.metadata import plain

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "wikipedia"
HOURS = sorted(FIXTURES.glob("pageviews-*.gz"))
WIKIS = ("en", "fr", "ja", "th", "zh_min_nan", "bat_smg", "simple")


def as_dict(table: pa.Table) -> dict[tuple[str, str], int]:
    rows = table.to_pylist()
    found = {(r["wiki"], r["text"]): r["count"] for r in rows}
    assert len(found) == len(rows)
    return found


def plain_views(lines: list[bytes], wikis: tuple[str, ...]) -> dict[tuple[str, str], int]:
    views = plain.title_views(lines)
    return {(w, t): n for w in wikis for t, n in views.get(w, {}).items()}


def all_views(block_bytes: int) -> dict[tuple[str, str], int]:
    parts = []
    for path in HOURS:
        with path.open("rb") as file:
            for block in pageviews.blocks(path.name, file, block_bytes):
                parts.append(pageviews.views(block, WIKIS)[0])
    return as_dict(pageviews.add(parts, by=("wiki", "text")))


@pytest.mark.spec("metaclip2", 24)
@pytest.mark.parametrize("block_bytes", [1, 17, 200, 1 << 20])
def test_files_equal_a_plain_loop_for_any_block_size(block_bytes: int) -> None:
    lines = [line for path in HOURS for line in gzip.decompress(path.read_bytes()).split(b"\n")]
    views = all_views(block_bytes)
    assert views == plain_views(lines, WIKIS)
    assert len(views) > 15


@pytest.mark.spec("metaclip2", 24)
def test_rules_on_the_true_lines() -> None:
    views = all_views(1 << 20)
    assert views["en", "Dog"] == 60 + 50 + 55  # desktop and mobile
    assert views["en", "Snow"] == 51  # 49 and 20 are below 50 an hour
    assert views["en", "Border collie"] == 55  # en.b: a sister project of that language
    assert views["fr", "Chien"] == 4 + 2 + 1 + 3
    assert views["fr", "Neige"] == 1  # the hour with 0 views adds nothing
    assert views["fr", " Berger allemand"] == 1  # stripped later, by the selection
    assert views["zh_min_nan", "Káu"] == 4 and views["bat_smg", "Šou"] == 6
    texts = [text for _, text in views]
    assert not any(":" in t or "_" in t for t in texts)
    assert not {"too", "Missing", "Not a number", "File list", "Main Page"} & set(texts)


def test_lines_left_out_are_counted() -> None:
    block = gzip.decompress(HOURS[0].read_bytes())
    _, left_out = pageviews.views(block, WIKIS)
    assert left_out == {
        "bad_utf8": 1,
        "malformed": 5,  # "" "", too many fields, missing fields, not a number, the blank end
        "zero_views": 1,
        "colon": 3,
        "other_project": 2,
        "few_views": 1,
    }


FIELD = st.text(st.sampled_from("abü:_. \x1c\xa0-m"), max_size=6)
LINE = st.one_of(
    st.tuples(
        st.sampled_from(["en", "fr", "fr.m", "fr.m.b", "zh-min-nan", '""', "xx", ""]),
        FIELD,
        st.sampled_from(["0", "1", "49", "50", "007", "-1", "x", "", "٣", "9" * 18, "9" * 19]),
        st.sampled_from(["0", "12"]),
    ).map(lambda f: " ".join(f).encode()),
    st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(LINE, max_size=12))
def test_any_lines_equal_a_plain_loop(lines: list[bytes]) -> None:
    table, left_out = pageviews.views(b"\n".join(lines), WIKIS)
    assert as_dict(table) == plain_views(lines, WIKIS)
    assert table.schema.equals(pageviews.TITLE_SCHEMA)
    assert all(n > 0 for n in left_out.values())


def test_truncated_and_corrupt_files_are_named() -> None:
    data = HOURS[0].read_bytes()
    with pytest.raises(InputError, match=r"h\.gz: the page-view file cannot be read to its end"):
        list(pageviews.blocks("h.gz", io.BytesIO(data[:-20])))
    damaged = data[:60] + bytes([data[60] ^ 255]) + data[61:]
    with pytest.raises(InputError, match="truncated or corrupt"):
        list(pageviews.blocks("h.gz", io.BytesIO(damaged)))
    assert list(pageviews.blocks("plain", io.BytesIO(b"fr A 1 0"))) == [b"fr A 1 0"]
    assert list(pageviews.blocks("empty", io.BytesIO(b""))) == []
