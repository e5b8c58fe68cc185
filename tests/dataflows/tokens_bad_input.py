"""Bad input of `dataflows run tokens`, case by case, through the real command.

    python -m tests.dataflows.tokens_bad_input

Prints one JSON object: ``cases``, how many there were, and ``faults``: those that showed a traceback, ended
with another exit code, did not say what was wrong, or lost or kept a row that they should not have.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, pre_tokenizers

from curation.text.training import train_bpe
from schemas.dataset import open_dataset
from schemas.storage import storage
from schemas.verify import verify
from tests.bad_input.command import dataflows, rows_of
from tests.bad_input.making import raw_strings
from tests.dataflows.token_runs import prose

LONG = "a long document. " * 650_000  # 11 MB


def lines(*texts: Any) -> bytes:
    """JSON lines of texts; what is no string is written as it is."""
    return b"".join(
        (text if isinstance(text, bytes) else json.dumps({"text": text}).encode()) + b"\n"
        for text in texts
    )


def byte_level(vocabulary: dict[str, int]) -> bytes:
    """A byte-level tokenizer of single letters."""
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer.to_str().encode()


def words_only() -> bytes:
    """A tokenizer of words without an unknown one."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer.to_str().encode()


ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
ROOMY = ("max_document_bytes=20000000",)

# name: (files, settings, exit code, what is said, documents kept, reasons of dead letters)
Case = tuple[dict[str, bytes], tuple[str, ...], int, str, int | None, list[str]]
CASES: dict[str, Case] = {
    "a document of 11 MB": ({"a.jsonl": lines("a dog", LONG)}, ROOMY, 0, "", 2, []),
    "a plain file of one line of 11 MB": ({"a.txt": LONG.encode()}, ROOMY, 0, "", 1, []),
    "a document over the limit": (
        {"a.jsonl": lines("a dog", LONG, "a cat")},
        ("max_document_bytes=1000000",),
        0,
        "",
        2,
        ["document_too_long"],
    ),
    "a line of JSON over any limit": (
        {"a.jsonl": lines(b'{"text": "a dog", "x": "' + b"y" * 18_000_000 + b'"}', "a cat")},
        ("max_document_bytes=1000",),
        0,
        "",
        1,
        ["document_too_long"],
    ),
    "only empty documents": ({"a.jsonl": lines("", " ", None)}, (), 0, "", 0, []),
    "NUL bytes": ({"a.jsonl": lines("a\0b", "a dog")}, (), 0, "", 1, ["nul_in_text"]),
    "NUL bytes in a plain file": ({"a.txt": b"\0" * 5_000}, (), 0, "", 0, ["nul_in_text"]),
    "invalid UTF-8": (
        {"a.txt": b"caf\xe9", "b.jsonl": lines(b'{"text": "caf\xe9"}', "a dog")},
        (),
        0,
        "",
        1,
        ["bad_utf8", "bad_utf8"],
    ),
    "JSON cut short": ({"a.jsonl": lines(b'{"text": "a d', "a dog")}, (), 0, "", 1, ["bad_record"]),
    "gzip cut short": (
        {"a.jsonl.gz": gzip.compress(lines(*(prose(n) for n in range(2_000))))[:20_000]},
        (),
        0,
        "",
        None,
        ["bad_record"],
    ),
    "no zstd at all": ({"a.jsonl.zst": b"\x28\xb5\x2f\xfd" + b"\0" * 90}, (), 3, "a.jsonl.zst", None, []),
    "gzip in the name alone": ({"a.jsonl.gz": lines("a dog")}, (), 0, "", 1, []),
    "another column": ({"a.jsonl": b'{"html": "x"}\n'}, (), 3, "columns.text=", None, []),
    "a column that is not there": (
        {"a.jsonl": lines("a dog")},
        ("columns.text=txt",),
        3,
        "columns.text=txt",
        None,
        [],
    ),
    "an empty file": ({"a.jsonl": b""}, (), 3, "is empty (0 bytes)", None, []),
    "a tokenizer that is no JSON": (
        {"a.jsonl": lines("a dog"), "t/tokenizer.json": b"{"},
        ("tokenizer={place}/t",),
        3,
        "is not a tokenizer",
        None,
        [],
    ),
    "a tokenizer without some bytes": (
        {
            "a.jsonl": lines("a dog"),
            "t/tokenizer.json": byte_level({c: i for i, c in enumerate(ALPHABET[:200])}),
        },
        ("tokenizer={place}/t", "append_eos=false"),
        3,
        "of the bytes of UTF-8",
        None,
        [],
    ),
    "a tokenizer without an unknown word": (
        {"a.jsonl": lines("a dog"), "t/tokenizer.json": words_only()},
        ("tokenizer={place}/t", "append_eos=false"),
        3,
        "give one with an unknown token",
        None,
        [],
    ),
    "a tokenizer without an end of text": (
        {
            "a.jsonl": lines("a dog"),
            "t/tokenizer.json": byte_level({c: i for i, c in enumerate(ALPHABET)}),
        },
        ("tokenizer={place}/t",),
        2,
        "eos=TOKEN",
        None,
        [],
    ),
    "an evaluation set with every document": (
        {"a.jsonl": lines(prose(1), prose(2)), "quiz/b.jsonl": lines(prose(1), prose(2))},
        ("decontaminate.quiz={place}/quiz/b.jsonl", "on_contamination=drop"),
        0,
        "",
        2,
        [],
    ),
    "a tokenizer to train when nothing is left": (
        {"a.jsonl": lines(prose(1)), "quiz/b.jsonl": lines(prose(1))},
        (
            "decontaminate.quiz={place}/quiz/b.jsonl",
            "on_contamination=drop",
            "tokenizer=train",
            "vocabulary=300",
            "validation=0",
        ),
        2,
        "vocabulary=300",
        None,
        [],
    ),
    "a template that is no Jinja": (
        {"a.jsonl": b'{"m": [{"role": "user", "content": "hi"}]}\n', "t.jinja": b"{% for %}"},
        ("columns.messages=m", "chat_template={place}/t.jinja"),
        3,
        "t.jinja",
        None,
        [],
    ),
    "messages that a template refuses": (
        {
            "a.jsonl": b'{"m": [{"role": "user", "content": "hi"}]}\n{"m": 5}\n{"m": [{"role": "nobody"}]}\n',
            "t.jinja": b"{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('who?') }}"
            b"{% endif %}{{ m.content }}{% endfor %}",
        },
        ("columns.messages=m", "chat_template={place}/t.jinja"),
        0,
        "",
        1,
        ["bad_messages", "bad_messages"],
    ),
}  # fmt: skip


