"""URLs into units of whole hosts, and units into shards: properties, against plain Python."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from curation.fetch import host_of
from dataflows.pipelines.fetch.fetched import GROUP_BYTES, groups
from dataflows.pipelines.fetch.packing import MOST, hosts_of, once, pack
from schemas.ids import image_ids_of_urls
from schemas.table_schemas import FETCH_UNITS

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
        "not a url",
        "http://",
    ]
    found = hosts_of(pa.chunked_array([urls])).to_pylist()
    for url, host in zip(urls, found, strict=True):
        if host_of(url):  # what the client refuses may share any unit
            assert host == host_of(url)
    assert found[4] == found[5] == "xn--bcher-kva.example"
    assert found[7:] == ["", ""]


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


def test_few_bytes_are_one_shard_and_no_unit_none() -> None:
    assert groups([("b", 10), ("a", 0)]) == [["a", "b"]]
    assert groups([]) == []
