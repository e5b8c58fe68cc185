"""Verification finds every kind of damage, and nothing in a sound dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.dataset import open_dataset, put_blob
from schemas.errors import InputError
from schemas.ids import id_sum
from schemas.manifest import KEY, Manifest
from schemas.shard_list import write_shard_list
from schemas.storage import Storage, storage
from schemas.verify import verify
from tests.schemas import samples


def flip(root: Storage, key: str, place: int) -> None:
    data = bytearray(root.read_bytes(key))
    data[place] ^= 1
    root.replace(key, bytes(data))


def shard(root: Storage) -> str:
    return open_dataset(root).shards()[1].file


def blob(root: Storage) -> str:
    return root.list(".headrace/blobs")[0]


def edit(root: Storage) -> None:
    body = json.loads(root.read_bytes(KEY))
    body["totals"]["rows"] += 1
    root.replace(KEY, json.dumps(body).encode())


def forge(root: Storage, **changes: object) -> None:
    """Change what the shard list says of its second shard, and seal the head anew."""
    head = Manifest.load(root)
    shards = open_dataset(root).shards()
    fields = {**shards[1].__dict__, **changes}
    shards[1] = type(shards[1])(**fields)
    head.shards = write_shard_list(root, shards)
    head.totals["rows"] = sum(s.rows for s in shards)
    root.replace(KEY, head.sealed().to_json())


DAMAGE: dict[str, tuple[Callable[[Storage], None], str]] = {
    "flipped bit in a page": (lambda r: flip(r, shard(r), 1000), "was changed: checksum found"),
    "flipped bit in a footer": (lambda r: flip(r, shard(r), -20), "was changed: checksum found"),
    "truncated shard": (
        lambda r: r.replace(shard(r), r.read_bytes(shard(r))[:-1]),
        "was changed: checksum found",
    ),
    "missing shard": (lambda r: r.delete(shard(r)), "is missing"),
    "exchanged shards": (
        lambda r: r.replace(shard(r), r.read_bytes(open_dataset(r).shards()[0].file)),
        "was changed: checksum found",
    ),
    "stranger": (lambda r: r.replace("data/new.parquet", b"x"), "is a stranger"),
    "JSON in data": (lambda r: r.replace("data/notes.json", b"{}"), "is a stranger"),
    "changed blob": (lambda r: r.replace(blob(r), b"x"), "(blob 'en') was changed"),
    "missing blob": (lambda r: r.delete(blob(r)), "(blob 'en') is missing"),
    "edited manifest": (edit, "was edited by hand"),
    "changed shard list": (lambda r: flip(r, Manifest.load(r).shards["file"], 50), "has checksum"),
    "missing shard list": (lambda r: r.delete(Manifest.load(r).shards["file"]), "is missing"),
    "forged row count": (lambda r: forge(r, rows=1), "rows in 1 row groups, the shard list says 1"),
    "forged row groups": (lambda r: forge(r, row_groups=9), "row groups, the shard list says"),
    "forged ids": (lambda r: forge(r, id_sum="0" * 32), "its ids add up to"),
    "forged name": (lambda r: forge(r, digest="0" * 64), "is named for another content"),
}


def made(root: Storage, tmp_path: Path) -> Storage:
    source = tmp_path / "blob"
    source.write_bytes(b"automaton")
    samples.committed(
        root, table=samples.pool(200), target_bytes=9_000, blobs={"en": put_blob(root, source)}
    )
    return root


def test_a_sound_dataset_has_no_fault(root: Storage, tmp_path: Path) -> None:
    assert verify(made(root, tmp_path)) == []


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_named(kind: str, tmp_path: Path) -> None:
    root = made(storage(tmp_path / "ds"), tmp_path)
    damage, message = DAMAGE[kind]
    damage(root)
    faults = verify(root)
    assert faults and all(root.url in fault and "\n" not in fault for fault in faults)
    assert any(message in fault for fault in faults), faults


def test_faults_are_listed_together(tmp_path: Path) -> None:
    root = made(storage(tmp_path / "ds"), tmp_path)
    for name in ("stranger", "changed blob", "flipped bit in a page"):
        DAMAGE[name][0](root)
    assert len(verify(root)) == 3


def test_an_absent_or_newer_dataset_is_not_a_finding(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a committed dataset"):
        verify(storage(tmp_path))
    root = made(storage(tmp_path / "ds"), tmp_path)
    body = json.loads(root.read_bytes(KEY))
    root.replace(KEY, json.dumps({**body, "format": 2}).encode())
    with pytest.raises(InputError, match="manifest format 2"):
        verify(root)


def test_forgeries_above_would_pass_without_their_check(tmp_path: Path) -> None:
    """The shard list's sums are those of the rows, so equality in `verify` means something."""
    root = made(storage(tmp_path / "ds"), tmp_path)
    found = open_dataset(root)
    for i, item in enumerate(found.shards()):
        assert int(item.id_sum, 16) == id_sum(found.read_shard(i)["pair_id"])
