"""Fetching as a pipeline, against a local server: rows, refusals, resumption, replay."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars
import pyarrow.compute as pc
import pytest
from PIL import Image

from dataflows.cli import main
from dataflows.engine.replay import letter_rows
from schemas.dataset import open_dataset
from schemas.storage import storage
from schemas.verify import verify
from tests.dataflows.picture_server import HOSTS, PictureServer, picture
from tests.faults import duplicates, matrix
from tests.support import ROOT

CONTACT = "contact=curator@example.org"
UNIT = 12


@pytest.fixture
def server() -> Iterator[PictureServer]:
    found = PictureServer()
    yield found
    found.go_on()
    found.shutdown()
    found.server_close()


def paths_of() -> list[tuple[int, str]]:
    """(host, path): one host of several units, some of one unit, and several kinds of refusals."""
    large = [(0, f"ok/{n}") for n in range(30)]
    small = [(1 + n % 4, f"ok/{100 + n}") for n in range(16)]
    odd = [(5, f"gone/{n}") for n in range(2)] + [(5, "text/1"), (5, "broken/1"), (5, "later/7")]
    return [*large, *small, *odd]


def ingested(urls: list[str], tmp_path: Path) -> Path:
    file = tmp_path / "urls.jsonl"
    lines = [json.dumps({"url": url, "text": f"text {n}"}) for n, url in enumerate(urls)]
    # The same picture under another text: it is to be fetched once.
    lines.append(json.dumps({"url": urls[0], "text": "once more"}))
    file.write_text("\n".join(lines))
    assert main(["run", "ingest", f"input={file}", f"output={tmp_path / 'in'}"]) == 0
    return tmp_path / "in" / "records"


def words(records: Path, output: Path | str, server: PictureServer, *more: str) -> list[str]:
    return [
        *("run", "fetch", f"input={records}", f"output={output}", CONTACT, f"unit={UNIT}"),
        *("retries=0", *server.settings, *more),
    ]


def rows(place: Path, *columns: str) -> list[dict]:
    return [row for t in open_dataset(place).tables(list(columns) or None) for row in t.to_pylist()]


def test_every_url_is_a_row_or_a_refusal_with_its_reason(
    server: PictureServer, tmp_path: Path
) -> None:
    urls = [server.url(host, path) for host, path in paths_of()]
    records = ingested(urls, tmp_path)
    output = tmp_path / "out"
    assert main(words(records, output, server, "size=32")) == 0
    pictures = rows(output / "fetched")
    good = {url for url in urls if "/ok/" in url}
    assert Counter(row["url"] for row in pictures) == dict.fromkeys(good, 1)
    ids = {row["url"]: row["image_id"] for row in rows(records, "url", "image_id")}
    for row in pictures:
        assert row["image_id"] == ids[row["url"]]
        assert (row["width"], row["height"]) == Image.open(io.BytesIO(row["image"]["bytes"])).size
        assert (row["original_width"], row["original_height"]) == (64, 48)
        assert min(row["width"], row["height"]) == 32
    keys = [(row["unit"], row["image_id"]) for row in pictures]
    assert keys == sorted(keys)
    _check_refusals(output, urls, good)
    units = rows(output / "units")
    assert max(Counter(row["unit"] for row in units).values()) <= UNIT
    assert {row["share"] for row in units if row["host"] == HOSTS[0]} == {3}
    for name in ("units", "fetched", "fetched.dead_letters"):
        assert verify(open_dataset(output / name).storage) == []
    assert _left_of_attempts(output) == set()
    assert all(count == 1 for count in server.pictures_asked().values())
    asked = sum(server.asked.values())
    assert main(words(records, output, server, "size=32")) == 0  # finished: nobody is asked
    assert sum(server.asked.values()) == asked


def _check_refusals(output: Path, urls: list[str], good: set[str]) -> None:
    ledger = open_dataset(output / "fetched").manifest.ledger
    assert ledger.count("image", "in") == len(urls)
    assert ledger.count("image", "out") == len(good)
    letters = rows(output / "fetched.dead_letters", "reason", "error", "source", "row")
    reasons = Counter(letter["reason"] for letter in letters)
    assert reasons == {
        row["reason"]: row["count"] for row in ledger.rows() if row["kind"] == "rejected"
    }
    assert reasons == {
        "fetch_http_4xx": 2,
        "fetch_wrong_type": 1,
        "not_an_image": 1,
        "fetch_http_5xx": 1,
    }
    table = open_dataset(output / "fetched.dead_letters").read_shard(0)
    letter = letter_rows(table)
    assert set(letter["url"].to_pylist()) == set(urls) - good
    gone = pc.equal(table["reason"], "fetch_http_4xx").combine_chunks()
    assert letter.filter(gone)["http_status"].to_pylist() == [404, 404]
    assert {row["source"] for row in letters} == {HOSTS[5]}


def _left_of_attempts(output: Path) -> set[str]:
    attempts = (output / "fetched" / ".headrace" / "attempts").rglob("*")
    return {path.name for path in attempts if path.is_file()}


def _committed(output: Path) -> set[str]:
    """Units whose log is there: names are hashed, so their logs are read."""
    logs = (output / "fetched" / ".headrace" / "attempts").rglob("unit-*.json")
    return {json.loads(log.read_text())["unit"] for log in logs}


@pytest.mark.slow
def test_a_killed_fetch_goes_on_without_fetching_a_committed_unit_again(
    server: PictureServer, tmp_path: Path
) -> None:
    urls = [server.url(n % 6, f"ok/{n}") for n in range(60)]
    server.free = 30
    records = ingested(urls, tmp_path)
    output = tmp_path / "out"
    command = [sys.executable, "-m", "dataflows", *words(records, output, server, "timeout=30")]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while server.free >= 0:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    committed = _committed(output)
    units = {row["url"]: row["unit"] for row in rows(output / "units")}
    before = server.pictures_asked()
    assert committed and committed < set(units.values())
    server.go_on()
    assert main(words(records, output, server, "timeout=30")) == 0
    after = server.pictures_asked() - before
    again = {f"http://{host}:{server.port}{path}" for host, path in after}
    # The unit in hand was asked for in part, and is fetched whole.
    assert again == {url for url, unit in units.items() if unit not in committed}
    assert len(rows(output / "fetched", "url")) == len(urls)


def test_doubled_and_late_bundles_fetch_nothing_twice(
    server: PictureServer, tmp_path: Path
) -> None:
    urls = [server.url(host, path) for host, path in paths_of()]
    records = ingested(urls, tmp_path)
    output = tmp_path / "out"

    def disturbed() -> None:
        duplicates.install(3)
        assert main(words(records, output, server)) == 0
        print(f"{duplicates.late()} calls came late")

    assert matrix.in_child(disturbed) == 0
    assert set(server.pictures_asked().values()) == {1}
    assert len(rows(output / "fetched", "url")) == 46
    for name in ("units", "fetched", "fetched.dead_letters"):
        assert verify(open_dataset(output / name).storage) == []
    # A zombie may note the job's result once more; it neither fetches nor writes rows.
    assert _left_of_attempts(output) <= {"result.json"}


def test_a_replay_asks_again_for_what_may_come_now(server: PictureServer, tmp_path: Path) -> None:
    urls = [server.url(5, path) for path in ("ok/1", "later/1", "later/2", "gone/1", "text/1")]
    output = tmp_path / "out"
    assert main(words(ingested(urls, tmp_path), output, server)) == 0
    before = server.pictures_asked()
    server.recovered = True
    assert main(["replay", str(output / "fetched")]) == 0
    asked = {path for _, path in server.pictures_asked() - before}
    assert asked == {"/later/1", "/later/2"}
    found = {row["url"].rpartition("/")[0].rpartition("/")[2] for row in rows(output / "fetched")}
    assert found == {"ok", "later"}
    letters = open_dataset(output / "fetched.dead_letters")
    assert sorted(letters.read_shard(0)["reason"].to_pylist()) == [
        "fetch_http_4xx",
        "fetch_wrong_type",
    ]
    ledger = open_dataset(output / "fetched").manifest.ledger
    assert (ledger.count("image", "in"), ledger.count("image", "out")) == (5, 3)
    assert ledger.count("image", "rejected", "fetch_http_5xx") == 0
    assert verify(open_dataset(output / "fetched").storage) == []


def test_evaluation_images_are_found_by_their_bytes(server: PictureServer, tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    folder.mkdir()
    (folder / "seen.jpg").write_bytes(picture(3))
    (folder / "seen.txt").write_text("a picture of an evaluation set")
    assert main(["run", "ingest", f"input={folder}", f"output={tmp_path / 'eval'}"]) == 0
    urls = [server.url(1, f"ok/{n}") for n in range(8)]
    output = tmp_path / "out"
    evaluation = f"evaluation={tmp_path / 'eval' / 'records'}"
    assert main(words(ingested(urls, tmp_path), output, server, evaluation)) == 0
    found = {row["url"] for row in rows(output / "fetched", "url")}
    assert found == set(urls) - {urls[3]}
    ledger = open_dataset(output / "fetched").manifest.ledger
    assert ledger.count("image", "rejected", "evaluation_set_hash") == 1


def test_other_readers_decode_the_pictures(server: PictureServer, tmp_path: Path) -> None:
    import datasets

    urls = [server.url(1, f"ok/{n}") for n in range(3)]
    output = tmp_path / "out"
    assert main(words(ingested(urls, tmp_path), output, server, "resize=no")) == 0
    cache = str(tmp_path / "cache")
    data = datasets.load_dataset(str(output / "fetched"), split="train", cache_dir=cache)
    by_url = {row["url"]: row for row in data}
    for url in urls:
        assert by_url[url]["image"].size == (64, 48)
    raw = polars.read_parquet(f"{output}/fetched/data/*.parquet")
    assert {bytes(i["bytes"]) for i in raw["image"]} == {picture(n) for n in range(3)}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["contact=me"], "contact='me'"),
        (["requests_per_second=0"], "requests_per_second=0"),
        (["size=0"], "size=0"),
        (["unit=2001"], "unit=2001"),
        (["resize=twirl"], "twirl"),
        (["input=nowhere"], "input=nowhere"),
        (["input={metadata}"], "has no column image_id"),
        (["output={metadata}/in"], "lies inside"),
        (["sise=3"], "did you mean size?"),
    ],
)
def test_what_cannot_work_is_refused_before_anybody_is_asked(
    more: list[str], said: str, small_metadata: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = {
        "input": str(small_metadata),
        "output": str(tmp_path / "out"),
        "contact": "curator@example.org",
    }
    given |= dict(w.format(metadata=small_metadata).split("=", 1) for w in more)
    assert main(["run", "fetch", *(f"{k}={v}" for k, v in given.items())]) in (2, 3)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_remote_output_takes_it_all(server: PictureServer, tmp_path: Path) -> None:
    urls = [server.url(n % 2, f"ok/{n}") for n in range(6)] + [server.url(3, "gone/1")]
    output = f"memory://{tmp_path.name}/fetch"
    assert main(words(ingested(urls, tmp_path), output, server)) == 0
    place = storage(output)
    found = [row["url"] for t in open_dataset(place.at("fetched")).tables(["url"])
             for row in t.to_pylist()]  # fmt: skip
    assert sorted(found) == sorted(urls[:-1])
    assert open_dataset(place.at("fetched.dead_letters")).manifest.rows == 1
    assert verify(place.at("fetched")) == []
    assert not [key for key in place.at("fetched").list() if "/attempts/" in key]