def fault(name: str, place: Path, tokenizer: Path) -> str:
    """What is wrong with a case; "" if nothing."""
    files, settings, expected, said, documents, reasons = CASES[name]
    folder, output = place / "in", place / "out"
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    given = {"input": f"{folder}/[ab].*", "tokenizer": str(tokenizer), "dedup": "off"}
    given["output"] = str(output)
    for setting in settings:
        key, _, value = setting.format(place=folder).partition("=")
        given[key] = value
    try:
        code, text = dataflows("run", "tokens", *(f"{k}={v}" for k, v in given.items()))
    except AssertionError:
        return f"{name}: a traceback"
    if code != expected or said not in text:
        return f"{name}: exit code {code} (expected {expected}), said {text[-400:]!r}"
    if expected:
        committed = (output / "tokens/manifest.json").exists()
        return f"{name}: tokens were committed" if committed else ""
    found = len(open_dataset(str(output / "documents")))
    letters = output / "documents.dead_letters"
    dead = sorted(rows_of(letters)["reason"].to_pylist()) if letters.exists() else []
    if documents not in (None, found) or dead != reasons:
        return f"{name}: {found} documents (expected {documents}), dead letters {dead}, said {text[-400:]!r}"
    broken = [line for stage in ("documents", "tokens") for line in verify(storage(output / stage))]
    return f"{name}: {broken}" if broken else ""


def parquet_fault(place: Path, tokenizer: Path) -> str:
    """Rows of Parquet that are no text, and a row group whose pages are overwritten."""
    place.mkdir(parents=True)
    table = pa.table({"text": raw_strings([b"a dog", b"\xff", None, b"a cat"])})
    pq.write_table(table, place / "a.parquet")
    texts = [prose(n) for n in range(400)]
    pq.write_table(pa.table({"text": texts}), place / "b.parquet", row_group_size=100)
    data = bytearray((place / "b.parquet").read_bytes())
    start = pq.read_metadata(place / "b.parquet").row_group(1).column(0).data_page_offset
    data[start : start + 400] = b"\xff" * 400
    (place / "b.parquet").write_bytes(data)
    settings = (f"input={place}/*.parquet", f"tokenizer={tokenizer}", "dedup=off")
    code, said = dataflows("run", "tokens", *settings, f"output={place}/../out")
    if code:
        return f"Parquet: exit code {code}, said {said[-400:]!r}"
    kept = len(open_dataset(str(place.parent / "out/documents")))
    dead = sorted(rows_of(place.parent / "out/documents.dead_letters")["reason"].to_pylist())
    wanted = (302, ["bad_parquet_row", "bad_utf8"])
    return "" if (kept, dead) == wanted else f"Parquet: {kept} documents, dead letters {dead}"


def check(folder: Path, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Run every case in a folder."""
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(train_bpe(["a dog and a cat"] * 3, 262))
    faults = []
    for number, name in enumerate(CASES):
        say(name)
        faults.append(fault(name, folder / str(number), tokenizer))
    faults.append(parquet_fault(folder / "parquet/in", tokenizer))
    return {"faults": [line for line in faults if line], "cases": len(faults)}


def main() -> int:
    """Print the result."""
    with tempfile.TemporaryDirectory() as folder:
        found = check(Path(folder), lambda name: print(name, file=sys.stderr))
    print(json.dumps(found))
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
