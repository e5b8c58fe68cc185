"""`trainer read`: the samples that the reader serves, with their places, safe to show."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.dataset import open_dataset
from schemas.storage import storage
from schemas.table_schemas import POOL
from tests.schemas import samples
from trainer.cli import main
from trainer.reader import Reader


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("read") / "pool"
    table = samples.pool(300)
    texts = table["text"].to_pylist()
    texts[0] = "\x1b[31mred\x9b31m\x7f <b>猫</b>"
    column = table.schema.get_field_index("text")
    table = table.set_column(column, "text", pa.array(texts))
    samples.committed(storage(root), POOL, table, target_bytes=8_000)
    return root


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["read", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_json_rows_are_what_the_reader_serves(
    pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--json", "--seed", "3", "--epoch", "2", "--start", "17", "--count", "9")
    rows = [json.loads(line) for line in lines(capsys, str(pool), *words)]
    assert [row["sample"] for row in rows] == list(range(17, 26))
    reader = Reader(open_dataset(pool), seed=3)
    expected = next(reader.batches(9, reader.position(2, 17))).table.to_pylist()
    assert [row["text"] for row in rows] == [row["text"] for row in expected]
    assert [row["pair_id"] for row in rows] == [row["pair_id"].hex() for row in expected]


def test_places_lead_back_to_the_rows(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = open_dataset(pool)
    for line in lines(capsys, str(pool), "--json", "--count", "40"):
        row = json.loads(line)
        shard, group, number = row["at"]
        assert dataset.read_row_group(shard, group)["text"][number].as_py() == row["text"]


def test_an_epoch_is_every_row_once_in_another_order(
    pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = [
        [json.loads(line)["pair_id"] for line in lines(capsys, str(pool), *words)]
        for words in (("--json", "--count", "999"), ("--json", "--count", "999", "--epoch", "1"))
    ]
    assert len(epochs[0]) == 300
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])


def test_what_is_shown_cannot_command_a_terminal(
    pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ((), ("--json",)):
        shown = lines(capsys, str(pool), "--count", "300", "--columns", "text", *words)
        (line,) = (line for line in shown if "red" in line)
        assert "<b>猫</b>" in line
        assert line.isprintable()


def test_the_head_names_dataset_and_length(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = lines(capsys, str(pool), "--count", "0")
    assert head == [
        f"{pool}: pool, digest {open_dataset(pool).manifest.digest}",
        "300 rows; epoch 0, seed 0",
    ]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--balance", "text"), 2, "online balancing needs a matched dataset"),
        (("--balance", "word"), 2, "invalid choice: 'word'"),
        (("--columns", "texts"), 2, "no column 'texts'. Did you mean 'text'?"),
        (("--start", "300"), 2, "has 300 samples; sample 300 was asked for"),
        (("--count", "-1"), 2, "--count -1: give 0 or more"),
        (("--window", "0"), 2, "window=0"),
        (("--sead", "1"), 2, "unknown argument '--sead'. Did you mean '--seed'?"),
    ],
)
def test_mistakes_are_one_message(
    pool: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, message: str
) -> None:
    assert main(["read", str(pool), *words]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_without_a_manifest_is_no_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["read", str(tmp_path)]) == 3
    assert "is not a committed dataset" in capsys.readouterr().err
