"""`trainer read`: the samples that the reader serves, with their places, safe to show."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.dataset import Dataset, open_dataset
from schemas.storage import storage
from schemas.table_schemas import CURATED, POOL
from tests.schemas import samples
from trainer.cli import main
from trainer.reader import Reader


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("read") / "pool"
    table = samples.pool(300)
    texts = table["text"].to_pylist()
    texts[0] = "\x1b[31mred\x9b31m\x7f\u202e\U000e0041 <b>猫</b>"
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
    words = ("--json", "--seed", "3", "--epoch", "2", "--position", "17", "--rows", "9")
    rows = [json.loads(line) for line in lines(capsys, str(pool), *words)]
    assert [row["sample"] for row in rows] == list(range(17, 26))
    expected = Reader(pool, seed=3, epoch=2).take(range(17, 26)).to_pylist()
    assert [row["text"] for row in rows] == [row["text"] for row in expected]
    assert [row["pair_id"] for row in rows] == [row["pair_id"].hex() for row in expected]


def test_places_lead_back_to_the_rows(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = open_dataset(pool)
    for line in lines(capsys, str(pool), "--json", "--rows", "40"):
        row = json.loads(line)
        shard, group, number = row["at"]
        assert dataset.read_shard(shard)["text"][number].as_py() == row["text"]
        assert row["text"] in dataset.read_row_group(shard, group)["text"].to_pylist()


def test_an_epoch_is_every_row_once_in_another_order(
    pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = [
        [json.loads(line)["pair_id"] for line in lines(capsys, str(pool), *words)]
        for words in (("--json", "--rows", "999"), ("--json", "--rows", "999", "--epoch", "1"))
    ]
    assert len(epochs[0]) == 300
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])


def test_what_is_shown_cannot_command_a_terminal(
    pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ((), ("--json",)):
        shown = lines(capsys, str(pool), "--rows", "300", "--columns", "text", *words)
        (line,) = (line for line in shown if "red" in line)
        assert "<b>猫</b>" in line
        assert line.isprintable()


def test_the_head_names_dataset_and_length(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = lines(capsys, str(pool), "--rows", "0")
    assert head == [
        f"{pool}: pool, digest {open_dataset(pool).manifest.digest}",
        "300 rows; epoch 0, seed 0, window 65,536",
    ]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--draw", "text"), 2, "needs a matched dataset"),
        (("--draw", "word"), 2, "invalid choice: 'word'"),
        (("--columns", "texts"), 2, "no column 'texts'. Did you mean 'text'?"),
        (("--position", "300"), 2, "there is no sample 300: the epoch has 300"),
        (("--rows", "-1"), 2, "--rows -1: give a number from 0 to 10000"),
        (("--position", "-1"), 2, "there is no sample -1"),
        (("--seed", "-1"), 2, "seed=-1: give a number"),
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


def test_lines_show_place_id_and_first_columns(
    pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = lines(capsys, str(pool), "--position", "150", "--rows", "120")[2:]
    assert len(shown) == 120, "more than are read at a time"
    expected = Reader(pool).take(range(150, 270))["pair_id"].to_pylist()
    for number, (line, pair) in enumerate(zip(shown, expected, strict=True), 150):
        form = rf' +{number}  shard \d+ group \d+ row \d+  pair_id="{pair.hex()}" image_id="'
        assert re.match(form, line), line
        assert " key=" in line and " text=" in line and " score=" not in line


def test_a_draw_prints_rows_of_matched_and_refuses_curated(
    matched: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = matched.storage.url
    shown = lines(capsys, place, "--draw", "image", "--rows", "5", "--json")
    expected = Reader(matched, draw="image").take(range(5))["pair_id"].to_pylist()
    assert [json.loads(line)["pair_id"] for line in shown] == [p.hex() for p in expected]
    samples.committed(storage(tmp_path), CURATED, samples.curated(5))
    assert main(["read", str(tmp_path), "--draw", "image"]) == 2
    assert "which is one draw already" in capsys.readouterr().err
    assert len(lines(capsys, str(tmp_path))) == 7
