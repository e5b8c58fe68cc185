"""URLs into units of whole hosts, and units into shards: properties, against plain Python."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from curation.fetch import host_of
from dataflows.cli import main
from dataflows.engine.stage import Unit
from dataflows.pipelines.fetch import fetched, packing
from dataflows.pipelines.fetch.answers import account
from dataflows.pipelines.fetch.fetched import GROUP_BYTES, groups
from dataflows.pipelines.fetch.packing import MOST, hosts_of, once, pack
from dataflows.transforms.sink import Sink
from schemas.commit import commit
from schemas.dataset import open_dataset
from schemas.ids import image_ids_of_urls
from schemas.ledger import Ledger
from schemas.manifest import Manifest
from schemas.step import Outcome
from schemas.storage import storage
from schemas.table_schemas import FETCH_UNITS, FETCHED
from schemas.writer import ShardWriter
from tests.dataflows.test_fetch import CONTACT, UNIT, ingested
from tests.dataflows.test_fetch import rows as rows_of
from tests.fetch_server import FetchServer

MIB = 2**20


def urls_of(seed: int, hosts: int, largest: int) -> list[str]:
    draw = random.Random(seed)
    return [
        f"https://h{host}.example/{number}"
        for host in range(hosts)
        for number in range(int(largest ** draw.random()))
    ]


def table_of(urls: list[str]) -> pa.Table:
    table = pa.table({"image_id": image_ids_of_urls(pa.array(urls)), "url": urls})
    return table.append_column("host", hosts_of(table["url"]))


def packed(urls: list[str], most: int) -> list[dict]:
    return FETCH_UNITS.validate(pack("00000003", once(table_of(urls)), most)).to_pylist()


@pytest.mark.parametrize("seed", range(5))
def test_units_hold_whole_hosts_up_to_their_size_and_split_only_larger_ones(seed: int) -> None:
    most = 50
    urls = urls_of(seed, hosts=60, largest=400)
    rows = packed(urls, most)
    assert sorted(row["url"] for row in rows) == sorted(urls)
    assert all(row["host"] == urlsplit(row["url"]).hostname for row in rows)
    sizes = Counter(row["unit"] for row in rows)
    assert max(sizes.values()) <= most
    units = defaultdict(set)
    for row in rows:
        units[row["host"]].add((row["unit"], row["share"]))
    hosts = Counter(row["host"] for row in rows)
    split = {host for host, count in hosts.items() if count > most}
    assert split  # the pool has some
    for host, count in hosts.items():
        parts = -(-count // most)
        assert len(units[host]) == parts
        assert {share for _, share in units[host]} == {parts}
        if parts > 1:
            of_host = [sizes[unit] for unit, _ in units[host]]
            assert sum(of_host) == count  # nobody else's URLs in these units
            assert max(of_host) - min(of_host) <= 1
    # As few as greedy packing gives: two neighbours of whole hosts never fit into one.
    whole = [size for unit, size in sorted(sizes.items()) if unit not in _of(units, split)]
    assert sum(whole) > most
    assert len(whole) <= 2 * -(-sum(whole) // most) + len(split) + 1


def _of(units: dict[str, set[tuple[str, int]]], hosts: set[str]) -> set[str]:
    return {unit for host in hosts for unit, _ in units[host]}


def test_units_do_not_depend_on_the_order_of_the_rows() -> None:
    urls = urls_of(9, hosts=40, largest=300)
    mixed = random.Random(1).sample(urls, len(urls))
    assert packed(urls, 40) == packed(mixed, 40)


def test_rows_of_a_unit_are_sorted_and_an_image_stands_once_with_its_first_url() -> None:
    table = table_of(["https://b.example/1", "https://a.example/1", "https://a.example/2"])
    twice = table.set_column(0, "image_id", table["image_id"].take([0, 0, 2]))
    assert once(twice).num_rows == 2
    assert "https://a.example/1" in once(twice)["url"].to_pylist()
    rows = packed(urls_of(2, 30, 200), 40)
    keys = [(row["unit"], row["image_id"]) for row in rows]
    assert keys == sorted(keys)


def test_hosts_are_those_whose_limits_the_client_keeps() -> None:
    urls = [
        "https://Example.ORG/a.png",
        "http://example.org:8080/b?x=http://other.org/",
        "http://user:secret@example.org/c",
        "http://[2001:db8::1]:81/d",
        "https://bücher.example/e",
        "https://xn--bcher-kva.example./f",
        "http://example.org#fragment",
        "https://www.example.org/g",
        "not a url",
        "http://",
    ]
    found = hosts_of(pa.chunked_array([urls])).to_pylist()
    for url, host in zip(urls, found, strict=True):
        if host_of(url):  # what the client refuses may share any unit
            assert host == host_of(url)
    assert found[4] == found[5] == "xn--bcher-kva.example"
    assert found[7:] == ["example.org", "", ""]


def test_a_host_of_one_url_too_many_is_split_evenly() -> None:
    rows = packed([f"https://one.example/{n}" for n in range(MOST + 1)], MOST)
    assert Counter(row["unit"] for row in rows) == {
        "00000003-000000": MOST // 2 + 1,
        "00000003-000001": MOST // 2,
    }


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_make_shards_of_128_to_512_mib(seed: int) -> None:
    draw = random.Random(seed)
    units = [(f"{n:06d}", draw.randint(0, 90 * MIB)) for n in range(200)]
    doubled = [*units, *draw.sample(units, 20)]
    draw.shuffle(doubled)
    found = groups(doubled)
    assert [name for names in found for name in names] == [name for name, _ in units]
    size = dict(units)
    sizes = [sum(size[name] for name in names) for names in found]
    assert all(128 * MIB <= total <= 512 * MIB for total in sizes)
    assert min(sizes[:-1]) >= GROUP_BYTES


def test_a_group_goes_by_its_members() -> None:
    """Of two runs that put other units together, neither takes the other's shard for its own."""

    def names(*units: tuple[str, int]) -> list[str]:
        elements = [json.dumps(unit).encode() for unit in units]
        found = [Unit.from_bytes(group) for group in fetched._Plan().process(("", elements))]
        return [group.name for group in found]

    half = GROUP_BYTES // 2
    assert names(("a", half), ("b", half), ("c", half)) == names(
        ("c", half), ("b", half), ("a", half)
    )
    assert len(names(*((f"{n:03d}", half) for n in range(40)))) == 20
    many = names(*((f"{n:03d}", half) for n in range(40)))
    assert many == sorted(many)
    assert names(("a", half), ("b", half), ("c", half)) != names(("a", half), ("b", half))


