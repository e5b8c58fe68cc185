"""Runs that are not finished, files that are damaged, places that are no run; the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.page.html import Element, parse
from tests.trainer.report import runs
from trainer.cli import main
from trainer.report.record import read
from trainer.report.render import report

Capture = pytest.CaptureFixture[str]


def text_of(folder: Path, name: str) -> str:
    return parse(report(str(folder))).one("section", id=name).text


def head(folder: Path) -> Element:
    return parse(report(str(folder))).one("header")


def test_a_run_that_has_only_begun(data: Path, tmp_path: Path) -> None:
    folder = runs.written(tmp_path / "out", data, [])
    (folder / "metrics.jsonl").unlink()
    assert "no step is logged yet" in head(folder).text
    assert "No step is logged yet" in text_of(folder, "curves")
    assert "No evaluation yet" in text_of(folder, "accuracy")
    assert "No rate is logged yet" in text_of(folder, "speed")
    assert "curated" in text_of(folder, "origin")


def test_a_run_that_still_goes_on(data: Path, tmp_path: Path) -> None:
    """The last line is half written; what was logged after the point of return is not shown."""
    folder = runs.written(tmp_path / "out", data, runs.metrics()[:-6])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 42, "loss": 1')
    shown = head(folder).text
    assert "not finished: step 38 of 40 is the last that is logged, saved last at step 20" in shown
    assert "loss so far" in shown and "none yet" in shown
    assert "cannot be read" not in text_of(folder, "curves")


def test_a_continued_run_forgets_what_it_has_not_made_again(data: Path, tmp_path: Path) -> None:
    lines = runs.metrics()
    cut = next(i for i, one in enumerate(lines) if one.get("event") == "continued") + 1
    history = read(str(runs.written(tmp_path / "out", data, lines[:cut]))).history
    assert history.steps[-1]["step"] == runs.RESTART
    assert history.superseded == (runs.LOST - runs.RESTART) // runs.LOG_EVERY
    assert history.seconds == runs.LOST * 0.5


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_are_drawn_as_well(data: Path, tmp_path: Path, steps: int) -> None:
    lines = [runs.line(step, lr=0.0, grad_norm=None) for step in range(1, steps + 1)]
    folder = runs.written(tmp_path / "out", data, lines)
    page = parse(report(str(folder))).one("section", id="curves")
    assert list(page.all("circle" if steps == 1 else "polyline", cls="after"))
    assert "Gradient norm" not in page.text


def test_damaged_lines_are_counted_and_left_out(data: Path, tmp_path: Path) -> None:
    good = runs.metrics()
    folder = runs.written(tmp_path / "out", data, good)
    bad: list[Any] = ["{", "[1]", '{"step": "x", "loss": 1}', '{"step": true, "loss": 1}', "null"]
    bad += ['{"step": 41, "loss": NaN}', json.dumps({"step": 42, "loss": 10**400})]
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(f"{one}\n" for one in bad)
    shown = text_of(folder, "curves")
    assert "5 lines of metrics.jsonl cannot be read" in shown
    assert "2 lines have no finite loss" in shown
    assert math.isclose(read(str(folder)).history.column("loss")[1][-1], runs.loss(runs.STEPS))


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"headline": {}}', '{"headline": {}, "languages": {"en": 1}}']
)
def test_a_damaged_result_is_said_and_the_others_shown(
    data: Path, tmp_path: Path, content: str
) -> None:
    folder = runs.written(tmp_path / "out", data, runs.metrics())
    runs.put_result(folder, runs.pool_result())
    (folder / "eval" / "broken.json").write_text(content)
    said = parse(report(str(folder))).one("section", id="warnings").one("li", cls="found")
    assert said.one("span").text == "eval/broken.json"
    assert "cannot be read and is left out" in said.text
    assert "macro zero-shot accuracy" in text_of(folder, "accuracy")


@pytest.mark.parametrize(
    "change",
    [
        {"headline": {}},
        {"languages": {}},
        {"languages": {"en": {}}},
        {"examples": [1, {"images": 5}, {"text": None, "images": [{"url": 3, "image_id": "zz"}]}]},
        {"settings": None, "model": None, "classes": 5, "few": [], "against": 1},
        {"tail": [True], "english_count": None, "t": "x"},
        {"settings": {"size": 10**9}},
    ],
)
def test_results_of_another_shape_are_no_error(
    data: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = runs.written(tmp_path / "out", data, runs.metrics())
    runs.put_result(folder, runs.pool_result() | change)
    assert "pool" in text_of(folder, "accuracy")


def test_the_command_writes_one_file_and_says_where(
    data: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = runs.written(tmp_path / "out", data, runs.metrics())
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.startswith(f"{folder}/report.html (")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page == report(str(folder))
    elsewhere = tmp_path / "deep" / "page.html"
    assert main(["report", str(folder), "--out", str(elsewhere)]) == 0
    assert elsewhere.read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{}/nowhere"], 3, "it has no run.json; give its output directory"),
        (["{}/empty"], 3, "it has no run.json; give its output directory"),
        (["{}/file"], 3, "give its output directory"),
        (["{}/torn"], 3, "is not what `trainer launch` writes"),
        (["{}/other"], 3, "its settings are not those of a run of this version"),
        (["{}/out", "--out", "{}/empty"], 2, "is a directory; name a file"),
    ],
)
def test_what_is_no_run_is_said_without_a_traceback(
    data: Path, tmp_path: Path, capsys: Capture, words: list[str], code: int, message: str
) -> None:
    runs.written(tmp_path / "out", data, [])
    for name, content in (("torn", '{"config": '), ("other", '{"config": {"model": {}}}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    assert main(["report", *(word.format(tmp_path) for word in words)]) == code
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and len(said.splitlines()) == 1
