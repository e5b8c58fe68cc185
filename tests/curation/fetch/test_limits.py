"""What the server sees: rates, connections, pauses and hosts left alone."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time

import pytest

from curation.fetch import client, fetch, robots, run
from schemas.errors import JobError
from tests.curation.fetch.asking import ask, options, table
from tests.fetch_server import FetchServer

# The server notes when it reads a request; on a busy machine it may read one late, and so the next
# one seems to come early.
_LATE = 0.03


def gaps(server: FetchServer, host: str) -> list[float]:
    starts = [seen.start for seen in server.log.of(host)]
    return [b - a for a, b in itertools.pairwise(starts)]


@pytest.mark.parametrize(
    ("share", "connections", "least", "at_once"),
    [(1, 3, 0.1, 3), (2, 3, 0.2, 1), (1, 1, 0.1, 1)],
)
def test_rate_and_connections_of_each_host(
    server: FetchServer, share: int, connections: int, least: float, at_once: int
) -> None:
    """Handling takes half a gap, so the rate would be kept by luck only if nothing kept it."""
    hosts = [f"paced{share}{connections}{i}" for i in range(4)]
    urls = [server.url(host, f"/paced/{i}") for i in range(7) for host in hosts]
    rows = ask(
        urls,
        share,
        requests_per_second=10.0,
        connections=connections,
        allow_private=server.allow(*hosts),
        timeout=5.0,
        deadline=10.0,
    )
    assert {row["reason"] for row in rows} == {""}
    for host in hosts:
        assert len(server.log.of(host)) == 8  # robots.txt counts
        assert min(gaps(server, host)) >= least - _LATE
        assert server.log.most_at_once(host) <= at_once
    # The hosts were served side by side: one after another takes four times as long.
    starts = [seen.start for host in hosts for seen in server.log.of(host)]
    assert max(starts) - min(starts) < 2.5 * 7 * least


def test_connections_are_used_and_never_exceeded_without_a_rate(server: FetchServer) -> None:
    hosts = ["many1", "many2"]
    urls = [server.url(host, f"/paced/{i}") for i in range(20) for host in hosts]
    ask(urls, connections=4, allow_private=server.allow(*hosts), timeout=5.0, deadline=10.0)
    for host in hosts:
        assert server.log.most_at_once(host) == 4
        overlap = [
            sum(a.start <= b.start < a.end for a in server.log.of(host))
            for b in server.log.of(host)
        ]
        assert max(overlap) <= 4


def test_concurrency_holds_over_all_hosts(server: FetchServer) -> None:
    hosts = [f"wide{i}" for i in range(12)]
    rows = ask(
        [server.url(host, "/paced/0") for host in hosts],
        concurrency=3,
        allow_private=server.allow(*hosts),
        timeout=5.0,
        deadline=10.0,
    )
    assert {row["reason"] for row in rows} == {""}
    seen = [s for host in hosts for s in server.log.of(host) if s.path != "/robots.txt"]
    assert max(sum(a.start <= b.start < a.end for a in seen) for b in seen) <= 3


def test_a_host_met_by_redirects_gets_a_part_of_its_rate(server: FetchServer) -> None:
    """Other units may be led to the same place."""
    urls = [server.url("from", f"/toother?{i}") for i in range(4)]
    allowed = server.allow("from", "other")
    ask(urls, requests_per_second=20.0, units_at_once=4, connections=4, allow_private=allowed)
    assert min(gaps(server, "from")) < 0.15
    assert min(gaps(server, "other")) >= 4 / 20 - _LATE


def test_a_host_and_its_www_are_one_unit_s_and_have_their_whole_rate(server: FetchServer) -> None:
    urls = [server.url("bare", f"/towww?{i}") for i in range(4)]
    allowed = (*server.allow("bare"), *server.allow("www.bare"))
    start = time.monotonic()
    rows = ask(urls, requests_per_second=20.0, units_at_once=40, allow_private=allowed)
    assert {row["reason"] for row in rows} == {""}
    assert time.monotonic() - start < 3.0  # of the 6 s that four requests take at 1/40 of the rate


def test_waiting_for_a_host_takes_no_place_from_others(server: FetchServer) -> None:
    slow = [server.url("delayed", f"/good?{i}") for i in range(12)]
    fast = [server.url(f"quick{i}", f"/good?{j}") for j in range(10) for i in range(3)]
    allowed = server.allow("delayed", "quick0", "quick1", "quick2")
    ask(slow + fast, connections=2, concurrency=1, allow_private=allowed)
    starts = [seen.start for i in range(3) for seen in server.log.of(f"quick{i}")]
    # The slow host takes 3.3 s at least; with its requests in all places the others came last.
    assert max(starts) < max(seen.start for seen in server.log.of("delayed"))


def test_waiting_for_a_connection_uses_up_no_deadline(server: FetchServer) -> None:
    """Thirty redirects lead to one host with one connection and 50 ms an answer."""
    hosts = [f"guest{i}" for i in range(30)]
    urls = [server.url(host, "/tomeeting") for host in hosts]
    rows = ask(urls, deadline=1.0, allow_private=server.allow("meeting", *hosts))
    assert {row["reason"] for row in rows} == {""}
    assert server.log.most_at_once("meeting") == 1


def test_crawl_delay_is_kept(server: FetchServer) -> None:
    urls = [server.url("robotsdelay", f"/good?{i}") for i in range(3)]
    ask(urls, connections=2, allow_private=server.allow("robotsdelay"))
    assert min(gaps(server, "robotsdelay")[1:]) >= 0.3 - _LATE


def test_a_pause_holds_for_the_whole_host(server: FetchServer) -> None:
    urls = [server.url("paused", path) for path in ("/busy", "/good?1", "/good?2")]
    rows = ask(urls, connections=1, allow_private=server.allow("paused"))
    assert [row["reason"] for row in rows] == ["", "", ""]
    robots, first, second, *_ = server.log.of("paused")
    assert (robots.path, first.path) == ("/robots.txt", "/busy")
    assert second.start - first.start >= 1.0


def test_a_host_that_asks_for_hours_is_asked_once(server: FetchServer) -> None:
    urls = [server.url("hours", path) for path in ("/far", "/good?1", "/good?2")]
    rows = ask(urls, allow_private=server.allow("hours"))
    assert [row["reason"] for row in rows] == ["fetch_rate_limited"] * 3
    assert [row["attempts"] for row in rows] == [1, 0, 0]
    assert [seen.path for seen in server.log.of("hours")] == ["/robots.txt", "/far"]


def test_a_host_that_never_answers_is_left_alone(server: FetchServer) -> None:
    urls = [server.url("dead", f"/close/{i}") for i in range(40)]
    rows = ask(urls, retries=0, allow_private=server.allow("dead"))
    assert {row["reason"] for row in rows} == {"fetch_connect"}
    assert sum(row["attempts"] for row in rows) == 10
    assert len(server.log.of("dead")) == 11


def test_one_success_in_between_is_enough_to_go_on(server: FetchServer) -> None:
    paths = [f"/close/{i}" if i % 9 else f"/good?{i}" for i in range(40)]
    rows = ask(
        [server.url("flaky", path) for path in paths],
        retries=0,
        allow_private=server.allow("flaky"),
    )
    assert sum(row["attempts"] for row in rows) == 40


def test_a_pause_holds_for_the_host_that_asked_for_it_not_for_the_one_that_led_there(
    server: FetchServer,
) -> None:
    urls = [server.url("leads", path) for path in ("/tobusy", "/toengaged", "/good")]
    allowed = server.allow("leads", "engaged")
    rows = ask(urls, connections=3, requests_per_second=20.0, allow_private=allowed)
    assert [row["reason"] for row in rows] == ["", "", ""]
    asked = [seen for seen in server.log.of("engaged") if seen.path != "/robots.txt"]
    assert asked[0].path == "/busy"
    assert asked[1].start - asked[0].start >= 1.0
    (good,) = (seen for seen in server.log.of("leads") if seen.path == "/good")
    assert good.start - asked[0].start < 0.5


def test_a_host_that_leads_to_a_dead_one_is_not_left_alone_for_it(server: FetchServer) -> None:
    urls = [server.url("shortener", f"/todead?{i}") for i in range(12)]
    urls.append(server.url("shortener", "/good"))
    rows = ask(urls, retries=0, allow_private=server.allow("shortener", "departed"))
    assert [row["reason"] for row in rows] == ["fetch_connect"] * 12 + [""]
    assert len(server.log.of("departed")) == 1 + 10  # the dead one is


def test_few_connections_stay_open_of_many_hosts(
    server: FetchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes a file descriptor, of which a process often has 1,024."""
    monkeypatch.setattr(client, "_KEPT", 8)
    hosts = [f"crowd{i}" for i in range(60)]
    urls = [server.url(host, f"/good?{i}") for i in range(2) for host in hosts]
    rows = ask(
        urls,
        requests_per_second=4.0,
        concurrency=4,
        allow_private=server.allow(*hosts),
        timeout=5.0,
        deadline=10.0,
    )
    assert {row["reason"] for row in rows} == {""}
    mine = [c for c in server.log.connections if c.host in hosts]
    at_once = max(sum(c.opened <= t.opened < c.closed for c in mine) for t in mine)
    assert at_once <= 8 + 4 + 4  # the server sees late that one was closed
    assert max(server.log.most_at_once(host) for host in hosts) == 1