def test_few_bytes_are_one_shard_and_no_unit_none() -> None:
    assert groups([("b", 10), ("a", 0)]) == [["a", "b"]]
    assert groups([]) == []


def test_a_host_too_large_for_one_worker_is_packed_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [f"https://large.example/{n}" for n in range(150)]
    urls += [f"https://h{n % 9}.example/{n}" for n in range(40)]
    records = ingested(urls, tmp_path)
    monkeypatch.setattr(packing, "LARGE", 40)
    asked: list[tuple[str, int]] = []

    def refuse(rows: pa.Table, options: dict, share: int, report: object) -> Iterator[Outcome]:
        asked.extend((host, share) for host in rows["host"].to_pylist())
        nothing = pa.nulls(rows.num_rows)
        for name in (*FETCHED.arrow.names[3:], "error", "http_status", "attempts"):
            rows = rows.append_column(name, nothing)
        yield account(rows.append_column("reason", pa.array(["fetch_dns"] * rows.num_rows)))

    monkeypatch.setattr(fetched, "ask", refuse)
    words = [f"input={records}", f"output={tmp_path / 'out'}", CONTACT, f"unit={UNIT}"]
    assert main(["run", "fetch", *words]) == 0
    # The image that is there twice, far apart, counts twice here.
    assert rows_of(tmp_path / "out" / "hosts") == [{"host": "large.example", "urls": 151}]
    units = rows_of(tmp_path / "out" / "units")
    assert Counter(row["url"] for row in units) == dict.fromkeys(urls, 1)
    assert max(Counter(row["unit"] for row in units).values()) <= UNIT
    large = [row for row in units if row["host"] == "large.example"]
    assert len({row["unit"].rpartition("-")[0] for row in large}) == 4  # parts
    # All are fetched in one lane, wherever they were packed.
    (lane,) = [
        lane
        for lane in fetched._Listed(fetched.Ref.of(open_dataset(tmp_path / "out" / "units")), 1)()
        if len(lane.args["units"]) > 1
    ]
    assert {name for name, _ in lane.args["units"]} == {row["unit"] for row in large}
    (share,) = {row["share"] for row in large}
    real = len({row["unit"] for row in large})
    assert real <= share <= real + 4
    assert {row["share"] for row in units if row["host"] != "large.example"} == {1}
    # One process fetches one unit after the other: none shares its host's rate with another.
    assert set(asked) == {(row["host"], 1) for row in units}


