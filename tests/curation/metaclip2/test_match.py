"""Texts against their own language's metadata, with the real identifier and the real kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.metaclip2 import reference
from curation.metaclip2.counts import count
from curation.metaclip2.language import Identifier
from curation.metaclip2.match import ALL, match
from kernels.matching import Automaton, build
from schemas.errors import UsageError
from schemas.step import merge_stats
from schemas.table_schemas import MATCHES
from tests.curation.metaclip2.plain import pool

NUMBERS = [str(i) for i in range(100)]
METADATA = {
    "en": [*NUMBERS, "dog", "black dog", "with", "the"],
    "de": [*NUMBERS, "Hund", "mit", "schwarzer Hund"],
    "th": [*NUMBERS, "แม", "แมว", "หมา"],
}


class Given:
    """An identifier that reads the label in front of each text, as in "en|a dog"."""

    def identify(self, texts: pa.Array) -> pa.Array:
        return pa.array([t.partition("|")[0] for t in texts.to_pylist()], pa.string())


class Plain:
    """The brute-force matcher behind the kernel's interface."""

    def __init__(self, entries: list[str]) -> None:
        self.entries = entries

    def match(self, texts: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        found = reference.match(texts.to_pylist(), self.entries, "repaired")
        offsets = np.cumsum([0, *map(len, found)])
        return offsets, np.array([i for ids in found for i in ids], np.uint32)


@pytest.fixture(scope="module")
def automata(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Automaton]:
    folder: Path = tmp_path_factory.mktemp("automata")
    for key, entries in METADATA.items():
        build(entries, mode="repaired", path=folder / key)
    return {key: Automaton.open(folder / key) for key in METADATA}


@pytest.fixture(scope="module")
def identifier() -> Identifier:
    return Identifier()


def entries_of(outcome) -> list[list[str]]:
    return [
        [METADATA[row["metadata"]][i] for i in row["entries"]] for row in outcome.table.to_pylist()
    ]


@pytest.mark.spec("metaclip2", 14)
def test_a_text_meets_the_metadata_of_its_own_language(automata, identifier) -> None:
    texts = [
        "The black dog plays with the children in the garden.",
        "Ein schwarzer Hund spielt mit den Kindern im Garten.",
        "แมวสีขาวนอนบนโซฟา",
    ]
    found = match(pool(texts), automata, identifier)
    assert found.table["metadata"].to_pylist() == ["en", "de", "th"]
    assert entries_of(found) == [
        ["dog", "black dog", "with", "the"],
        ["Hund", "mit", "schwarzer Hund"],
        ["แม", "แมว"],
    ]
    counted = count(found.table).to_pylist()
    # "mit" is an entry of German only, and nothing German counts for English.
    assert all(METADATA["en"][c["entry"]] != "mit" for c in counted if c["metadata"] == "en")
    english = [c["entry"] for c in counted if c["metadata"] == "en"]
    assert [METADATA["en"][e] for e in english] == ["dog", "black dog", "with", "the"]
    assert found.table.schema.equals(MATCHES.arrow, check_metadata=True)


@pytest.mark.spec("metaclip2", 14)
def test_an_entry_of_two_languages_counts_where_the_text_belongs() -> None:
    automata = {"en": Plain(["mit", "dog"]), "de": Plain(["mit"])}
    found = match(pool(["de|mit", "de|dog mit", "en|mit"]), automata, Given())
    assert count(found.table).to_pylist() == [
        {"metadata": "de", "entry": 0, "count": 2},
        {"metadata": "en", "entry": 0, "count": 1},
    ]


@pytest.mark.spec("metaclip2", 7)
def test_digits_alone_are_legal(automata, identifier) -> None:
    found = match(pool(["12", "2021-04-05", "4711"]), automata, identifier)
    assert entries_of(found)[0] == ["12"]
    assert found.table["text"].to_pylist()[0] == "12"
    assert "4711" not in found.table["text"].to_pylist()


@pytest.mark.spec("metaclip2", 8)
def test_line_ends_and_tabs_separate_words(automata, identifier) -> None:
    text = "Look at the\tdog\nin the garden\rwith children"
    found = match(pool([text]), automata, identifier)
    assert entries_of(found) == [["dog", "with", "the"]]
    assert found.table["text"].to_pylist() == [text]


@pytest.mark.spec("metaclip2", 9)
def test_no_metadata_for_a_language_drops_the_text_and_counts_it(automata, identifier) -> None:
    texts = ["Un chien noir court dans l'herbe verte.", "the dog", "nothing of that matches here"]
    found = match(pool(texts), automata, identifier)
    assert found.table["text"].to_pylist() == ["the dog"]
    found.ledger.check(parents={"text": 3}, out={"text": 1})
    assert found.ledger.count("text", "rejected", "language_without_metadata") == 1
    assert found.ledger.count("text", "rejected", "no_entry_matched") == 1
    assert found.stats == {
        "identified": {"en": {"texts": 2}, "fr": {"texts": 1}},
        "languages": {"en": {"texts": 2, "matched": 1}, "fr": {"texts": 1, "matched": 0}},
        "unknown_labels": {},
    }


@pytest.mark.spec("metaclip2", 9)
def test_an_unknown_label_goes_to_other_or_is_dropped() -> None:
    texts = pool(["xx|dog", "en|dog", "|dog"])
    without = match(texts, {"en": Plain(["dog"])}, Given())
    assert without.ledger.count("text", "rejected", "language_without_metadata") == 2
    assert without.stats["unknown_labels"] == {"xx": {"texts": 1}}
    other = match(texts, {"en": Plain(["dog"]), "other": Plain(["cat", "dog"])}, Given())
    assert other.table["metadata"].to_pylist() == ["other", "en", "other"]
    assert other.table["language"].to_pylist() == ["xx", "en", ""]
    assert other.table["entries"].to_pylist() == [[1], [0], [1]]


def test_without_isolation_all_texts_meet_one_automaton() -> None:
    texts = pool(["de|mit dog", "en|mit", "fr|chat"])
    found = match(texts, {ALL: Plain(["dog", "mit"])}, Given(), isolation=False)
    assert found.table["metadata"].to_pylist() == ["all", "all"]
    assert found.table["language"].to_pylist() == ["de", "en"]
    assert found.table["entries"].to_pylist() == [[0, 1], [1]]
    assert found.stats["languages"] == {"all": {"texts": 3, "matched": 2}}
    with pytest.raises(UsageError, match="isolation=off"):
        match(texts, {"en": Plain(["dog"])}, Given(), isolation=False)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["en", "de", "th", "fr"]), st.text("abแม ", max_size=6)),
        max_size=12,
    ),
    st.integers(0, 12),
)
def test_equals_a_plain_loop_however_tables_are_cut(rows, cut) -> None:
    entries = {"en": ["a", "b", "a b"], "de": ["b"], "th": ["แ", "แม", "a"]}
    automata = {key: Plain(own) for key, own in entries.items()}
    table = pool([f"{key}|{text}" for key, text in rows])
    expected = []
    for key, text in rows:
        ids = reference.match([f"{key}|{text}"], entries.get(key, []), "repaired")[0]
        if ids:
            expected.append((f"{key}|{text}", key, ids))
    whole = match(table, automata, Given())
    found = [(r["text"], r["metadata"], r["entries"]) for r in whole.table.to_pylist()]
    assert found == expected
    whole.ledger.check(parents={"text": len(rows)}, out={"text": len(expected)})
    cut = min(cut, len(rows))
    a, b = (match(part, automata, Given()) for part in (table.slice(0, cut), table.slice(cut)))
    assert pa.concat_tables([a.table, b.table]).equals(whole.table)
    a.ledger.merge(b.ledger)
    assert a.ledger == whole.ledger
    assert merge_stats(a.stats, b.stats) == whole.stats
