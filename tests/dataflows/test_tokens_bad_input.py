"""Every case of `tests.dataflows.tokens_bad_input`, which acceptance runs as a program, by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import pre_tokenizers

from curation.text import tokenising
from curation.text.training import train_bpe
from tests.dataflows.tokens_bad_input import CASES, fault, parquet_fault


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.MonkeyPatch().setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_bytes(train_bpe(["a dog and a cat"] * 3, 262))
    return path


@pytest.mark.parametrize("name", CASES)
def test_nothing_but_what_is_bad_is_lost_and_it_is_named(
    name: str, tmp_path: Path, tokenizer: Path
) -> None:
    assert fault(name, tmp_path, tokenizer) == ""


def test_parquet_loses_the_bad_row_or_row_group(tmp_path: Path, tokenizer: Path) -> None:
    assert parquet_fault(tmp_path / "in", tokenizer) == ""


def test_letters_of_bytes_are_those_of_the_library() -> None:
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = tokenising._letters()
    for text in (*map(chr, range(0x800)), "\u0800\ufffd", "\U00010000\U000fffff\U0010ffff"):
        ((found, _),) = split.pre_tokenize_str(text)
        assert found == "".join(letters[byte] for byte in text.encode())
    assert len(letters) == 256 - 13