def test_large_pictures_that_become_small_are_handed_over_before_no_more_is_let_in(
    server: FetchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One host, one connection: fewer rows than a table's fill what may be held."""
    monkeypatch.setattr(run, "_HELD", 40_000)
    monkeypatch.setattr(run, "_TABLE_BYTES", 20_000)
    monkeypatch.setitem(server.bodies, "/large", ("image/jpeg", server.good))
    assert len(server.good) > 4_000
    tables: list[int] = []

    def count() -> None:
        urls = [server.url("photos", "/large") for _ in range(30)]
        chosen = options(image_size=16, allow_private=server.allow("photos"))
        tables.extend(part.num_rows for part in fetch(table(urls), chosen))

    fetching = threading.Thread(target=count, daemon=True)
    fetching.start()
    fetching.join(8.0)
    assert sum(tables) == 30
    assert max(tables) <= 1 + 20_000 // len(server.good)


def test_what_breaks_off_a_download_ends_the_call(
    server: FetchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(*unused: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(client.Client, "image", cancelled)
    with pytest.raises(JobError, match="broke off"):
        ask([server.url("broken-off", "/good")], allow_private=server.allow("broken-off"))


def test_robots_txt_is_asked_for_again_after_a_day(
    server: FetchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robots, "DAY", 0.05)
    urls = [server.url("lasting", f"/good?{i}") for i in range(3)]
    ask(urls, requests_per_second=10.0, allow_private=server.allow("lasting"))
    paths = [seen.path for seen in server.log.of("lasting")]
    assert paths == [p for i in range(3) for p in ("/robots.txt", f"/good?{i}")]


def test_robots_txt_is_asked_for_once_a_day(server: FetchServer) -> None:
    for i in range(2):
        ask([server.url("often", f"/good?{i}")], allow_private=server.allow("often"))
    assert [seen.path for seen in server.log.of("often")] == ["/robots.txt", "/good?0", "/good?1"]


def test_connections_are_kept_for_the_next_url_and_cookies_are_not(server: FetchServer) -> None:
    paths = ["/good?1", "/s404", "/good?2", "/hops/1", "/good?3"]
    ask([server.url("kept", path) for path in paths], allow_private=server.allow("kept"))
    assert len({seen.connection for seen in server.log.of("kept")}) == 1
    assert not [seen for seen in server.log.of("kept") if "cookie" in seen.headers]


def test_leaving_early_ends_everything(server: FetchServer) -> None:
    urls = [server.url("left", f"/good?{i}") for i in range(200)]
    urls += [server.url("silent", "/silent")]
    before = threading.active_count()
    allowed = server.allow("left", "silent")
    tables = fetch(table(urls), options(allow_private=allowed, timeout=60.0, deadline=60.0))
    assert next(tables).num_rows > 0
    start = time.monotonic()
    tables.close()
    assert time.monotonic() - start < 3.0
    assert not [t for t in threading.enumerate() if t.name == "fetch"]
    assert threading.active_count() <= before + 1
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        mine = [c for c in server.log.connections if c.host == "left"]
        if all(c.closed < float("inf") for c in mine):
            return
        time.sleep(0.02)
    raise AssertionError("connections were left open")
