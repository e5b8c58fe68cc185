"""Contamination against a search for n-grams in plain Python, and the rule's cases one by one."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.text.contamination import ContaminationIndex, ContaminationOptions
from kernels.minhash import words_of
from kernels.minhash.words import grams
from schemas.errors import InputError, UsageError
from schemas.ids import id128, id_array

SPEECH = (
    "Four score and seven years ago our fathers brought forth on this continent, a new nation, "
    "conceived in Liberty, and dedicated to the proposition that all men are created equal."
)


def documents(texts: list[str]) -> pa.Table:
    return pa.table(
        {
            "doc_id": id_array([id128(b"document", text.encode()) for text in texts]),
            "file": pa.array([0] * len(texts), pa.int32()),
            "position": pa.array(range(len(texts)), pa.int64()),
            "text": pa.array(texts, pa.string()),
        }
    )


def index(
    options: ContaminationOptions | None = None, **sets: list[str | None]
) -> ContaminationIndex:
    columns = {name: pa.array(texts, pa.string()) for name, texts in sets.items()}
    return ContaminationIndex.build(columns, options or ContaminationOptions())


def found(made: ContaminationIndex, *texts: str) -> list[tuple[int, str, str]]:
    rows = made.find(documents(list(texts)))
    return [(r["position"], r["evaluation"], r["ngram"]) for r in rows.to_pylist()]


def test_thirteen_words_in_common_are_contamination_and_twelve_are_not() -> None:
    made = index(speech=[SPEECH])
    words = SPEECH.split()
    inside = "He said: '" + " ".join(words[4:17]).upper().replace(",", " --") + "'. And left."
    assert found(made, " ".join(words[4:16]), inside) == [
        (
            1,
            "speech",
            "years ago our fathers brought forth on this continent a new nation conceived",
        )
    ]


def test_a_shorter_text_is_found_inside_from_eight_words_on() -> None:
    eight, seven = "to be or not to be that is", "whether tis nobler in the mind to"
    made = index(hamlet=[eight, seven, "Paris"])
    assert found(
        made,
        f"I ask: {eight.title()}, my question.",
        f"I ask: {seven}, my question.",
        seven.upper() + "!",
        "A trip to Paris",
        "\nparis.\n",
        "to be or not to be that",
    ) == [(0, "hamlet", eight), (2, "hamlet", seven), (4, "hamlet", "paris")]


def test_each_set_is_named_with_the_first_ngram_of_the_document() -> None:
    words = SPEECH.split()
    made = index(late=[" ".join(words[10:])], early=[" ".join(words[:16])], other=["x y"])
    rows = found(made, "x " + SPEECH, "nothing at all")
    assert [(row, name, gram.split()[0]) for row, name, gram in rows] == [
        (0, "early", "four"),
        (0, "late", "on"),
    ]


def test_a_share_asks_for_so_much_of_one_text() -> None:
    words = [f"w{i}" for i in range(28)]  # 16 n-grams of 13 words
    made = {
        share: index(ContaminationOptions(share=share), a=[" ".join(words)], b=["u " * 30])
        for share in (0.0, 0.25, 0.5, 0.51)
    }
    half = " ".join(words[:20]) + " u " * 5  # 8 of them
    assert [len(found(made[share], half)) for share in made] == [1, 1, 1, 0]
    # Half of one text and half of another are not the whole of either.
    two = index(ContaminationOptions(share=0.6), a=[" ".join(words), " ".join(words[::-1])])
    both = half + " " + " ".join(words[::-1][:20])
    assert found(two, both) == []


def test_scripts_without_spaces_are_compared_by_26_characters() -> None:
    text = "人人生而自由在尊严和权利上一律平等他们赋有理性和良心并应以兄弟关系的精神相对待"
    made = index(udhr=[text])
    assert [row for row, *_ in found(made, text[:25], "见：" + text[3:29], text[5:20])] == [1]


PIECES = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=12).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=4), st.lists(PIECES, max_size=4), st.integers(2, 4))
def test_equals_a_search_in_plain_python(known: list[str], texts: list[str], n: int) -> None:
    least = n - 1
    if not any(map(words_of, known)):
        known = [*known, "z"]
    made = index(ContaminationOptions(words=n, least_words=least), set=list(known))
    wanted = []
    for row, text in enumerate(texts):
        words = tuple(words_of(text))
        firsts = []
        for other in map(words_of, known):
            pieces = [tuple(other[a:b]) for a, b in grams(other, n)]
            if not pieces and len(other) >= least:
                pieces = [tuple(other)]
            for piece in pieces:
                starts = range(len(words) - len(piece) + 1)
                firsts += [i for i in starts if words[i : i + len(piece)] == piece]
            if 0 < len(other) < least and words == tuple(other):
                firsts.append(0)
        if firsts:
            wanted.append((row, min(firsts)))
    rows = found(made, *texts)
    assert [row for row, *_ in rows] == [row for row, _ in wanted]
    for (row, _, gram), (_, first) in zip(rows, wanted, strict=True):
        assert words_of(texts[row])[first : first + len(gram.split())] == gram.split()


def test_the_file_gives_the_same_index(tmp_path: Path) -> None:
    options = ContaminationOptions(words=6, least_words=3, share=0.1)
    made = index(options, speech=[SPEECH, "a b c", "a"], other=["x y z u"])
    made.write(tmp_path / "one")
    index(options, other=["x y z u"], speech=[SPEECH, "a b c", "a"]).write(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    opened = ContaminationIndex.open(tmp_path / "one")
    assert (opened.options, opened.names) == (options, ["other", "speech"])
    texts = [SPEECH, "z a b c z", "a", "a b", "x y z u"]
    assert found(opened, *texts) == found(made, *texts)
    assert [row for row, *_ in found(made, *texts)] == [0, 1, 2, 4]


def test_an_index_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.text.contamination.UNICODE_VERSION", "1.0")
    index(a=["b"]).write(tmp_path / "index")
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"Unicode version \(1, '1.0'\).*build it again"):
        ContaminationIndex.open(tmp_path / "index")


def test_a_collision_of_hashes_reports_nothing() -> None:
    made = index(a=["one two three four five six seven eight nine"])
    made.entries.pool[:3] = list(b"two")  # as if these words had the same hash
    assert found(made, "one two three four five six seven eight nine") == []


def test_no_documents_and_no_hits() -> None:
    made = index(a=["b", None])
    assert made.find(documents([])).num_rows == 0
    assert made.find(documents(["", "c"])).num_rows == 0


def test_sets_that_say_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="no evaluation sets"):
        ContaminationIndex.build({}, ContaminationOptions())
    with pytest.raises(InputError, match="'a' has no words"):
        index(a=["...", None], b=["c"])
    with pytest.raises(InputError, match="'a' has no texts"):
        ContaminationIndex.build({"a": pa.array([[1]])}, ContaminationOptions())
    with pytest.raises(UsageError, match=r"least_words=9 and contamination\.words=8"):
        ContaminationOptions(words=8, least_words=9)
    with pytest.raises(UsageError, match="share=2"):
        ContaminationOptions(share=2)
