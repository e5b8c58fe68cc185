"""Wordnet files of one's own: names, forms, English synsets, the Albanian repair."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.metadata.wordnets import (
    OMW_TO_WIKI,
    REPAIRS,
    lemma_entries,
    read_lemmas,
    synset_entries,
    wiki_of_file,
)
from schemas.errors import InputError, UsageError

TAB = """# Albanet\tals\thttp://example.org/\tCC BY 3.0
00001740-n\tals:lemma\tqenie
00001740-n\tals:lemma\tgjë+_e gjallë
00001740-n\tals:def 0\tnot a lemma
00002137-n\tals:lemma\t...
00002137-n\tals:lemma\tabstraksion
"""


def parquet(**columns: list) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    file.seek(0)
    return file


def test_names_of_files() -> None:
    names = {
        "wn-data-fra.tab": "fr",
        "wns/wikt/wn-wikt-deu.tab": "de",
        "fra.parquet": "fr",
        "wikt-jpn.parquet": "ja",
        "zh.parquet": "zh",
        "eng.parquet": "en",
    }
    assert {name: wiki_of_file(name) for name in names} == names
    with pytest.raises(UsageError, match=r"klingon\.parquet names no known language \('klingon'\)"):
        wiki_of_file("klingon.parquet")


def test_albanian_is_repaired_and_said() -> None:
    assert OMW_TO_WIKI["als"] == "sq" and wiki_of_file("wn-data-als.tab") == "sq"
    assert any("Albanian" in line for line in REPAIRS)
    assert len(OMW_TO_WIKI) == 32  # 30 mapped, English, and Albanet's proper code


def test_tab_files() -> None:
    lemmas, heads = read_lemmas("wn-data-als.tab", io.BytesIO(TAB.encode()))
    assert lemma_entries(lemmas).to_pylist() == ["abstraksion", "gjë e gjallë", "qenie"]
    assert heads.to_pylist() == ["qenie", "..."]
    with pytest.raises(InputError, match="holds no lemma line"):
        read_lemmas("wn-data-als.tab", io.BytesIO(b"# nothing\n"))
    with pytest.raises(InputError, match="line 2: not valid UTF-8"):
        read_lemmas("wn-data-als.tab", io.BytesIO(b"# x\n\xff\n"))


def test_parquet_files() -> None:
    both = parquet(synset=["1", "1", "2"], lemma=["St. Louis", "Saint Louis", "New_York"])
    lemmas, heads = read_lemmas("eng.parquet", both)
    assert lemmas.to_pylist() == ["St. Louis", "Saint Louis", "New_York"]
    assert synset_entries(heads).to_pylist() == ["new york", "st"]
    lemmas, heads = read_lemmas("fr.parquet", parquet(lemma=["a"]))
    assert (lemmas.to_pylist(), heads.to_pylist()) == (["a"], [])
    with pytest.raises(InputError, match="has no column lemma \\(found word\\)"):
        read_lemmas("fr.parquet", parquet(word=["a"]))
    with pytest.raises(InputError, match=r"fr\.parquet is not readable as Parquet"):
        read_lemmas("fr.parquet", io.BytesIO(b"PAR1 not really"))
