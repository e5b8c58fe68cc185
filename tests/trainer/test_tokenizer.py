"""Tokenizers: trained ones, files of others, batches."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from schemas.errors import InputError, UsageError
from schemas.storage import storage
from schemas.table_schemas import COUNTS, POOL, RECORDS
from tests.schemas import samples
from tests.trainer.models.making import a_config
from trainer import tokenizer
from trainer.protocols import Place

TEXTS = [
    "a red square above a blue circle",
    "un carré rouge, 12 cm",
    "สวัสดีครับ แมวสีดำ",
    "नमस्ते दुनिया",
    "京都の赤い塔 St. Louis",
    "красный квадрат",
]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return tokenizer.train(TEXTS * 5, 600)


def a_file(end: str, start: str | None = None, words: tuple[str, ...] = ("a", "cat")) -> Tokenizer:
    """A file of another make: whole words, its own special tokens, start and end if given."""
    names = [*([start] if start else []), end, "<unk>", *words]
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [name for name in (start, end) if name]
    made.add_special_tokens([AddedToken(name, special=True) for name in special])
    made.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}" if start else f"$A {end}",
        special_tokens=[(name, names.index(name)) for name in special],
    )
    return made


# -- training ------------------------------------------------------------------------------


def test_special_tokens_have_xlm_v_s_ids(trained: Tokenizer) -> None:
    assert [trained.token_to_id(name) for name in tokenizer.SPECIAL] == [0, 1, 2, 3]
    assert trained.encode("a red square").ids[0] == 0 and trained.encode("a").ids[-1] == 2
    assert tokenizer.frame(trained) == tokenizer.Frame(prefix=(0,), end=2, pad=1)


def test_same_texts_give_the_same_file_on_any_number_of_threads() -> None:
    code = (
        "import hashlib, random; from trainer.tokenizer import train; r = random.Random(3)\n"
        "texts = [' '.join(f'w{r.randrange(3000)}x' for _ in range(8)) for _ in range(4000)]\n"
        "print(hashlib.sha256(train(texts, 2000).to_str().encode()).hexdigest())"
    )
    digests = set()
    for threads, seed in (("1", "0"), ("4", "7")):
        surroundings = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed}
        found = subprocess.run(
            [sys.executable, "-c", code], env=surroundings, capture_output=True, check=True
        )
        digests.add(found.stdout)
    assert len(digests) == 1 and hashlib.sha256(b"").hexdigest().encode() not in digests


def test_nothing_is_unknown(trained: Tokenizer) -> None:
    """What training did not see is spelled in bytes and comes back whole."""
    for text in ["Ωμέγα ៕ 🦉", "\x00\x07", "ａｂｃ ﬁ", *TEXTS]:
        ids = trained.encode(text).ids
        assert trained.token_to_id("<unk>") not in ids
        assert trained.decode(ids).strip() == unicodedata.normalize("NFKC", text)


def test_words_of_any_script_become_tokens(trained: Tokenizer) -> None:
    """Vowel signs (marks) do not cut a word; punctuation does; the space belongs to the word."""
    seen = trained.encode("नमस्ते, square", add_special_tokens=False)
    assert [trained.decode([number]) for number in seen.ids] == [" नमस्ते", ",", " square"]
    assert trained.encode("square").ids == trained.encode(" \t square\n").ids


def test_vocabulary_is_the_asked_one_if_texts_allow(trained: Tokenizer) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"{n:x}" for n in rng.integers(0, 99_999, 8)) for _ in range(500)]
    assert tokenizer.train(texts, 700).get_vocab_size() == 700
    assert tokenizer.train(["a"], 700).get_vocab_size() == 4 + 256 + 1


# -- encoding ------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [3, 8, 20])
def test_equals_the_library_s_padding_and_truncation(trained: Tokenizer, context: int) -> None:
    reference = Tokenizer.from_str(trained.to_str())
    reference.enable_truncation(context)
    reference.enable_padding(length=context, pad_id=1, pad_token="<pad>")
    texts = [*TEXTS, "", "   ", "a"]
    ids, mask = tokenizer.encode(trained, texts, context)
    expected = reference.encode_batch(texts)
    assert ids.tolist() == [found.ids for found in expected]
    assert mask.tolist() == [found.attention_mask for found in expected]
    assert ids.dtype == mask.dtype == np.int64 and ids.shape == (9, context)


def test_context_without_room_for_text(trained: Tokenizer) -> None:
    with pytest.raises(UsageError, match="context=2: at least 3"):
        tokenizer.encode(trained, ["a"], 2)


def test_no_texts(trained: Tokenizer) -> None:
    ids, mask = tokenizer.encode(trained, [], 5)
    assert ids.shape == mask.shape == (0, 5)


# -- files ---------------------------------------------------------------------------------


def test_files_of_others(tmp_path: Path) -> None:
    """CLIP's has both ends and pads with the last, mT5's has only an end."""
    a_file("<|endoftext|>", "<|startoftext|>").save(str(tmp_path / "clip.json"))
    clip = tokenizer.load(str(tmp_path / "clip.json"))
    assert tokenizer.encode(clip, ["a cat", "a <|endoftext|> cat"], 5)[0].tolist()[0] == [
        0, 3, 4, 1, 1,
    ]  # fmt: skip
    assert (tokenizer.encode(clip, ["a <|endoftext|> cat"], 9)[0] == 1).argmax() > 4
    a_file("</s>").save(str(tmp_path / "tokenizer.json"))
    mt5 = tokenizer.load(str(tmp_path))
    assert tokenizer.encode(mt5, ["a cat"], 5)[0].tolist() == [[2, 3, 0, 0, 0]]


def test_padding_and_truncation_of_a_file_are_ours(tmp_path: Path, trained: Tokenizer) -> None:
    other = Tokenizer.from_str(trained.to_str())
    other.enable_truncation(4)
    other.enable_padding(length=4)
    other.save(str(tmp_path / "t.json"))
    found = tokenizer.encode(tokenizer.load(str(tmp_path / "t.json")), TEXTS, 30)
    assert found[0].tolist() == tokenizer.encode(trained, TEXTS, 30)[0].tolist()


def test_files_that_are_refused(tmp_path: Path, trained: Tokenizer) -> None:
    bare = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    bare.save(str(tmp_path / "bare.json"))
    with pytest.raises(InputError, match=r"bare\.json: .* no end-of-text token such as </s>"):
        tokenizer.load(str(tmp_path / "bare.json"))
    (tmp_path / "text.json").write_text('{"not": "a tokenizer"}')
    with pytest.raises(InputError, match=r"text\.json: not a file of `tokenizers`"):
        tokenizer.load(str(tmp_path / "text.json"))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"bytes\.json: not a file of `tokenizers`"):
        tokenizer.load(str(tmp_path / "bytes.json"))
    for place in ("none.json", "none", "text.json/none"):
        with pytest.raises(InputError, match=f"tokenizer=.*{place}: no such file"):
            tokenizer.load(str(tmp_path / place))


# -- of a run ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("pool")
    samples.committed(storage(root), POOL, samples.pool(400))
    return str(root)


def run_of(output: Path, pool: str, **settings: Any) -> Any:
    wanted = settings or {"name": "train", "vocabulary": 500}
    return a_config(output=str(output), data={"path": pool}, tokenizer=wanted)


def test_a_run_trains_once_and_keeps_its_own(tmp_path: Path, pool: str) -> None:
    config = run_of(tmp_path / "run", pool)
    first = tokenizer.for_run(config, Place())
    file = tmp_path / "run" / "tokenizer.json"
    kept = file.read_bytes()
    (tmp_path / "other").mkdir()
    other = tokenizer.for_run(run_of(tmp_path / "other", pool), Place())
    assert (tmp_path / "other" / "tokenizer.json").read_bytes() == kept
    assert other.to_str() == first.to_str() and first.get_vocab_size() == 500
    texts = samples.pool(400)["text"].to_pylist()
    assert first.to_str() == tokenizer.train(texts, 500).to_str(), "the dataset's rows, in order"
    again = run_of(tmp_path / "run", "gone")
    assert tokenizer.for_run(again, Place()).to_str() == first.to_str()
    assert file.read_bytes() == kept


def test_rows_limit_the_texts(tmp_path: Path, pool: str) -> None:
    found = tokenizer.for_run(run_of(tmp_path, pool, vocabulary=500, rows=50), Place())
    texts = samples.pool(400)["text"].to_pylist()[:50]
    assert found.to_str() == tokenizer.train(texts, 500).to_str()


def test_a_run_with_a_file_keeps_a_copy(tmp_path: Path, trained: Tokenizer) -> None:
    trained.save(str(tmp_path / "mine.json"))
    config = a_config(output=str(tmp_path / "run"), tokenizer=str(tmp_path / "mine.json"))
    assert tokenizer.for_run(config, Place()).to_str() == trained.to_str()
    assert tokenizer.load(str(tmp_path / "run")).to_str() == trained.to_str()
    tokenizer.for_run(config, Place())  # continues
    tokenizer.train(["other words"], 300).save(str(tmp_path / "mine.json"))
    with pytest.raises(UsageError, match="a run keeps the one it began with"):
        tokenizer.for_run(config, Place())


def test_a_checkpoint_brings_its_own(tmp_path: Path, trained: Tokenizer) -> None:
    trained.save(str(tmp_path / "tokenizer.json"))
    config = a_config(output=str(tmp_path / "run"), model={"init_from": str(tmp_path)})
    assert tokenizer.for_run(config, Place()).to_str() == trained.to_str()


def test_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none is named; give tokenizer="):
        tokenizer.for_run(a_config(output=str(tmp_path)), Place())
    with pytest.raises(UsageError, match=r"tokenizer\.dataset= or data\.path="):
        tokenizer.for_run(a_config(output=str(tmp_path), tokenizer="train"), Place())
    with pytest.raises(UsageError, match="did you mean vocabulary"):
        tokenizer.check(a_config(tokenizer={"name": "train", "vocabulry": 500}))


def test_datasets_with_other_columns(tmp_path: Path) -> None:
    counts = str(tmp_path / "counts")
    samples.committed(storage(counts), COUNTS, samples.counts(10))
    with pytest.raises(InputError, match="is counts and has no texts in a column 'text'"):
        tokenizer.texts_of(counts, "text", 10)
    with pytest.raises(InputError, match="no texts in a column 'count'"):
        tokenizer.texts_of(counts, "count", 10)
    table = samples.pool(9).select(["image_id", "text"])
    rows = [
        {
            "image_id": row["image_id"],
            "texts": [{"key": "alt", "text": row["text"]}, {"key": "title", "text": f"t{i}"}],
            "file": 0,
            "position": i,
        }
        for i, row in enumerate(table.to_pylist())
    ]
    records = RECORDS.validate(
        pa.Table.from_pylist(
            rows, schema=pa.schema([RECORDS.arrow.field(name) for name in rows[0]])
        )
    )
    place = str(tmp_path / "records")
    samples.committed(storage(place), RECORDS, records)
    found = list(tokenizer.texts_of(place, "texts", 5))
    assert found == [found[0], "t0", found[2], "t1", found[4]]
    assert found[0] == rows[0]["texts"][0]["text"]


RANK = """
import sys
from pathlib import Path
import torch.distributed as dist
from schemas.errors import HeadraceError
from trainer import tokenizer
from trainer.config import RunConfig
from trainer.protocols import Place

rank, meeting, good, pool = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
for number, path in enumerate((pool, "nowhere")):
    # Ranks other than 0 are told of a directory that they cannot write.
    output = f"{good}/{number}" if rank == 0 else "/proc/none"
    config = RunConfig(
        recipe="x", output=output, model={}, data={"path": path}, objective={},
        tokenizer={"vocabulary": 500}, length={"steps": 1},
    )
    try:
        print(hash(tokenizer.for_run(config, Place(rank, 2)).to_str()))
    except HeadraceError as error:
        print(type(error).__name__, str(error)[:40])
dist.destroy_process_group()
"""


def test_other_ranks_get_what_rank_0_has(tmp_path: Path, pool: str) -> None:
    """Only rank 0 reads and writes; its error is everyone's, so nobody waits for the dead."""
    arguments = [str(tmp_path / "meeting"), str(tmp_path), pool]
    surroundings = {**os.environ, "PYTHONHASHSEED": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), *arguments],
            env=surroundings,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=60)[0].splitlines() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert said[0] == said[1] and len(said[0]) == 2
    assert "Error" not in said[0][0] and "Error" in said[0][1]
