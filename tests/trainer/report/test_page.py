"""The page says what the run directory says: every number is compared with the files."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.pool.render import render
from schemas.dataset import open_dataset
from tests.page import texts
from tests.page.html import Element, parse
from tests.trainer.report import runs
from trainer.evaluation.intervals import mean_interval
from trainer.report.render import report

CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def section(page: Element, name: str) -> Element:
    return page.one("section", id=name)


def tiles(page: Element) -> dict[str, str]:
    box = page.one("dl", cls="tiles")
    return {one.one("dt").text: one.one("dd").text for one in box.all("div")}


def facts(element: Element) -> dict[str, str]:
    return dict(
        zip((e.text for e in element.all("dt")), (e.text for e in element.all("dd")), strict=True)
    )


def percents(value: str) -> list[float]:
    return [float(one) for one in re.findall(r"([\d.]+)\s*%", value)]


def row_of(table: Element, name: str) -> dict[str, str]:
    for row in table.all("tr"):
        if next(row.all("th")).text.startswith(name):
            return {e.attributes.get("data-label", ""): e.text for e in row.all("td")}
    raise AssertionError(name)


def test_nothing_on_the_page_can_act_or_load(page: Element, text: str) -> None:
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy.attributes["content"] == CSP
    tags = Counter(element.tag for element in page.all())
    assert not set(tags) & {"script", "iframe", "object", "embed", "form", "base", "foreignobject"}
    for element in page.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                assert value.startswith(("#", "data:image/jpeg;base64,", "data:,")), value
    css = page.one("style").text
    assert "url(" not in css and "@import" not in css and "<" not in css
    assert "<script" not in text and "\u202e" not in text
    assert len(text.encode()) < 1_000_000


def test_hostile_texts_are_shown_as_they_are(page: Element) -> None:
    settings = facts(section(page, "origin").one("dl", cls="settings"))
    assert settings["output"].endswith("/<img src=x onerror=window.owned=1>U+202E")
    assert settings[f"model.{texts.HANDLER}"] == texts.SVG
    assert texts.SVG in facts(next(section(page, "speed").all("dl")))["machine"]
    assert settings["recipe"] == f"tiny {texts.SCRIPT}" == page.one("h1").text
    shown = section(page, "examples").text
    assert "the terrier saves U+202Egpj.exeU+202C and U+2066moreU+2069" in shown
    assert "says U+0007U+001B[31mred" in shown and "more characters" in shown
    inputs = section(page, "origin").one("table", cls="inputs").text
    assert "data/<script>window.owned=1</script>U+202E.parquet" in inputs
    assert "none <img src=x onerror=window.owned=1>" in section(page, "origin").text


def test_the_head_is_the_last_line_and_the_headlines(page: Element, run: Path) -> None:
    lines = [json.loads(one) for one in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [one for one in lines if "loss" in one]
    shown = tiles(page)
    assert shown["final loss"] == f"{steps[-1]['loss']:.4f} ln(batch.size) = {np.log(64):.3f}"
    assert shown["samples seen"] == f"{steps[-1]['samples']:,} 2.56 epochs"
    assert shown["parameters"] == "1,234,567"
    last = [one["samples_per_s"] for one in steps[-10:]]  # those since it was continued
    assert shown["samples a second"].startswith(f"{statistics.median(last[1:]):,.1f} ")
    for name in ("pool", "retrieval"):
        head = json.loads((run / "eval" / f"{name}.json").read_text())["headline"]
        value = shown[head["metric"]]
        wanted = [100 * head[key] for key in ("mean", "low", "high", "chance")]
        mean, _, low, high, chance = percents(value)  # the second is 95 %
        assert [mean, low, high, chance] == pytest.approx(wanted, abs=0.051)
        assert value.endswith("above chance") and "not above" not in value
    assert "seed 11" in page.text and "begun 2026-01-02 03:04 UTC" in page.text


def test_steps_that_were_made_again_count_once(page: Element) -> None:
    curves = section(page, "curves")
    assert "3 logged steps were made again after a restart" in curves.text
    told = next(curves.all("desc")).text  # the wide chart's
    first, last = runs.loss(runs.LOG_EVERY), runs.loss(runs.STEPS)
    assert f"loss: {first:.4g} at step 2, {last:.4g} at step 40" in told
    assert f"most {first:.4g}." in told  # not the 9.75 of a step that was lost
    points = next(curves.all("polyline", cls="after")).attributes["points"].split()
    y = [float(point.partition(",")[2]) for point in points]
    assert len(points) == runs.STEPS // runs.LOG_EVERY
    assert np.diff(y) == pytest.approx(np.full(len(y) - 1, (y[-1] - y[0]) / (len(y) - 1)), abs=0.11)


def test_events_are_told_and_marked(page: Element) -> None:
    curves = section(page, "curves")
    assert "at step 0 on 1 rank" in curves.text and "at step 20 on 2 ranks" in curves.text
    assert (
        "3 samples whose image was bad, by another each: truncated 2, <i>bomb</i> 1" in curves.text
    )
    wide, narrow = list(curves.all("svg"))[:2]
    assert [one.attributes["viewbox"] for one in (wide, narrow)] == ["0 0 1040 300", "0 0 340 220"]
    marks = Counter(one.attributes["class"] for one in wide.all("line", cls="mark"))
    assert marks == {"mark continued": 1, "mark saved": 2, "mark replaced": 1}
    assert len(list(wide.all("line", cls="threshold"))) == 1


def test_components_and_the_others_have_charts(page: Element) -> None:
    names = [one.text for one in section(page, "curves").all("title")]
    assert names.count("Loss over steps") == 2
    assert {"Components", "Learning rate", "Gradient norm, before clipping"} <= set(names)
    legends = [one.text for one in section(page, "curves").all("ul", cls="legend")]
    assert "contrastive <b>distill</b>" in legends


def test_an_objective_that_names_no_level_has_none(data: Path, tmp_path: Path) -> None:
    folder = runs.written(tmp_path / "x", data, runs.metrics(), objective={"name": "of the future"})
    page = parse(report(str(folder)))
    assert not list(section(page, "curves").all("line", cls="threshold"))
    assert tiles(page)["final loss"] == f"{runs.loss(runs.STEPS):.4f}"


@pytest.mark.parametrize("name", ["pool", "retrieval"])
def test_each_language_has_the_scores_of_the_file(page: Element, run: Path, name: str) -> None:
    result = json.loads((run / "eval" / f"{name}.json").read_text())
    article = list(section(page, "accuracy").all("article"))[["pool", "retrieval"].index(name)]
    table = next(article.all("table", cls="scores"))
    shown = {"en": "English", "ar": "Arabic", "all": "All languages", "ja": "Japanese"}
    for language, scores in result["languages"].items():
        cells = row_of(table, shown.get(language, language))
        flat = {
            f"{key} {inner}".replace("_", " "): value
            for key, one in scores.items() if isinstance(one, dict) and "mean" not in one
            for inner, value in one.items()
        } | {key: one for key, one in scores.items() if isinstance(one, dict) and "mean" in one}  # fmt: skip
        for column, value in flat.items():
            wanted = [100 * value[key] for key in ("mean", "low", "high")]
            assert percents(cells[column]) == pytest.approx(wanted, abs=0.051), (language, column)
        assert percents(cells["Chance"]) == pytest.approx([100 * scores["chance"]], abs=0.051)
        assert cells["images"] == f"{scores['images']:,}"


def test_bars_and_chance_are_as_long_as_the_scores(page: Element) -> None:
    """The longest of all limits and chances fills the track."""
    table = next(section(page, "accuracy").all("table", cls="scores"))
    languages = runs.pool_result()["languages"]
    full = max(one["macro"]["high"] for one in languages.values())
    row = next(row for row in table.all("tr") if "English" in row.text)
    bar, interval, chance = (next(row.all(tag)).attributes["style"] for tag in ("i", "b", "s"))
    found = [float(n) for n in re.findall(r"([\d.]+)%", f"{bar} {interval} {chance}")]
    macro = languages["en"]["macro"]
    wanted = [macro["mean"], macro["low"], macro["high"] - macro["low"], 1 / 6]
    assert found == pytest.approx([100 * value / full for value in wanted], abs=0.006)


def test_head_and_tail_are_recomputed_with_the_interval_of_their_images(page: Element) -> None:
    table = next(section(page, "accuracy").all("table", cls="pairs"))
    english = next(row for row in table.all("tr") if "English" in row.text)
    tail, head = (percents(cell.text) for cell in english.all("td"))
    per_class = runs.pool_result()["languages"]["en"]["per_class"]
    for found, classes in ((tail, (2, 3)), (head, (0, 1, 5))):
        hits = np.concatenate([np.arange(16) < round(16 * per_class[place]) for place in classes])
        expected = mean_interval(hits)
        wanted = [100 * value for value in (expected.mean, expected.low, expected.high)]
        assert found == pytest.approx(wanted, abs=0.051)
    text = section(page, "accuracy").text
    assert (
        "2 classes have an English count below t = 30 (tail), 3 at least t (head); 1 have no"
        in text
    )


def test_the_best_and_worst_classes_are_means_over_languages(page: Element) -> None:
    best, worst = section(page, "accuracy").all("table", cls="classes")
    rows = {
        next(row.all("th")).text: [cell.text for cell in row.all("td")]
        for table in (best, worst) for row in table.one("tbody").all("tr")
    }  # fmt: skip
    assert percents(rows["cat"][0]) == [50.0] and rows["cat"][1] == "500"  # of 1, 0.5 and 0
    script = next(name for name in rows if name.startswith("<script>document"))
    assert percents(rows[script][0]) == [25.0] and script.endswith("tail")
    assert next(worst.one("tbody").all("tr")).text.startswith(texts.ARABIC)  # 0 where it is named


def test_examples_show_the_very_pictures(page: Element, data: Path) -> None:
    finds = list(section(page, "examples").all("article", cls="find"))
    assert finds[0].one("p", cls="caption").text == runs.PROMPTS[0]
    stored = finds[len(runs.PROMPTS) :]
    assert [one.one("p", cls="caption").text for one in stored] == list(runs.CAPTIONS)
    images = [one.attributes["src"] for one in finds[0].all("img")]
    for src, image in zip(images, runs.pool_result()["examples"][0]["images"], strict=False):
        expected = Image.open(io.BytesIO(render(image["url"], 40))).convert("RGB")
        assert error(src, expected) < 12
    assert len(images) == 3 and "no picture in this dataset" in finds[0].text  # of the bad URL
    verdicts = [one.attributes["class"] for one in finds[0].all("li")]
    assert verdicts == ["wrong", "right", "wrong", "wrong"]
    tables = list(open_dataset(data).tables(["image"]))
    rows = [row["bytes"] for table in tables for row in table["image"].to_pylist()]
    shown = 0
    for place, one in enumerate(stored):
        for k, item in enumerate(list(one.all("li"))[:2]):
            for image in item.all("img"):
                expected = Image.open(io.BytesIO(rows[(place + k) % len(rows)])).convert("RGB")
                assert error(image.attributes["src"], expected) < 12
                shown += 1
        assert "no picture in this dataset" in one.text  # of an id that is not in it
    assert shown > 10


def error(src: str, expected: Image.Image) -> float:
    """The mean difference of a picture on the page to another, of 255, at the page's size."""
    found = Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))).convert("RGB")
    scaled = expected.resize(found.size, Image.Resampling.LANCZOS)
    return float(np.abs(np.asarray(found, float) - np.asarray(scaled, float)).mean())


