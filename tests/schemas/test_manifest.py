"""The head: canonical, digested, refused when edited, damaged or newer."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import HeadraceError, InputError, IntegrityError
from schemas.manifest import COVERED, KEY, UNCOVERED, Manifest
from schemas.storage import Storage, storage
from schemas.table_schemas import POOL
from tests.schemas import samples


def full() -> Manifest:
    return Manifest(
        schema={"name": "pool", "version": 1},
        totals={"rows": 2, "bytes": 10, "shards": 1},
        counts=samples.balanced(POOL, samples.pool(2)).rows(),
        parents=[{"name": "records", "digest": "aa" * 32}],
        recipe={"name": "metaclip2", "stage": "pool"},
        config={"max_text_bytes": 4096, "nested": {"ü": [1, 2.5, None, True]}},
        seed=7,
        code="c0de",
        libraries={"pyarrow": "25"},
        stage_key="key",
        inputs=[{"path": "/a/b.parquet", "bytes": 5, "checksum": "bb"}],
        stats={"records": 2},
        blobs={"en": {"digest": "cc" * 32, "bytes": 3}},
        warnings=["t = 1"],
        licence=["CC-BY-4.0"],
        shards={"file": ".headrace/shards-dd.parquet", "digest": "dd" * 32},
        run={"host": "h", "workers": 4},
    )


def test_round_trip_is_canonical() -> None:
    head = full().sealed()
    data = head.to_json()
    again = Manifest.from_json(data, "here")
    assert again == head and again.to_json() == data
    assert json.loads(data)["format"] == 1 and data.endswith(b"}\n") and "ü".encode() in data
    shuffled = json.dumps(dict(reversed(json.loads(data).items()))).encode()
    assert Manifest.from_json(shuffled, "here") == head, "key order is not content"


CHANGES: dict[str, Any] = {
    "schema": {"name": "matches", "version": 1},
    "totals": {"rows": 3, "bytes": 10, "shards": 1},
    "counts": [],
    "parents": [{"name": "records", "digest": "ab" * 32}],
    "config": {"max_text_bytes": 4097},
    "seed": 8,
    "hash": "md5",
    "inputs": [{"path": "/a/b.parquet", "bytes": 5, "checksum": "bc"}],
    "stats": {"records": 3},
    "blobs": {},
    "shards": {"file": ".headrace/shards-dd.parquet", "digest": "de" * 32},
    "recipe": {"name": "metaclip2", "stage": "other"},
    "code": "other",
    "libraries": {"pyarrow": "26"},
    "stage_key": "other",
    "warnings": [],
    "licence": [],
    "run": {"host": "h", "workers": 5},
}


def test_every_field_is_listed() -> None:
    assert set(CHANGES) == set(COVERED) | set(UNCOVERED)


@pytest.mark.parametrize("field", CHANGES)
def test_digest_covers_what_it_must_and_nothing_else(field: str) -> None:
    head, other = full(), full()
    setattr(other, field, CHANGES[field])
    changed = head.sealed().digest != other.sealed().digest
    assert changed == (field in COVERED)


def test_paths_and_names_are_not_content() -> None:
    head, other = full(), full()
    other.inputs = [{"path": "s3://elsewhere/b.parquet", "bytes": 5, "checksum": "bb"}]
    other.parents = [{"name": "renamed", "digest": "aa" * 32}]
    other.shards = {"file": "elsewhere", "digest": "dd" * 32}
    assert head.sealed().digest == other.sealed().digest


def test_digest_is_pinned_by_its_definition() -> None:
    """Recomputed here from the documented definition, without the module's helpers."""
    head = full().sealed()

    def canonical(value: Any) -> bytes:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()

    identity = {name: getattr(head, name) for name in COVERED}
    identity["parents"] = [p["digest"] for p in head.parents]
    identity["inputs"] = [[i["bytes"], i["checksum"]] for i in head.inputs]
    identity["shards"] = head.shards["digest"]
    fields = {
        n: hashlib.blake2b(canonical(v), digest_size=16).hexdigest() for n, v in identity.items()
    }
    expected = hashlib.sha256(canonical({"format": 1, "fields": fields})).hexdigest()
    assert head.digest == expected


def edited(**changes: Any) -> bytes:
    body = json.loads(full().sealed().to_json())
    body.update(changes)
    return json.dumps(body).encode()


