"""Every way in which a host misbehaves has exactly its reason, and costs nothing but its own row."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from schemas.reasons import REASONS
from tests.curation.fetch.asking import ask
from tests.fetch_server import ROBOTS, FetchServer

# host and path -> reason ("" = fetched), tries
EXPECTED: dict[tuple[str, str], tuple[str, int]] = {
    ("slow", "/silent"): ("fetch_timeout", 2),
    ("drips", "/drip"): ("fetch_timeout", 1),
    ("cuts", "/truncated"): ("fetch_truncated", 2),
    ("cutslate", "/cut"): ("not_an_image", 1),
    ("flood", "/endless"): ("fetch_too_large", 1),
    ("giant", "/huge"): ("fetch_too_large", 1),
    ("bomb", "/bomb"): ("image_too_large", 1),
    ("rounds", "/loop"): ("fetch_redirects", 1),
    ("far", "/hops/6"): ("fetch_redirects", 1),
    ("near", "/hops/4"): ("", 1),
    ("lost", "/nowhere"): ("fetch_redirects", 1),
    ("inwards", "/toprivate"): ("fetch_private_address", 1),
    ("cloud", "/tometadata"): ("fetch_private_address", 1),
    ("home", "/toloopback"): ("fetch_private_address", 1),
    ("files", "/tofile"): ("fetch_bad_url", 1),
    ("login", "/topassword"): ("fetch_bad_url", 1),
    ("refused", "/todisallowed"): ("fetch_robots", 1),
    ("moved", "/toother"): ("", 1),
    ("pages", "/html"): ("fetch_wrong_type", 1),
    ("vectors", "/svg"): ("fetch_wrong_type", 1),
    ("octets", "/octets"): ("", 1),
    ("untyped", "/untyped"): ("", 1),
    ("noise", "/nonsense"): ("not_an_image", 1),
    ("hollow", "/empty"): ("not_an_image", 1),
    ("packed", "/gzip"): ("fetch_encoded", 1),
    ("nothing", "/s204"): ("fetch_http_status", 1),
    ("gone", "/s404"): ("fetch_http_4xx", 1),
    ("broken", "/s500"): ("fetch_http_5xx", 2),
    ("down", "/s503"): ("fetch_http_5xx", 2),
    ("busy", "/busy"): ("", 2),
    ("dated", "/date"): ("", 2),
    ("hours", "/far"): ("fetch_rate_limited", 1),
    ("undated", "/never"): ("fetch_rate_limited", 2),
    ("alien", "/garbage"): ("fetch_protocol", 1),
    ("hangsup", "/close"): ("fetch_connect", 2),
    ("artist", "/optout"): ("fetch_opt_out", 1),
    ("artist2", "/optoutimages"): ("fetch_opt_out", 1),
    ("artist3", "/optoutours"): ("fetch_opt_out", 1),
    ("artist4", "/optoutothers"): ("", 1),
    ("rights", "/tdm"): ("fetch_opt_out", 1),
    ("rights2", "/tdmzero"): ("", 1),
    ("good", "/good"): ("", 1),
    ("disallow", "/good"): ("fetch_robots", 0),
    ("ours", "/good"): ("fetch_robots", 0),
    ("others", "/good"): ("", 1),
    ("robots500", "/good"): ("fetch_robots", 0),
    ("robots403", "/good"): ("", 1),
    ("robots429", "/good"): ("fetch_rate_limited", 0),
    ("robotsloop", "/good"): ("", 1),
    ("robotsmoved", "/good"): ("fetch_robots", 0),
    ("robotsprivate", "/good"): ("fetch_private_address", 0),
    ("robotsgzip", "/good"): ("fetch_robots", 0),
    ("robotslate", "/good"): ("fetch_robots", 0),
    ("robotsdelay", "/good"): ("", 1),
    ("robotscentury", "/good"): ("fetch_robots", 0),
}
HOSTS = [host for host, _ in EXPECTED] + ["other"]


@pytest.fixture(scope="module")
def rows(server: FetchServer) -> Iterator[dict[tuple[str, str], dict[str, Any]]]:
    """All of it in one call, side by side."""
    places = list(EXPECTED)
    found = ask([server.url(*place) for place in places], allow_private=server.allow(*HOSTS))
    yield dict(zip(places, found, strict=True))


@pytest.mark.parametrize("place", EXPECTED, ids=lambda place: "".join(place))
def test_the_reason(rows: dict, place: tuple[str, str]) -> None:
    row = rows[place]
    reason, tries = EXPECTED[place]
    assert (row["reason"], row["attempts"]) == (reason, tries), row["error"]
    assert (row["image"] is not None) == (reason == "")
    assert (row["error"] is not None) == (reason != "")
    assert reason in REASONS or not reason


def test_the_statuses(rows: dict) -> None:
    statuses = {path: rows[host, path]["http_status"] for host, path in EXPECTED}
    assert {path: statuses[path] for path in ("/s404", "/s503", "/far", "/html", "/octets")} == {
        "/s404": 404,
        "/s503": 503,
        "/far": 429,
        "/html": 200,
        "/octets": 200,
    }


def test_what_is_fetched(rows: dict, server: FetchServer) -> None:
    row = rows["good", "/good"]
    assert row["sha256"] == hashlib.sha256(server.good).digest()
    assert (row["original_width"], row["original_height"]) == (640, 480)
    image = Image.open(io.BytesIO(row["image"]["bytes"]))
    assert (
        (image.format, image.size)
        == ("JPEG", (row["width"], row["height"]))
        == ("JPEG", (341, 256))
    )
    assert rows["moved", "/toother"]["sha256"] == row["sha256"]


def test_no_time_is_lost_on_the_slow(rows: dict) -> None:
    assert rows["drips", "/drip"]["seconds"] == pytest.approx(2.5, abs=0.5)
    assert rows["slow", "/silent"]["seconds"] == pytest.approx(2.0, abs=0.5)
    assert rows["flood", "/endless"]["seconds"] < 1.5


def test_what_must_not_be_asked_is_not(rows: dict, server: FetchServer) -> None:
    for host in ("disallow", "ours", "robots500", "robotslate", "robotsmoved"):
        assert {seen.path for seen in server.log.of(host)} <= {"/robots.txt"}
    assert not server.log.of("not-allowed")
    assert not [s for s in server.log.of("good") if "secret" in str(s.headers)]
    # The reason was seen in the headers: of the body of 10 GB nothing was waited for.
    assert rows["artist", "/optout"]["sha256"] is None


def test_pauses_asked_for_are_kept(rows: dict, server: FetchServer) -> None:
    first, second = (s.start for s in server.log.of("busy") if s.path == "/busy")
    assert 1.0 <= second - first < 2.5
    first, second = (s.start for s in server.log.of("dated") if s.path == "/date")
    assert 1.9 <= second - first < 4.5
    assert [s.path for s in server.log.of("hours")] == ["/robots.txt", "/far"]
    robots, image = (s.start for s in server.log.of("robotsdelay"))
    assert image > robots


def test_every_request_says_who_asks(rows: dict, server: FetchServer) -> None:
    for seen in server.log.requests:
        assert seen.headers["user-agent"].startswith("headrace/")
        assert "tests@example.org" in seen.headers["user-agent"]
        assert seen.headers["accept-encoding"] == "identity"
        assert "cookie" not in seen.headers
    assert set(ROBOTS) - {"delayed"} <= {seen.host for seen in server.log.requests}
