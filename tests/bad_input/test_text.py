"""Bad texts: rows cost themselves and leave a dead letter; inputs and settings are refused in words."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.text.training import train_bpe
from schemas.dataset import open_dataset
from schemas.ledger import Ledger
from schemas.storage import storage
from schemas.verify import verify
from tests.bad_input.command import dataflows, rows_of
from tests.bad_input.making import raw_strings

LIMIT = 4_000


@pytest.fixture(scope="module")
def tokenizer(place: Path) -> Path:
    path = place / "tokenizer.json"
    path.write_bytes(train_bpe(["a dog and a cat"] * 3, 262))
    return path


def row(**values: object) -> bytes:
    return json.dumps({"text": "a dog", **values}).encode()


# name: (line, reason, what the error says)
LINES: dict[str, tuple[bytes, str, str]] = {
    "cut in a string": (b'{"text": "do', "bad_record", "not valid JSON"),
    "array": (b"[1, 2]", "bad_record", "is JSON an array, not an object"),
    "text is a number": (row(text=5), "bad_record", "has 5 in 'text', not a string"),
    "text is a list": (row(text=["a"]), "bad_record", "not a string"),
    "source is a number": (row(origin=7), "bad_record", "has 7 in 'origin', not a string"),
    "latin-1": (b'{"text": "caf\xe9"}', "bad_utf8", "is not valid UTF-8"),
    "half an emoji": (row(text="\ud83d"), "bad_utf8", "the text is not valid UTF-8"),
    "half an emoji in the source": (row(origin="\ud83d"), "bad_utf8", "the source is not"),
    "NUL": (row(text="a\0b"), "nul_in_text", "a NUL at byte 1 of the text"),
    "too long": (row(text="x" * 5_000), "document_too_long", "has 5000 bytes, limit 4000"),
    "nested 1,500 deep": (
        b'{"text": ' + b"[" * 1_500 + b"]" * 1_500 + b"}",
        "bad_record",
        "not valid JSON",
    ),
}
EMPTY = [row(text=""), row(text=None), row(text=" \n\t"), row(text="\u2003\u00a0"), b'{"x": 1}']


def test_bad_lines_are_dead_letters_and_no_other_row_is_lost(place: Path, tokenizer: Path) -> None:
    lines = [row(origin="web")]
    for line, _, _ in LINES.values():
        lines += [line, row(text=f"a dog {len(lines)}")]
    source = place / "pool.jsonl"
    source.write_bytes(b"\n".join([*lines, b"", *EMPTY]))
    settings = (f"input={source}", f"tokenizer={tokenizer}", "columns.source=origin", "dedup=off")
    code, said = dataflows(
        "run", "tokens", *settings, f"max_document_bytes={LIMIT}", f"output={place}/out"
    )
    assert code == 0, said
    documents = rows_of(place / "out" / "documents")
    assert documents.num_rows == len(LINES) + 1 == rows_of(place / "out" / "tokens").num_rows
    letters = {
        x["position"]: x for x in rows_of(place / "out" / "documents.dead_letters").to_pylist()
    }
    assert len(letters) == len(LINES)
    offset = len(lines[0]) + 1
    for number, (line, reason, message) in enumerate(LINES.values()):
        letter = letters[offset]
        assert letter["reason"] == reason
        assert message in letter["error"]
        assert letter["source"].endswith("pool.jsonl")
        assert pa.ipc.open_stream(letter["row"]).read_all().num_rows == 1
        offset += len(line) + 1 + len(lines[2 * number + 2]) + 1
    ledger = Ledger.from_json(open_dataset(str(place / "out" / "documents")).manifest.counts)
    assert ledger.count("document", "rejected", "empty_text") == len(EMPTY)
    assert ledger.count("document", "in") == len(lines) + len(EMPTY)
    assert verify(storage(str(place / "out" / "documents.dead_letters"))) == []


def test_damaged_files_cost_what_cannot_be_read(tmp_path: Path, tokenizer: Path) -> None:
    whole = gzip.compress(b"\n".join(row(text=f"dog {n} {'xyz' * n}") for n in range(3_000)))
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    column = raw_strings([b"a dog", b"\xff", None, b"a cat"])
    pq.write_table(pa.table({"text": column}), tmp_path / "bad.parquet")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    settings = (f"input={tmp_path}", f"tokenizer={tokenizer}", "dedup=off")
    code, said = dataflows("run", "tokens", *settings, f"output={tmp_path.parent}/damaged")
    assert code == 0, said
    letters = rows_of(tmp_path.parent / "damaged" / "documents.dead_letters").to_pylist()
    found = [(Path(x["source"]).name, x["reason"]) for x in letters]
    assert found == [
        ("bad.parquet", "bad_utf8"),
        ("cut.jsonl.gz", "bad_record"),
        ("latin.txt", "bad_utf8"),
    ]
    assert "all after it are lost" in letters[1]["error"]
    texts = rows_of(tmp_path.parent / "damaged" / "documents")["text"].to_pylist()
    assert texts[:2] == ["a dog", "a cat"] and len(texts) > 100


# name: (files, settings, exit code, parts of what is said)
REFUSED: dict[str, tuple[dict[str, bytes], list[str], int, list[str]]] = {
    "absent": ({}, ["input={place}/absent.txt"], 3, ["no such file"]),
    "nothing named like texts": ({"a.bin": b"x"}, [], 3, ["holds no file", "glob"]),
    "an empty file": ({"a.txt": b""}, [], 3, ["a.txt is empty (0 bytes)"]),
    "no column of texts": (
        {"a.jsonl": b'{"body_html": "x"}'},
        [],
        3,
        ["body_html", "columns.text="],
    ),
    "an absent column": ({"a.jsonl": row()}, ["columns.text=txt"], 3, ["columns.text=txt", "text"]),
    "named Parquet": ({"a.parquet": b"hello"}, [], 3, ["does not begin with PAR1"]),
    "an unknown format": (
        {"a.bin": b"\1\2"},
        ["input={place}/a.bin"],
        3,
        ["format=parquet|jsonl|text"],
    ),
    "no tokenizer": ({"a.txt": b"x"}, ["tokenizer={place}/absent"], 3, ["there is no file"]),
    "another file": ({"a.txt": b"x"}, ["tokenizer={place}/a.txt"], 3, ["is not a tokenizer"]),
    "an unknown end": ({"a.txt": b"x"}, ["eos=</s>"], 2, ["eos=</s>", "no such token"]),
    "a small vocabulary": (
        {"a.txt": b"x"},
        ["tokenizer=train", "vocabulary=260", "special_tokens=a,b,c,d"],
        2,
        ["vocabulary=260", "261"],
    ),
    "too little text": (
        {"a.txt": b"a dog"},
        ["tokenizer=train", "vocabulary=5000", "validation=0"],
        2,
        ["vocabulary=5000", "give vocabulary="],
    ),
    "an unknown language": ({"a.txt": b"x"}, ["languages=xx"], 2, ["languages=xx", "known: af"]),
    "an unknown rule": ({"a.txt": b"x"}, ["rules.min_word=3"], 2, ["rules.min_words"]),
    "an unknown preset": ({"a.txt": b"x"}, ["filters=c4"], 2, ["gopher"]),
    "messages alone": ({"a.txt": b"x"}, ["columns.messages=m"], 2, ["need each other"]),
    "validation of all": ({"a.txt": b"x"}, ["validation=1"], 2, ["validation=1"]),
    "an empty evaluation set": (
        {"a.txt": b"x", "quiz/b.jsonl": b'{"q": " "}'},
        ["input={place}/a.txt", "decontaminate={place}/quiz", "contamination.columns=q"],
        3,
        ["quiz/b", "no words"],
    ),
    "an evaluation column": (
        {"a.txt": b"x", "quiz/b.jsonl": b'{"q": "x"}'},
        ["input={place}/a.txt", "decontaminate={place}/quiz", "contamination.columns=question"],
        3,
        ["contamination.columns=question", "It has: q"],
    ),
    "an evaluation set of questions": (
        {"a.txt": b"x", "quiz/b.jsonl": b'{"question": "x", "answer": "y"}'},
        ["input={place}/a.txt", "decontaminate={place}/quiz"],
        3,
        ["quiz/b.jsonl has no column", "contamination.columns=question,answer"],
    ),
    "conversations without a template": (
        {"a.jsonl": b'{"id": 1, "messages": []}'},
        [],
        3,
        ["columns.messages=messages chat_template=tokenizer"],
    ),
    "an absent source": (
        {"a.txt": b"x"},
        ["input=", "sources.wiki={place}/a.txt,{place}/b"],
        3,
        ["in/b: no such file; check sources.wiki="],
    ),
    "output in the input": ({"a.txt": b"x"}, ["output={place}/out"], 2, ["lies inside input="]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_value_and_the_fix(name: str, tmp_path: Path, tokenizer: Path) -> None:
    files, settings, expected, said = REFUSED[name]
    folder = tmp_path / "in"
    folder.mkdir()
    for path, data in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
    given = {"input": str(folder), "tokenizer": str(tokenizer), "output": f"{tmp_path}/out"}
    for setting in settings:
        key, _, value = setting.format(place=folder).partition("=")
        given[key] = value
    words = [f"{key}={value}" for key, value in given.items() if value]
    code, text = dataflows("run", "tokens", *words)
    assert (code, [part for part in said if part not in text]) == (expected, []), text
    if name.startswith(("an evaluation", "conversations")):
        assert not Path(given["output"], "documents", "manifest.json").exists()  # before any work
    assert not Path(given["output"], "tokens", "manifest.json").exists()