def test_pictures_of_another_dataset_are_not_shown(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    result = json.loads((copy / "eval" / "retrieval.json").read_text())
    runs.put_result(copy, result | {"dataset": "0" * 64})
    page = parse(report(str(copy)))
    finds = list(section(page, "examples").all("article", cls="find"))
    assert list(finds[0].all("img")) and not list(finds[-1].all("img"))


def test_results_of_an_older_checkpoint_and_left_out_languages_are_said(page: Element) -> None:
    text = section(page, "accuracy").text
    assert "Too few images to score: <u>zz</u> (3)" in text
    assert "1 images could not be read" in text
    assert "Intervals: 95 %, as computed." in text


def test_throughput_names_the_machine_and_derives_the_batch(page: Element) -> None:
    speed = section(page, "speed")
    shown = facts(next(speed.all("dl")))
    assert shown["ranks"] == "1, then 2"
    assert (shown["precision"], shown["ZeRO stage"]) == ("bf16", "1")
    assert shown["time of training"] == "23 s"  # 13 s to the step that was lost, and 10 s
    assert shown["machine"].endswith(", 4 cores")
    batch = {next(r.all("th")).text: next(r.all("td")).text for r in speed.one("tbody").all("tr")}
    assert batch == {
        "samples a step": "64", "ranks": "2", "samples a rank": "32", "samples a forward pass": "16",
        "forward passes a step and rank": "2", "steps": "40", "samples": "2,560",
    }  # fmt: skip


def test_lineage_leads_to_the_raw_inputs_parents_first(page: Element, data: Path) -> None:
    origin = section(page, "origin")
    stages = [one.text for one in origin.one("ol", cls="stages").all("li")]
    names = [stage.split()[0] for stage in stages]
    assert names[-1] == "curated" and {"records", "metadata", "pool", "balance"} <= set(names)
    for name, stage in zip(names, stages, strict=True):
        manifest = open_dataset(data.parent / name).manifest
        assert manifest.digest in stage and f"{manifest.rows:,} rows" in stage
        parents = [parent["name"] for parent in manifest.parents]
        assert all(names.index(parent) < names.index(name) for parent in parents)
    shown = [one.text for one in origin.all("pre")]
    assert shown[0].startswith("dataflows run metaclip2") and shown[-1].startswith("trainer launch")
    warned = section(page, "warnings").text
    assert "<script>window.owned=1</script> the pool is written by hand" in warned


def test_a_lost_dataset_is_said(run: Path, data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    facts_ = json.loads((copy / "run.json").read_text())
    facts_["data"]["location"] = str(tmp_path / "gone")
    (copy / "run.json").write_text(json.dumps(facts_))
    page = parse(report(str(copy)))
    assert "lineage are not at hand" in section(page, "warnings").text
    digest = open_dataset(data).manifest.digest
    assert digest in section(page, "origin").one("ol", cls="stages").text
    facts_["data"] = {"location": str(data), "digest": "1" * 64}
    (copy / "run.json").write_text(json.dumps(facts_))
    assert "another dataset is at its place now" in section(parse(report(str(copy))), "origin").text


def test_the_same_files_give_the_same_page(run: Path, text: str) -> None:
    assert report(str(run)) == text
