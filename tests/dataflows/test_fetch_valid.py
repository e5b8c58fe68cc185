"""Match, fetch what matched, then count, balance and draw over what was fetched, with its pictures."""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest

from dataflows.cli import main
from dataflows.report.render import report
from schemas.dataset import open_dataset
from schemas.verify import verify
from tests.dataflows.picture_server import PictureServer, picture
from tests.page.html import parse
from trainer.reader import Reader

WORDS = ("dog", "cat", "tree", "house", "river", "bread", "horse", "lamp")


@pytest.fixture(scope="module")
def world(small_metadata: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The outputs of the first run, of the fetch, and of the run over what was fetched."""
    root = tmp_path_factory.mktemp("valid")
    server = PictureServer()
    lines = []
    for number in range(80):
        kind = "gone" if number % 4 == 3 else "ok"
        url = server.url(number % 5, f"{kind}/{number}")
        # Few have the last words, so there is a tail; some pictures have two texts.
        word = WORDS[min(number.bit_count() + number % 3, len(WORDS) - 1)]
        texts = [f"a photo of the {word} in front of us"]
        texts += [f"one more {word} that was seen there"] if number % 5 == 0 else []
        lines += [json.dumps({"url": url, "text": text}) for text in texts]
    (root / "pairs.jsonl").write_text("\n".join(lines))
    base = [f"metadata={small_metadata}", "t_en=12", "buckets=2"]
    first, fetch, second = root / "first", root / "fetch", root / "second"
    given = f"input={root / 'pairs.jsonl'}"
    assert main(["run", "metaclip2", given, *base, f"output={first}"]) == 0
    wanted = [f"input={first / 'matched'}", f"output={fetch}", "contact=curator@example.org"]
    # Small row groups are not to be had, but several units and hosts are.
    assert main(["run", "fetch", *wanted, "resize=no", "unit=20", *server.settings]) == 0
    valid = [f"valid={fetch / 'fetched'}", "paired=true"]
    assert main(["run", "metaclip2", given, *base, *valid, f"output={second}"]) == 0
    server.shutdown()
    server.server_close()
    return {"first": first, "fetch": fetch, "second": second}


def rows(place: Path, *columns: str) -> list[dict]:
    return [row for t in open_dataset(place).tables(list(columns) or None) for row in t.to_pylist()]


def number_of(url: str) -> int:
    return int(url.rpartition("/")[2])


def test_only_fetched_images_count_and_each_pair_has_the_picture_of_its_url(
    world: dict[str, Path],
) -> None:
    fetched = {row["image_id"] for row in rows(world["fetch"] / "fetched", "image_id")}
    before = rows(world["first"] / "matched", "pair_id", "image_id")
    after = rows(world["second"] / "matched", "pair_id", "image_id", "url")
    assert {r["pair_id"] for r in after} == {
        r["pair_id"] for r in before if r["image_id"] in fetched
    }
    assert 0 < len(after) < len(before)
    assert all("/ok/" in row["url"] for row in after)
    for name in ("curated", "paired"):
        found = rows(world["second"] / name, "url", "image")
        assert found
        for row in found:
            assert row["image"]["bytes"] == picture(number_of(row["url"]))
        assert verify(open_dataset(world["second"] / name).storage) == []
        manifest = open_dataset(world["second"] / name).manifest
        assert manifest.stats["pictures"] == len(found)
        assert "valid_images" in {parent["name"] for parent in manifest.parents}
    counts = Counter(
        (row["metadata"], entry)
        for row in rows(world["second"] / "matched", "metadata", "entries")
        for entry in row["entries"]
    )
    stated = rows(world["second"] / "counts")
    assert counts == {(row["metadata"], row["entry"]): row["count"] for row in stated}


def test_paired_is_matched_with_the_texts_of_an_image_together(world: dict[str, Path]) -> None:
    paired = rows(
        world["second"] / "paired", "image_id", "pair_id", "image_texts", "keep_probability"
    )
    matched = rows(
        world["second"] / "matched", "image_id", "pair_id", "image_texts", "keep_probability"
    )
    assert sorted(paired, key=lambda r: r["pair_id"]) == sorted(matched, key=lambda r: r["pair_id"])
    runs = [(image, len(list(of))) for image, of in groupby(r["image_id"] for r in paired)]
    assert len(runs) == len({image for image, _ in runs})
    assert 2 in {length for _, length in runs}


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_trainer_draws_from_paired_what_it_draws_from_matched(
    world: dict[str, Path], epoch: int
) -> None:
    drawn = []
    for name in ("paired", "matched"):
        reader = Reader(world["second"] / name, seed=0, epoch=epoch, draw="image")
        drawn.append(Counter(reader.take(range(len(reader)))["pair_id"].to_pylist()))
    assert drawn[0] == drawn[1]
    curated = Counter(row["pair_id"] for row in rows(world["second"] / "curated", "pair_id"))
    assert (drawn[0] == curated) == (epoch == 0)


def test_the_second_run_knows_the_tail_before_and_after(world: dict[str, Path]) -> None:
    english = open_dataset(world["second"] / "balance").manifest.stats["languages"]["en"]
    counts = {
        run: {r["entry"]: r["count"] for r in rows(world[run] / "counts") if r["metadata"] == "en"}
        for run in ("first", "second")
    }
    tail = {e for e in counts["first"] if counts["second"].get(e, 0) < english["t"]}
    assert tail and tail < set(counts["first"])
    for name, run in (("before", "first"), ("after", "second")):
        mass = sum(n for e, n in counts[run].items() if e in tail) / sum(counts[run].values())
        found = english["fetching"][name]
        assert found["matches"] == sum(counts[run].values())
        assert found["tail"] == pytest.approx(mass, abs=1e-12)
    assert english["fetching"]["before"]["tail"] != english["fetching"]["after"]["tail"]


def test_the_reports_tell_what_fetching_lost(world: dict[str, Path]) -> None:
    page = parse(report(str(world["fetch"]))).one("section", id="fetching")
    asked = open_dataset(world["fetch"] / "units").manifest.rows
    came = open_dataset(world["fetch"] / "fetched").manifest.rows
    assert f"Of {asked} URLs, {came} pictures came" in page.text
    letters = rows(world["fetch"] / "fetched.dead_letters", "source")
    hosts = Counter(row["source"] for row in letters)
    shown = [[cell.text for cell in row.all("td")] for row in page.one("tbody").all("tr")]
    assert [int(cells[0]) for cells in shown] == sorted(hosts.values(), reverse=True)
    assert all(cells[1].split() == ["fetch", "http", "4xx", cells[0]] for cells in shown)
    tail = parse(report(str(world["second"]))).one("section", id="fetching")
    english = open_dataset(world["second"] / "balance").manifest.stats["languages"]["en"]
    first = next(iter(tail.one("tbody").all("tr")))
    cells = [cell.text for cell in first.all("td")]
    before, after = (english["fetching"][name] for name in ("before", "after"))
    assert cells[:2] == [str(before["matches"]), str(after["matches"])]
    assert cells[3:] == [f"{before['tail']:.4f}", f"{after['tail']:.4f}"]
    assert 'id="fetching"' not in report(str(world["first"]))


def test_why_tells_the_way_of_a_url(
    world: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    units = rows(world["fetch"] / "units", "url", "unit", "image_id")
    for kind, said in (("ok", "64 x 48 pixels"), ("gone", "[fetch_http_4xx]")):
        row = next(row for row in units if f"/{kind}/" in row["url"])
        for name in (row["url"], row["image_id"].hex()):
            assert main(["why", str(world["fetch"]), name]) == 0
            out = capsys.readouterr().out
            assert said in out and row["unit"] in out
    assert main(["why", str(world["fetch"]), "http://nobody.example/1"]) == 3


def test_an_input_that_is_a_whole_run_is_told_what_to_give(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"input={world['first']}", f"output={tmp_path / 'out'}", "contact=a@example.org"]
    assert main(["run", "fetch", *words]) == 2
    assert f"{world['first']}/matched" in capsys.readouterr().err
