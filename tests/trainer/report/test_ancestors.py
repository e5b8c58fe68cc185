from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from schemas.dataset import Dataset, open_dataset
from schemas.errors import InputError
from schemas.storage import storage
from schemas.table_schemas import POOL
from tests.schemas import samples
from trainer.ancestors import ancestors, dataset_of, datasets_of


def test_each_ancestor_is_found_once_as_far_as_it_is_at_hand(data: Path, tmp_path: Path) -> None:
    dataset, why = dataset_of({"location": str(data), "digest": open_dataset(data).manifest.digest})
    assert dataset is not None and why == ""
    found = ancestors(dataset)
    names = [one.name for one in found]
    assert len(set(names)) == len(names) and {"matched", "balance", "records"} <= set(names)
    for one in found:
        assert one.digest == open_dataset(data.parent / one.name).manifest.digest
        assert one.dataset is not None and one.dataset.manifest.digest == one.digest
    shutil.copytree(data, tmp_path / "curated")
    lone = ancestors(open_dataset(tmp_path / "curated"))
    assert [(one.name, one.dataset) for one in lone] == [("matched", None), ("records", None)]


def test_a_parent_that_is_not_beside_its_child_is_found_where_it_was_read(tmp_path: Path) -> None:
    """Another dataset of its name beside the child is not taken for it."""
    parent = samples.committed(storage(tmp_path / "far" / "p"), POOL, samples.pool(20), seed=1)
    samples.committed(storage(tmp_path / "near" / "p"), POOL, samples.pool(20), seed=2)
    samples.committed(
        storage(tmp_path / "near" / "child"),
        POOL,
        samples.pool(10),
        parents=[{"name": "p", "digest": parent.digest}],
        run={"inputs": {"p": str(tmp_path / "far" / "p")}},
    )
    [found] = ancestors(open_dataset(tmp_path / "near" / "child"))
    assert found.dataset is not None and found.digest == parent.digest
    assert found.dataset.storage.url == str(tmp_path / "far" / "p")


def test_a_manifest_sends_nobody_to_another_kind_of_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples.committed(
        storage(tmp_path / "child"),
        POOL,
        samples.pool(10),
        parents=[{"name": "p", "digest": "0" * 64}],
        run={"inputs": {"p": "memory://elsewhere/p"}},
    )
    child = open_dataset(tmp_path / "child")
    asked: list[str] = []

    def refused(place: object) -> Dataset:
        asked.append(str(place))
        raise InputError("not there")

    monkeypatch.setattr("trainer.ancestors.open_dataset", refused)
    assert [one.dataset for one in ancestors(child)] == [None]
    assert asked == [str(tmp_path / "p")]


def test_the_parts_of_a_mixture_are_found_if_all_are_what_they_were(tmp_path: Path) -> None:
    """The digest of a mixture is that which the source of token data gives a run."""
    from trainer.config import load
    from trainer.report.origin import lineage
    from trainer.report.record import Run

    parent = samples.committed(storage(tmp_path / "p"), POOL, samples.pool(20), seed=1)
    parts = [
        samples.committed(
            storage(tmp_path / name),
            POOL,
            samples.pool(rows),
            parents=[{"name": "p", "digest": parent.digest}],
        )
        for name, rows in (("web", 10), ("books", 12))
    ]
    text = json.dumps([one.digest for one in parts]).encode()
    data = {"location": None, "digest": hashlib.sha256(text).hexdigest()}
    mix = [{"path": str(tmp_path / name), "weight": 1} for name in ("web", "books")]
    found, why = datasets_of(data, {"mix": mix})
    assert [one.manifest.digest for one in found] == [one.digest for one in parts] and not why
    words = [f"data.mix={json.dumps(mix)}", f"output={tmp_path / 'run'}"]
    run = Run(
        storage(tmp_path),
        {"data": data},
        load("llama-tiny", words),
        None,
        {},  # type: ignore[arg-type]
    )
    assert [one.name for one in lineage(run).found] == ["web", "books", "p"]
    assert datasets_of(data, {"mix": mix[::-1]})[0] == []
    assert "is another now" in datasets_of(data, {"mix": mix[::-1]})[1]
    gone = [*mix, {"path": str(tmp_path / "gone"), "weight": 1}]
    assert (
        datasets_of(data, {"mix": gone})[0] == [] and "gone" in datasets_of(data, {"mix": gone})[1]
    )
