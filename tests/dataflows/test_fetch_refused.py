"""A fetch that hardly any picture comes from says why, and what to do, where its user looks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflows.cli import main
from dataflows.pipelines.fetch.recipe import NO_FILTER
from dataflows.pipelines.fetch.refusals import warnings
from schemas.dataset import open_dataset
from schemas.ledger import Ledger
from tests.dataflows.picture_server import HOSTS, PictureServer

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def server() -> Iterator[PictureServer]:
    found = PictureServer()
    yield found
    found.shutdown()
    found.server_close()


def ingested(urls: list[str], place: Path) -> Path:
    """Records of these URLs."""
    file = place / "urls.jsonl"
    file.write_text("\n".join(json.dumps({"url": u, "text": "a dog"}) for u in urls))
    assert main(["run", "ingest", f"input={file}", f"output={place / 'in'}"]) == 0
    return place / "in" / "records"


def fetch(records: Path, output: Path, *words: str) -> list[str]:
    """The warnings of the dataset `fetched`."""
    settings = ["contact=curator@example.org", "retries=0", "unit=5", *words]
    assert main(["run", "fetch", f"input={records}", f"output={output}", *settings]) == 0
    return open_dataset(output / "fetched").manifest.warnings


def test_refused_addresses_name_the_setting_on_the_screen(
    server: PictureServer, tmp_path: Path, capsys: Capture
) -> None:
    urls = [server.url(n % len(HOSTS), f"ok/{n}") for n in range(12)]
    urls += [f"http://name-{n}.invalid/1.jpg" for n in range(3)]
    records = ingested(urls, tmp_path)
    found = fetch(records, tmp_path / "one", "--workers", "1")
    said = capsys.readouterr().err
    first = (
        "when it was fetched, 15 of 15 URLs were refused: 12 fetch_private_address (the host has a "
        "private, local, reserved or metadata address); 3 fetch_dns (the host's name has no address)"
    )
    assert f"warning: {first}" in said
    assert "warning: fetch_private_address: " in said and "allow_private=HOST:PORT" in said
    assert "warning: fetch_dns: " in said
    assert found[:2] == [NO_FILTER, first]


@pytest.mark.slow
def test_the_warnings_do_not_depend_on_the_workers(server: PictureServer, tmp_path: Path) -> None:
    records = ingested([server.url(n % len(HOSTS), f"ok/{n}") for n in range(12)], tmp_path)
    found = fetch(records, tmp_path / "one", "--workers", "1")
    assert len(found) == 3
    assert fetch(records, tmp_path / "two", "--workers", "2") == found
    digests = {open_dataset(tmp_path / n / "fetched").manifest.digest for n in ("one", "two")}
    assert len(digests) == 1


def test_a_fetch_that_works_does_not_warn(
    server: PictureServer, tmp_path: Path, capsys: Capture
) -> None:
    urls = [server.url(n % len(HOSTS), f"ok/{n}") for n in range(4)]
    urls += [server.url(0, f"gone/{n}") for n in range(4)]
    assert fetch(ingested(urls, tmp_path), tmp_path / "out", *server.settings) == [NO_FILTER]
    assert "warning" not in capsys.readouterr().err


def _ledger(out: int, **refused: int) -> Ledger:
    ledger = Ledger()
    ledger.add("image", "in", "", out + sum(refused.values()))
    ledger.add("image", "out", "", out)
    for reason, count in refused.items():
        ledger.add("image", "rejected", reason, count)
    return ledger


def test_only_more_than_nine_in_ten_are_too_many() -> None:
    assert warnings(_ledger(10, fetch_robots=90)) == []
    assert warnings(_ledger(9, fetch_robots=91))[1].startswith("fetch_robots: ")
    assert warnings(_ledger(0, evaluation_set_hash=50)) == []
    assert warnings(_ledger(0)) == []


def test_the_three_largest_reasons_are_numbered() -> None:
    first, *advice = warnings(
        _ledger(
            1, fetch_robots=2_000, fetch_dns=300, fetch_http_4xx=40, fetch_tls=5, fetch_encoded=1
        )
    )
    assert "2,346 of 2,347 URLs" in first
    parts = [part.split(" (")[0] for part in first.split("refused: ")[1].split("; ")]
    assert parts == [
        "2,000 fetch_robots",
        "300 fetch_dns",
        "40 fetch_http_4xx",
        "6 for other reasons",
    ]
    assert [line.split(":")[0] for line in advice] == ["fetch_robots", "fetch_dns"]
