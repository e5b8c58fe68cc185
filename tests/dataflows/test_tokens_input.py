"""The recipe `tokens`: what `input=` and `sources.NAME=` take, and what a data set is warned of."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.text.training import train_bpe
from tests.bad_input.command import dataflows
from tests.dataflows.token_runs import dataset, prose, rows, run, write_jsonl


@pytest.fixture(scope="module", autouse=True)
def checksum_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Remembered checksums stay inside the tests."""
    pytest.MonkeyPatch().setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with an end-of-text token in brackets, as BERT's."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_bytes(train_bpe([prose(seed) for seed in range(20)], 300, ["[SEP]"]))
    return path


def test_a_source_takes_paths_with_commas_as_input_does(tmp_path: Path, tokenizer: Path) -> None:
    texts = [prose(seed) for seed in range(12)]
    write_jsonl(tmp_path / "jsonl/a.jsonl", texts[:4])
    (tmp_path / "pq").mkdir()
    pq.write_table(pa.table({"text": texts[4:8]}), tmp_path / "pq/b.parquet")
    write_jsonl(tmp_path / "web/c.jsonl", texts[8:])
    run(
        f"sources.wiki={tmp_path}/pq,{tmp_path}/jsonl",
        f"sources.web={tmp_path}/web/*.jsonl",
        f"tokenizer={tokenizer}",
        "eos=[SEP]",
        f"output={tmp_path}/out",
    )
    found = rows(tmp_path / "out", "documents")
    by_text = dict(zip(found["text"].to_pylist(), found["source"].to_pylist(), strict=True))
    assert by_text == {text: "wiki" if n < 8 else "web" for n, text in enumerate(texts)}


def test_a_file_without_a_byte_is_an_empty_document(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_bytes(b"")
    (tmp_path / "in/b.txt").write_text(prose(1))
    run(f"input={tmp_path}/in", f"tokenizer={tokenizer}", f"output={tmp_path}/out")
    assert rows(tmp_path / "out", "documents")["text"].to_pylist() == [prose(1)]
    ledger = dataset(tmp_path / "out", "documents").manifest.ledger
    assert ledger.count("document", "in") == 2
    assert ledger.count("document", "rejected", "empty_text") == 1
    (tmp_path / "in/c.parquet").write_bytes(b"")  # no Parquet file is without a byte: it was cut
    code, said = dataflows(
        "run", "tokens", f"input={tmp_path}/in", f"tokenizer={tokenizer}", f"output={tmp_path}/no"
    )
    assert code == 3 and "c.parquet is empty (0 bytes)" in said


def warned(output: Path, said: str) -> str:
    """The one warning of the tokens, which the run says and the page shows."""
    (line,) = dataset(output).manifest.warnings
    assert f"warning: {line}" in said
    page = output.parent / f"{output.name}.html"
    assert dataflows("report", str(output), "--out", str(page))[0] == 0
    assert line.partition(":")[0] in page.read_text()
    return line


def test_a_data_set_without_a_document_is_warned_of(tmp_path: Path, tokenizer: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [prose(seed) for seed in range(5)])
    settings = (f"input={tmp_path}/in.jsonl", f"tokenizer={tokenizer}")
    said = run(*settings, "rules.min_words=1000", f"output={tmp_path}/none")
    assert dataset(tmp_path / "none").manifest.rows == 0
    assert "the filters kept none of the input" in warned(tmp_path / "none", said)
    said = run(
        *settings,
        f"decontaminate={tmp_path}/in.jsonl",
        "on_contamination=drop",
        f"output={tmp_path}/dropped",
    )
    assert "kept none stayed (5 contaminated)" in warned(tmp_path / "dropped", said)


def test_a_data_set_without_validation_is_warned_of(tmp_path: Path, tokenizer: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [prose(seed) for seed in range(10)])
    settings = (f"input={tmp_path}/in.jsonl", f"tokenizer={tokenizer}")
    said = run(*settings, "validation=0.0001", f"output={tmp_path}/out")
    line = warned(tmp_path / "out", said)
    assert "validation=0.0001 held none of 10 out" in line and "as validation=0.5" in line
    for share in ("0", "0.5"):
        run(*settings, f"validation={share}", f"output={tmp_path}/{share}")
        assert dataset(tmp_path / share).manifest.warnings == []
