"""Documents of files: formats agree, cuts do not matter, splits and ids are pure functions."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.text.documents import Sieve, document_ids, in_validation
from curation.text.sources import find_texts, runs, source_names, unrun
from schemas.errors import InputError, UsageError
from schemas.ids import id128, id_array
from tests.curation.text.whole import whole

TEXTS = ["One fish.", "deux\npoissons, très bleus", "三匹の魚", "x" * 3000, "last\u2028one"]


def jsonl(texts: list[str], **more: object) -> bytes:
    return "".join(json.dumps({"text": text, **more}) + "\n" for text in texts).encode()


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("", bytes),
        (".gz", gzip.compress),
        (".zst", zstd),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
    ],
)
def test_compressed_or_not(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack(jsonl(TEXTS)))
    found = whole(tmp_path)
    assert found.texts == TEXTS
    offsets = np.cumsum([0, *(len(jsonl([text])) for text in TEXTS[:-1])])
    assert found.table["position"].to_pylist() == offsets.tolist()


def test_parquet_lines_and_separators_give_the_same_documents(tmp_path: Path) -> None:
    pq.write_table(pa.table({"Content": TEXTS}), tmp_path / "a.parquet", row_group_size=2)
    ids = whole(tmp_path / "a.parquet").table["doc_id"].to_pylist()
    assert ids == [id128(b"document", text.encode()) for text in TEXTS]
    (tmp_path / "b.txt").write_text("<|cut|>".join(TEXTS), encoding="utf-8")
    assert whole(tmp_path / "b.txt", split_on="<|cut|>").table["doc_id"].to_pylist() == ids
    flat = [text.replace("\n", " ") for text in TEXTS]
    (tmp_path / "c.txt").write_text("\r\n".join(flat) + "\r\n\n", encoding="utf-8", newline="")
    assert whole(tmp_path / "c.txt", split_on="lines").texts == flat
    (tmp_path / "d.md").write_text("\ufeff" + "\n\n \n".join(TEXTS), encoding="utf-8")
    assert whole(tmp_path / "d.md", split_on="blank_lines").texts == TEXTS
    assert whole(tmp_path / "d.md").texts == ["\n\n \n".join(TEXTS)]


@pytest.mark.parametrize("split_on", ["lines", "blank_lines", "<|cut|>"])
@pytest.mark.parametrize("unit_bytes", [7, 100, 1000])
def test_units_of_any_size_give_the_same_documents(
    tmp_path: Path, split_on: str, unit_bytes: int
) -> None:
    data = "\n\n".join(f"{text}<|cut|>" for text in TEXTS * 5)
    (tmp_path / "a.txt").write_text(data, encoding="utf-8")
    (tmp_path / "b.jsonl").write_bytes(jsonl(TEXTS * 9))
    pq.write_table(pa.table({"text": TEXTS * 4}), tmp_path / "c.parquet", row_group_size=3)
    one = whole(tmp_path, split_on=split_on)
    many = whole(tmp_path, split_on=split_on, unit_bytes=unit_bytes)
    assert len(one.units) == 3 < len(many.units)
    assert many.table.equals(one.table)
    assert one.table["file"].value_counts().to_pylist()[1]["counts"] == 45


def test_a_document_of_ten_megabytes_passes_and_the_limit_is_a_reason(tmp_path: Path) -> None:
    big = "word " * 2_000_000
    (tmp_path / "a.txt").write_text(big)
    (tmp_path / "b.jsonl").write_bytes(jsonl([big, "small"]))
    pq.write_table(pa.table({"text": [big]}), tmp_path / "c.parquet")
    assert [len(text) for text in whole(tmp_path).texts] == [10_000_000] * 2 + [5, 10_000_000]
    cut = whole(tmp_path, max_document_bytes=9_999_999)
    assert cut.texts == ["small"]
    assert cut.rejected == {"document_too_long": 3}
    assert all("10000000 bytes, limit 9999999" in letter["error"] for letter in cut.letters)
    assert sum(len(letter["row"]) for letter in cut.letters) < 3_000_000


def test_limit_takes_the_first_records_of_each_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(TEXTS))
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "b.parquet", row_group_size=2)
    (tmp_path / "c.txt").write_text("\n".join(["a", "b", "c", "d"]))
    found = whole(tmp_path, split_on="lines", limit=3)
    assert found.texts == [*TEXTS[:3], *TEXTS[:3], "a", "b", "c"]


def test_the_split_is_a_share_of_ids_and_a_larger_share_holds_out_more() -> None:
    ids = document_ids([str(n).encode() for n in range(20_000)])
    one, ten = in_validation(ids, 0.01), in_validation(ids, 0.1)
    assert abs(int(ten.sum()) - 2000) < 4 * np.sqrt(1800)
    assert (one <= ten).all() and one.any()
    assert not in_validation(ids, 0.0).any()
    shuffled = np.random.default_rng(0).permutation(len(ids))
    assert (in_validation(ids.take(pa.array(shuffled)), 0.1) == ten[shuffled]).all()


def test_statistics_and_split_column(tmp_path: Path) -> None:
    texts = [f"text number {n}" for n in range(2_000)]
    (tmp_path / "a.jsonl").write_bytes(jsonl(texts))
    found = whole(tmp_path, validation=0.25)
    held_out = in_validation(id_array(id128(b"document", t.encode()) for t in texts), 0.25)
    splits = found.table["split"].to_pylist()
    assert splits == ["validation" if held else "train" for held in held_out]
    assert found.stats["documents"] == {
        "train": splits.count("train"),
        "validation": splits.count("validation"),
    }
    sizes = [len(text) for text in texts]
    assert found.stats["bytes"]["validation"] == sum(np.array(sizes)[held_out])


def test_languages_by_the_model_or_a_column(tmp_path: Path) -> None:
    english = "The quick brown fox jumps over the lazy dog near the river."
    french = "Le renard brun saute par-dessus le chien paresseux près de la rivière."
    (tmp_path / "a.jsonl").write_bytes(jsonl([english, french]))
    found = whole(tmp_path, Sieve(languages=("fr",)))
    assert (found.texts, found.rejected) == ([french], {"other_language": 1})
    assert found.table["language"].to_pylist() == ["fr"]
    (tmp_path / "a.jsonl").write_bytes(jsonl([english], lang="de") + jsonl([french], lang=None))
    found = whole(tmp_path, Sieve(languages=("de", "fr")), language="lang")
    assert found.table["language"].to_pylist() == ["de", "fr"]
    assert whole(tmp_path, language="lang").table["language"].to_pylist() == ["de", None]


def test_rules_reject_by_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(["one two three", "one", "one two"]))
    found = whole(tmp_path, Sieve(rules={"min_words": 2, "max_words": 2}))
    assert found.texts == ["one two"]
    assert found.rejected == {"max_words": 1, "min_words": 1}
    assert found.letters == []


def test_sources_are_columns_names_or_directories(tmp_path: Path) -> None:
    for place in ("wiki/en", "wiki/fr", "books"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.jsonl").write_bytes(jsonl(["x"], origin="page"))
    files = find_texts(str(tmp_path))
    assert source_names(files, {}) == ["books", "en", "fr"]
    named = {"w": str(tmp_path / "wiki"), "french": str(tmp_path / "wiki" / "fr")}
    assert source_names(files, named) == ["books", "w", "french"]
    assert unrun(runs(["a", "a", "b", "a"])) == ["a", "a", "b", "a"]
    assert whole(tmp_path / "books", source="origin").table["source"].to_pylist() == ["page"]


def test_a_file_that_changes_after_it_was_pinned_is_refused(tmp_path: Path) -> None:
    from curation.text.documents import read_documents
    from curation.text.options import TextOptions
    from curation.text.plan import plan_texts
    from curation.text.sources import pin_texts

    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(TEXTS))
    (unit,) = plan_texts(pin_texts(find_texts(str(path))), ["s"], TextOptions())
    path.write_bytes(jsonl(TEXTS[::-1]))
    with pytest.raises(InputError, match="has changed since it was pinned"):
        list(read_documents(unit, TextOptions(), Sieve(), 0.0))


def test_options_that_make_no_sense_are_refused() -> None:
    from curation.text.options import TextOptions

    with pytest.raises(UsageError, match="split_on= is empty"):
        TextOptions(split_on="")
    with pytest.raises(UsageError, match="give one of them"):
        TextOptions(text="a", messages="b")