@pytest.mark.parametrize("at_once", [1, 2, 3, 16])
def test_the_units_of_a_split_host_never_run_beside_more_than_its_connections(
    at_once: int, tmp_path: Path
) -> None:
    urls = [f"https://split{host}.example/{n}" for host in range(3) for n in range(50)]
    urls += [f"https://h{n}.example/" for n in range(30)]
    rows = FETCH_UNITS.validate(pack("00000003", once(table_of(urls)), 10))
    place = storage(tmp_path / "units")
    with ShardWriter(place, FETCH_UNITS) as writer:
        writer.write(rows)
        shards = writer.close()
    ledger = Ledger()
    ledger.add("image", "created", "derived", rows.num_rows)
    ledger.add("image", "out", "", rows.num_rows)
    commit(place, Manifest({"name": "fetch_units", "version": 1}, counts=ledger.rows()), shards)
    dataset = open_dataset(place)
    lanes = list(fetched._Listed(fetched.Ref.of(dataset), at_once)())
    hosts = defaultdict(set)
    for row in rows.to_pylist():
        hosts[row["unit"]].add(row["host"])
    seen: list[str] = []
    of_host: Counter[str] = Counter()
    for lane in lanes:
        names = [name for name, _ in lane.args["units"]]
        seen += names
        assert names == sorted(names)
        for name, parts in lane.args["units"]:
            taken = [dataset.take(s, range(at, at + n), ["unit"]) for s, at, n in parts]
            assert pa.concat_tables(taken)["unit"].unique().to_pylist() == [name]
        if lane.args["share"] > 1 or len(names) > 1:
            (host,) = set().union(*(hosts[name] for name in names))
            assert host.startswith("split")
            of_host[host] += 1
            assert lane.args["share"] == min(at_once, 5)
    assert sorted(seen) == sorted(hosts)  # each unit in exactly one lane
    assert of_host == dict.fromkeys(("split0.example", "split1.example", "split2.example"),
                                    min(at_once, 5))  # fmt: skip


def test_lanes_follow_from_the_workers_and_the_connections_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataflows.engine.stage import JobContext
    from dataflows.pipelines.fetch.recipe import Config, graph
    from schemas.errors import UsageError

    given = {"input": "in", "output": "out", "contact": "curator@example.org"}
    monkeypatch.setattr(fetched.Ref, "of", lambda dataset: dataset)
    place = storage(tmp_path)

    def lanes(workers: int | None, **more: int) -> tuple[int, int]:
        stage = graph(Config(**given, **more)).stage("fetched")
        context = JobContext(stage, "k", place, place, {"units": None}, workers=workers)
        options = fetched.fetched(context, Sink(place, place, "fetched", "k"))._options
        return options["units_at_once"], min(options["connections"], options["units_at_once"])

    assert lanes(4, connections=2) == (4, 2)
    assert lanes(2, connections=8) == (2, 2)
    assert lanes(None, connections=3, units_at_once=100) == (100, 3)
    with pytest.raises(UsageError, match="units_at_once="):
        lanes(None)


@pytest.mark.slow
def test_workers_side_by_side_keep_to_a_split_hosts_connections_and_rate(tmp_path: Path) -> None:
    """Measured at the server: three workers, one host of six units and two connections."""
    with FetchServer() as server:
        urls = [server.url("split", f"/paced/{n}") for n in range(6 * UNIT)]
        records = ingested(urls, tmp_path)
        words = [f"input={records}", f"output={tmp_path / 'out'}", CONTACT, f"unit={UNIT}"]
        words += [f"allow_private={server.allow('split')[0]}", "connections=2"]
        words += ["requests_per_second=40", "--workers", "3"]
        assert main(["run", "fetch", *words]) == 0
        assert len(rows_of(tmp_path / "out" / "fetched", "url")) == len(urls)
        assert server.log.most_at_once("split") == 2
        starts = [seen.start for seen in server.log.of("split")]
        for first, last in itertools.pairwise(starts[::10]):
            assert last - first >= 0.8 * 10 / 40
