"""`dataflows run tokens` through the real command: counts, duplicates, splits, cuts, re-runs."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import Counter
from pathlib import Path

import datasets
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from schemas.ids import id128
from schemas.storage import storage
from schemas.verify import verify
from tests.bad_input.command import dataflows
from tests.dataflows.token_runs import (
    SHARE,
    corpus,
    dataset,
    decoded,
    digests,
    held_out,
    rows,
    run,
    token_rows,
    write_jsonl,
)

SETTINGS = ("tokenizer=train", "vocabulary=320", f"validation={SHARE}")


@pytest.fixture(scope="module", autouse=True)
def checksum_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Remembered checksums stay inside the tests."""
    pytest.MonkeyPatch().setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    texts = corpus().texts
    write_jsonl(folder / "a" / "one.jsonl", texts[:200])
    write_jsonl(folder / "b" / "two.jsonl", texts[200:])
    return folder


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run in one process. Not to be changed."""
    output = tmp_path_factory.mktemp("made") / "out"
    said = run(f"input={source}", *SETTINGS, f"output={output}", "licence=CC0-1.0")
    assert "[5/5] tokens" in said
    return output


def words(text: str) -> set[tuple[str, ...]]:
    """5-grams of words."""
    found = text.lower().replace(".", "").split()
    return set(zip(*(found[i:] for i in range(5)), strict=False))


def test_the_manifest_says_what_a_recount_says(made: Path) -> None:
    head = dataset(made).manifest
    blob = dataset(made).blob("tokenizer.json")
    assert head.blobs["tokenizer.json"]["digest"] == hashlib.sha256(blob.read_bytes()).hexdigest()
    assert head.config["tokens"] == {"bytes": 2, "vocabulary": 320, "eos": 0}
    assert head.licence == ["CC0-1.0"]
    tokenizer = Tokenizer.from_file(str(blob))
    tokens: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    kept = rows(made, "documents")
    stay = token_rows(made)
    for row in kept.to_pylist():
        if row["doc_id"] in stay:
            length = len(tokenizer.encode(row["text"]).ids) + 1
            assert len(stay[row["doc_id"]][1]) == 2 * length
    for row, text in zip(rows(made).to_pylist(), decoded(made), strict=True):
        assert row["doc_id"] == id128(b"document", text.encode())
        tokens[row["split"]] += row["length"]
        documents[row["split"]] += 1
        sources[row["source"]] += row["length"]
    assert head.stats["tokens"] == tokens
    assert head.stats["documents"] == documents
    assert head.stats["sources"] == sources and set(sources) == {"a", "b"}
    assert sum(head.stats["lengths"].values()) == head.rows


def test_of_duplicates_the_validation_document_stays_else_the_smallest_id(made: Path) -> None:
    planted = corpus()
    kept = set(token_rows(made))
    for one, other in [*planted.exact, *planted.near]:
        pair = [id128(b"document", text.encode()) for text in (one, other)]
        ranks = [(not held, doc) for held, doc in zip(held_out([one, other]), pair, strict=True)]
        first = min(ranks)[1]
        assert kept & set(pair) == {first}
    lost = {text for pair in (*planted.exact, *planted.near) for text in pair}
    alone = {id128(b"document", text.encode()) for text in planted.distinct if text not in lost}
    assert alone <= kept
    counts = {(row["kind"], row["reason"]): row["count"] for row in dataset(made).manifest.counts}
    assert counts["merged", "duplicate_exact"] == len(planted.exact)
    assert counts["merged", "duplicate_near"] == len(planted.near)


def test_no_training_document_is_like_a_validation_document(made: Path) -> None:
    by_split: dict[str, list[str]] = {"train": [], "validation": []}
    for split, text in zip(rows(made)["split"].to_pylist(), decoded(made), strict=True):
        by_split[split].append(text)
    assert min(map(len, by_split.values())) > 40
    for one, other in itertools.product(by_split["train"], by_split["validation"]):
        a, b = words(one), words(other)
        assert len(a & b) / len(a | b) < 0.5


def test_train_rows_are_in_shards_before_those_of_validation(made: Path) -> None:
    held = dataset(made)
    train = held.manifest.stats["documents"]["train"]
    splits = [set(held.read_shard(n)["split"].to_pylist()) for n in range(len(held.shards()))]
    assert all(len(found) == 1 for found in splits)
    ends = list(itertools.accumulate(shard.rows for shard in held.shards()))
    assert train in ends
    assert splits == [{"train"} if end <= train else {"validation"} for end in ends]


def test_other_files_and_units_keep_the_same_documents_and_tokens(
    made: Path, tmp_path: Path
) -> None:
    texts = corpus().texts[::-1]
    write_jsonl(tmp_path / "in" / "x.jsonl", texts[:150])
    (tmp_path / "in" / "y.txt").write_text("\n".join(texts[150:260]))
    pq.write_table(pa.table({"text": texts[260:]}), tmp_path / "in" / "z.parquet", row_group_size=7)
    tokenizer = dataset(made).blob("tokenizer.json")
    run(
        f"input={tmp_path}/in",
        f"tokenizer={tokenizer}",
        f"validation={SHARE}",
        "split_on=lines",
        "unit_bytes=4000",
        f"output={tmp_path}/out",
    )
    assert len(dataset(tmp_path / "out", "documents").shards()) > 5
    assert token_rows(tmp_path / "out") == token_rows(made)


@pytest.mark.slow
def test_two_workers_give_the_same_digests(source: Path, made: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(f"input={source}", *SETTINGS, f"output={output}", "--workers", "2")
    assert digests(output) == digests(made)


def test_readers_of_parquet_read_it(made: Path, tmp_path: Path) -> None:
    table = rows(made)
    frame = polars.read_parquet(f"{made}/tokens/data/*.parquet")
    assert frame["tokens"].to_list() == table["tokens"].to_pylist()
    loaded = datasets.load_dataset(
        "parquet", data_dir=f"{made}/tokens/data", split="train", cache_dir=str(tmp_path)
    )
    assert loaded["length"][:] == table["length"].to_pylist()


def test_a_finished_run_is_found_finished_and_settings_redo_what_they_change(
    source: Path, made: Path, tmp_path: Path
) -> None:
    again = (f"input={source}", *SETTINGS, f"output={made}", "licence=CC0-1.0")
    started = time.monotonic()
    said = run(*again)
    assert time.monotonic() - started < 3
    assert said.count("finished") == 5
    code, _ = dataflows("plan", "tokens", *again, "append_eos=false")
    assert code == 0
    code, said = dataflows("run", "tokens", *again, "append_eos=false")
    assert code == 4 and "append_eos was true, is false" in said and "finished" not in said


def test_commands_take_the_datasets_of_the_recipe(made: Path, tmp_path: Path) -> None:
    for stage in digests(made):
        assert verify(storage(str(made / stage))) == []
        assert dataflows("inspect", f"{made}/{stage}")[0] == 0
    assert dataflows("report", str(made), "--out", str(tmp_path / "page.html"))[0] == 0
    assert "tokens dataset" in (tmp_path / "page.html").read_text()
    document = rows(made)["doc_id"][0].as_py().hex()
    assert dataflows("why", str(made), document)[0] == 0