@pytest.mark.parametrize("field", [f for f in CHANGES if f != "schema"])
def test_hand_edits_are_named(field: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        Manifest.from_json(edited(**{field: CHANGES[field]}), "ds/manifest.json")
    assert "ds/manifest.json was edited by hand or damaged: " in str(caught.value)
    assert f"field {field} does not agree" in str(caught.value)
    assert "restore the original or build the dataset anew" in str(caught.value)


def test_edits_that_mend_the_checks_are_found_by_the_digest() -> None:
    """An editor who recomputes everything but the digest is found all the same."""
    other = full()
    other.seed = 99
    body = json.loads(other.sealed().to_json())
    body["digest"] = full().sealed().digest
    with pytest.raises(IntegrityError, match="the digest does not agree"):
        Manifest.from_json(json.dumps(body).encode(), "m")


@pytest.mark.parametrize("field", ["parents", "inputs"])
def test_edited_paths_and_names_are_found_too(field: str) -> None:
    body = json.loads(full().sealed().to_json())
    body[field][0]["name" if field == "parents" else "path"] = "forged"
    with pytest.raises(IntegrityError, match=f"field {field} does not agree"):
        Manifest.from_json(json.dumps(body).encode(), "m")


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", IntegrityError, "is not valid JSON"),
        (full().sealed().to_json()[:-40], IntegrityError, "is truncated or damaged"),
        (b"\xff\xfe\x00", IntegrityError, "is not valid JSON"),
        (b"[1]", IntegrityError, "holds a list, not an object"),
        (b"null", IntegrityError, "holds a NoneType, not an object"),
        (b"[" * 100_000, IntegrityError, "is not valid JSON"),
        (b"{}", IntegrityError, "has no format number"),
        (edited(format="1"), IntegrityError, "has no format number"),
        (edited(format=2), InputError, "has manifest format 2, this version of Headrace knows up"),
        (edited(format=9, digest=None), InputError, "manifest format 9"),
        (
            edited(schema={"name": "pool", "version": 2}),
            InputError,
            "has schema pool v2, this version of Headrace knows up to v1; upgrade Headrace",
        ),
        (
            edited(schema={"name": "traces", "version": 1}),
            InputError,
            "has schema 'traces' v1, which this version of Headrace does not know; known: records",
        ),
        (edited(schema={"name": "pool"}), IntegrityError, "names no schema and version"),
        (edited(schema=[]), IntegrityError, "names no schema and version"),
        (edited(schema={"name": ["pool"], "version": 1}), IntegrityError, "names no schema"),
        (edited(extra=1), IntegrityError, "fields extra are missing or unknown"),
        (edited(parents=[1]), IntegrityError, "field 'parents'"),
        (edited(shards=7), IntegrityError, "field 'shards'"),
        (edited(checks=[]), IntegrityError, "was edited by hand"),
        (edited(digest=None), IntegrityError, "was edited by hand"),
    ],
)  # fmt: skip
def test_bad_heads_are_refused(data: bytes, error: type[HeadraceError], message: str) -> None:
    with pytest.raises(error) as caught:
        Manifest.from_json(data, "ds/manifest.json")
    assert type(caught.value) is error
    assert message in str(caught.value) and "ds/manifest.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_any_changed_byte_is_found_or_harmless(place: int, value: int) -> None:
    """Flip any byte: either the head reads as it was (white space), or it is refused."""
    good = full().sealed()
    data = bytearray(good.to_json())
    data[place % len(data)] = value
    try:
        found = Manifest.from_json(bytes(data), "m")
    except (IntegrityError, InputError):
        return
    assert found == good


def test_what_json_cannot_hold_is_refused_before_writing() -> None:
    for value in (float("nan"), float("inf"), {1, 2}, b"x"):
        head = full()
        head.stats = {"x": value}
        with pytest.raises(IntegrityError, match="field 'stats'"):
            head.sealed()


def test_no_manifest_is_no_dataset(root: Storage, tmp_path: Path) -> None:
    root.create("data/x.parquet", b"")
    with pytest.raises(InputError, match=r"is not a committed dataset: it has no manifest\.json"):
        Manifest.load(root)
    (tmp_path / "f").write_text("")
    with pytest.raises(InputError, match="is not a committed dataset"):
        Manifest.load(storage(tmp_path / "f"))


def test_load_names_the_file(root: Storage) -> None:
    root.create(KEY, edited(seed=1))
    with pytest.raises(IntegrityError) as caught:
        Manifest.load(root)
    assert str(caught.value).startswith(f"{root.url}/manifest.json was edited")


def test_sealing_leaves_the_original_alone() -> None:
    head = full()
    before = copy.deepcopy(head)
    head.sealed()
    assert head == before
