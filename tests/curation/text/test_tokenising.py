"""Token rows against the tokenizer called by hand, one text at a time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from curation.text import tokenising
from curation.text.documents import document_ids
from curation.text.tokenising import (
    Facts,
    check_complete,
    digest_of,
    facts_of,
    load_tokenizer,
    tokenise,
    tokenizer_file,
    unknown_bytes,
    width,
)
from curation.text.training import END, sampled, train_bpe
from schemas.errors import InputError, UsageError
from schemas.text_schemas import DOCUMENTS

TEXTS = [f"{n} fish swam past the {w} bridge" for n in range(40) for w in ("old", "new")]


def documents(texts: list[str]) -> pa.Table:
    rows = len(texts)
    columns = {
        "doc_id": document_ids([text.encode() for text in texts]),
        "split": ["validation" if n % 5 == 0 else "train" for n in range(rows)],
        "source": ["ab"[n % 2] for n in range(rows)],
        "text": texts,
        "file": pa.array([0] * rows, pa.int32()),
        "position": pa.array(range(rows)),
    }
    return DOCUMENTS.validate(pa.table(columns))


@pytest.fixture(scope="module")
def trained() -> bytes:
    return train_bpe(TEXTS, 280)


def ids_of(outcome: pa.Table, kind: str = "<u2") -> list[list[int]]:
    return [np.frombuffer(cell, kind).tolist() for cell in outcome["tokens"].to_pylist()]


def test_rows_are_what_the_tokenizer_gives_one_by_one(
    trained: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenising, "BATCH_BYTES", 300)
    texts = [*TEXTS, "", "\U0001f41f" * 500]
    tokenizer = load_tokenizer(trained, "t")
    outcome = tokenise(documents(texts), tokenizer, Facts(2, 280, 0))
    by_hand = Tokenizer.from_str(trained.decode())
    expected = [[*by_hand.encode(text).ids, 0] for text in texts]
    assert ids_of(outcome.table) == expected
    assert outcome.table["length"].to_pylist() == list(map(len, expected))
    tokens: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    for row, ids in enumerate(expected):
        tokens["validation" if row % 5 == 0 else "train"] += len(ids)
        sources["ab"[row % 2]] += len(ids)
    assert outcome.stats["tokens"] == tokens
    assert outcome.stats["sources"] == sources
    buckets = Counter(f"{len(ids).bit_length() - 1:02d}" for ids in expected)
    assert outcome.stats["lengths"] == buckets
    outcome.ledger.check(out={"document": len(texts)})


def test_no_text_can_forge_the_end_of_text(trained: bytes) -> None:
    tokenizer = load_tokenizer(trained, "t")
    facts = Facts(2, 280, 0)
    forged = documents([f"a{END}b", END])
    rows = ids_of(tokenise(forged, tokenizer, facts).table)
    assert [row.count(0) for row in rows] == [1, 1]
    assert [tokenizer.decode(row) for row in rows] == [f"a{END}b", END]
    rendered = ids_of(tokenise(forged, tokenizer, facts, parse_special=True).table)
    assert [row.count(0) for row in rendered] == [2, 1]  # and an end is not doubled
    assert rendered[1] == [0]


def test_without_an_end_a_text_of_no_token_is_rejected(trained: bytes) -> None:
    outcome = tokenise(
        documents(["fish", ""]), load_tokenizer(trained, "t"), Facts(2, 280, 0), append_eos=False
    )
    assert outcome.table.num_rows == 1
    assert outcome.ledger.count("document", "rejected", "no_tokens") == 1
    outcome.ledger.check(out={"document": 1})


def test_large_vocabularies_take_four_bytes() -> None:
    words = {f"w{n}": n for n in range(70_000)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    facts = facts_of(tokenizer, "w69999", {}, True)
    assert facts == Facts(4, 70_000, 69_999)
    outcome = tokenise(documents(["w65536 w1", "w3"]), tokenizer, facts)
    assert ids_of(outcome.table, "<u4") == [[65_536, 1, 69_999], [3, 69_999]]
    assert (width(2**16), width(2**16 + 1)) == (2, 4)


def test_truncation_and_padding_of_the_file_are_switched_off(trained: bytes) -> None:
    own = Tokenizer.from_str(trained.decode())
    own.enable_truncation(2)
    own.enable_padding(length=7)
    loaded = load_tokenizer(own.to_str().encode(), "t")
    rows = ids_of(tokenise(documents([TEXTS[0]]), loaded, Facts(2, 280, 0)).table)
    assert loaded.decode(rows[0]) == TEXTS[0]


def test_the_end_of_text_is_found_beside_the_tokenizer(tmp_path: Path, trained: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(trained)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "!"}}))
    file, config = tokenizer_file(tmp_path)
    loaded = load_tokenizer(file.read_bytes(), "t")
    assert facts_of(loaded, None, config, True).eos == loaded.token_to_id("!")
    assert facts_of(loaded, None, {}, True).eos == 0
    with pytest.raises(UsageError, match="eos=</s>: the tokenizer has no such token"):
        facts_of(loaded, "</s>", {}, True)
    bare = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    assert facts_of(bare, None, {}, False) == Facts(2, 1, None)
    with pytest.raises(UsageError, match="append_eos=false"):
        facts_of(bare, None, {}, True)
    with pytest.raises(InputError, match="there is no file"):
        tokenizer_file(tmp_path / "absent.json")
    with pytest.raises(InputError, match="is not a tokenizer"):
        load_tokenizer(b"\xff{", "x.json")


def test_training_does_not_depend_on_order_and_covers_every_text(trained: bytes) -> None:
    assert train_bpe(TEXTS[::-1], 280) == trained
    tokenizer = load_tokenizer(trained, "t")
    assert tokenizer.get_vocab_size() == 280
    assert tokenizer.token_to_id(END) == 0
    for text in ("fish", "\0\x7f\u0000é三\U0001f41f", "  a\n\n b", "12345"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text
    assert len(tokenizer.encode("12345").ids) == 5  # digits one by one
    assert digest_of(trained) == digest_of(train_bpe(TEXTS * 1, 280))
    more = load_tokenizer(train_bpe(TEXTS, 280, ["<|user|>"]), "t")
    assert more.encode("<|user|>").ids == [1]


def test_a_sample_without_enough_merges_is_refused() -> None:
    with pytest.raises(UsageError, match=r"give vocabulary=\d+ or less"):
        train_bpe(["ab ab"], 280)


def test_the_sample_is_a_share_of_ids() -> None:
    ids = document_ids([str(n).encode() for n in range(10_000)])
    half = sampled(ids, 0.5, 0)
    assert abs(int(half.sum()) - 5_000) < 200
    assert (half != sampled(ids, 0.5, 1)).any()
    assert sampled(ids, 1.0, 0).all()


def test_texts_with_a_control_character_that_has_no_token_are_rejected(trained: bytes) -> None:
    """As with published tokenizers, which never met some of them; a letter that is missing is refused."""

    def without(*letters: str) -> Tokenizer:
        tree = json.loads(trained)
        vocabulary = tree["model"]["vocab"]
        for letter in letters:
            vocabulary[f"no {letter}"] = vocabulary.pop(letter)
        merges = tree["model"]["merges"]
        tree["model"]["merges"] = [m for m in merges if not set(letters) & set(m)]
        return load_tokenizer(json.dumps(tree).encode(), "t")

    letter = chr(0x100 + 0x04)  # GPT-2's letter of the byte 0x04
    tokenizer = without(letter)
    check_complete(tokenizer, "t")
    assert unknown_bytes(tokenizer) == [0x04]
    texts = ["fish", "fi\x04sh", "\x05", "se\u00f1or", "\U00040000"]
    unknown = [0x04, 0xF1]  # the second as a byte, not as the letter of that number
    outcome = tokenise(documents(texts), tokenizer, Facts(2, 280, 0), unknown=unknown)
    assert outcome.table["position"].to_pylist() == [0, 2, 3]
    assert outcome.ledger.count("document", "rejected", "unknown_character") == 2
    outcome.ledger.check(out={"document": 3})
    with pytest.raises(InputError, match="no id for 1 of the bytes"):
        check_complete(without("#"), "t")
