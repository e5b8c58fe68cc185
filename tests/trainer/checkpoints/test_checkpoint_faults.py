"""A full disk, killed saves, damaged files, other models: the last good checkpoint stays usable."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import boto3
import pytest

from schemas.errors import HeadraceError, InputError, IntegrityError
from schemas.storage import storage
from tests.schemas import servers
from tests.trainer.checkpoints.training import job, run
from trainer.engine.checkpoint import latest, prune, read_weights

pytestmark = pytest.mark.slow
THIRD, FIFTH = "step-00000003", "step-00000005"
Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    tmp = tmp_path_factory.mktemp("faults")
    good, cut, other, again = (str(tmp / name) for name in ("good", "cut", "other", "again"))
    killed = Path(other) / "step-00000009" / ".headrace" / "tmp"
    killed.mkdir(parents=True)
    (killed / "x.tmp").write_bytes(b"half")
    (killed.parents[1] / "masters-00000-0123456789abcdef.safetensors").write_bytes(b"half")
    at = {"restore": [good, THIRD]}
    # The rank without a fault is the one that would wait for the other for ever.
    two = {
        "good": job(2, 3, precision="bf16", save=[good, THIRD]),
        "full": job(2, 5, precision="bf16", **at, save=[good, FIFTH], **{"break": "full disk"}),
        "after full": job(1, 5, precision="bf16", restore=[good, None], save=[other, FIFTH]),
        "to be cut": job(3, 3, save=[cut, THIRD]),
        "cut": job(3, 4, restore=[cut, None], truncate=[f"{cut}/{THIRD}", "exp_avg_sq-*"]),
        "other model": job(1, 4, wide=12, **at),
        "saved again": job(3, 3, precision="bf16", **at, save=[good, THIRD]),
        "other state": job(3, 4, precision="bf16", **at, save=[good, THIRD]),
        "no such": job(0, 4, restore=[good, "step-00000004"]),
    }
    results = dict(zip(two, run(tmp, 2, list(two.values())), strict=True))
    store = f"s3://{servers.BUCKET}/run/checkpoints"
    one = {
        "killed": job(1, 3, optimizer="sgd", save=[again, THIRD], kill=again),
        "to the store": job(2, 5, precision="bf16", **at, save=[store, FIFTH]),
        "from the store": job(3, 5, precision="bf16", restore=[store, None]),
    }
    with servers.moto() as address, servers.variables(address):
        results |= dict(zip(one, run(tmp, 1, list(one.values())), strict=True))
        # Not through fsspec: this process may hold a client of another test's server.
        client = boto3.client("s3", endpoint_url=address["AWS_ENDPOINT_URL"])
        listed = client.list_objects_v2(Bucket=servers.BUCKET, Prefix="run/checkpoints/")
        results["keys"] = {"all": [found["Key"] for found in listed["Contents"]]}
    return tmp, results


def _error(results: Results, name: str) -> tuple[str, str]:
    """The one error that all ranks ended with."""
    for rank in results[name]["every"]:
        assert rank["error"] == results[name]["error"]
    kind, message = results[name]["error"]
    return kind, message


def test_a_full_disk_ends_all_ranks_and_leaves_the_last_checkpoint(
    ran: tuple[Path, Results],
) -> None:
    tmp, results = ran
    kind, message = _error(results, "full")
    assert kind == "StorageError" and "the disk is full: free space" in message
    assert sorted(os.listdir(tmp / "good")) == [".headrace", "latest", THIRD]
    saved, restored = results["good"]["saved"], results["after full"]["restored"]
    assert restored == saved


def test_what_a_killed_save_left_is_gone_after_the_next(ran: tuple[Path, Results]) -> None:
    assert sorted(os.listdir(ran[0] / "other")) == [".headrace", "latest", FIFTH]


def test_a_truncated_file_is_refused_on_all_ranks(ran: tuple[Path, Results]) -> None:
    kind, message = _error(ran[1], "cut")
    assert kind == "IntegrityError"
    assert "exp_avg_sq-00000-" in message and "bytes, the manifest says" in message


def test_another_model_is_refused_with_the_first_parameter_that_differs(
    ran: tuple[Path, Results],
) -> None:
    kind, message = _error(ran[1], "other model")
    assert kind == "UsageError"
    assert "parameter scale" not in message  # the same in both
    assert "parameter embed.weight is [13, 11] there and [13, 12] in this run" in message


def test_the_same_state_may_be_saved_again_and_another_may_not(ran: tuple[Path, Results]) -> None:
    tmp, results = ran
    assert "error" not in results["saved again"]
    kind, message = _error(results, "other state")
    assert kind == "ConflictError" and "a checkpoint of another state" in message
    files = json.loads((tmp / "good" / THIRD / "manifest.json").read_text())["files"]
    assert sorted(os.listdir(tmp / "good" / THIRD)) == sorted(
        ["manifest.json", *(item["file"] for item in files)]
    )


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(
    ran: tuple[Path, Results],
) -> None:
    kind, message = _error(ran[1], "no such")
    assert kind == "InputError" and message.endswith(f"checkpoints here: {THIRD}")


def test_a_save_killed_before_any_operation_leaves_the_old_or_the_new_checkpoint(
    ran: tuple[Path, Results],
) -> None:
    kills = ran[1]["killed"]["kills"]
    assert len(kills) > 25
    found = [kill["latest"] for kill in kills]
    assert set(found) == {THIRD, "step-00000009"} and found == sorted(found)
    for kill in kills:
        assert kill["readable"] == 11
        kept = {key.split("/")[0] for key in kill["left"]}
        assert {"latest", THIRD, "step-00000007"} <= kept
        for name in kept & {"step-00000007", "step-00000009"}:
            assert f"{name}/manifest.json" in kill["left"], kill
        # Temporary files of a process that lives, as this one does, are nobody's to delete.
        left = [key for key in kill["left"] if not key.startswith(".headrace/")]
        assert not [key for key in left if ".tmp" in key], kill


def test_an_object_store_holds_checkpoints_like_a_disk(ran: tuple[Path, Results]) -> None:
    tmp, results = ran
    assert results["from the store"]["restored"] == results["to the store"]["saved"]
    assert results["from the store"]["facts"]["step"] == 5
    names = os.listdir(tmp / "other" / FIFTH)
    assert len([name for name in names if name.startswith("masters")]) == 2
    assert len(results["keys"]["all"]) == len(names) + 1  # and latest


# -- files, without an engine -----------------------------------------------------------------


@pytest.fixture
def copied(ran: tuple[Path, Results], tmp_path: Path) -> Path:
    """Two checkpoints, steps 3 and 5."""
    shutil.copytree(ran[0] / "other", tmp_path / "c")
    shutil.copytree(ran[0] / "good" / THIRD, tmp_path / "c" / THIRD)
    return tmp_path / "c"


def test_without_the_newest_a_run_continues_from_the_one_before(copied: Path) -> None:
    at = storage(copied)
    assert latest(at) == FIFTH
    shutil.rmtree(copied / FIFTH)
    assert latest(at) == THIRD
    (copied / "latest").unlink()
    assert latest(at) == THIRD
    assert latest(storage(copied.parent / "none")) is None


def test_pruning_keeps_the_newest_and_the_one_in_use(copied: Path) -> None:
    (copied / "latest").write_text(f"{THIRD}\n")
    shutil.copytree(copied / FIFTH, copied / "step-00000006")
    prune(storage(copied), 1)
    left = sorted(name for name in os.listdir(copied) if name.startswith("step"))
    assert left == [THIRD, "step-00000006"]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (lambda at: _flip(next(at.glob("masters*"))), IntegrityError, "has SHA-256"),
        (lambda at: os.truncate(next(at.glob("masters*")), 100), IntegrityError, "has 100 bytes"),
        (lambda at: next(at.glob("masters*")).unlink(), IntegrityError, "is missing"),
        (lambda at: os.truncate(at / "manifest.json", 500), IntegrityError, "is no manifest"),
        (lambda at: (at / "manifest.json").write_text("[1]"), IntegrityError, "is no manifest"),
        (lambda at: _edit(at, '"step": 3', '"step": 4'), IntegrityError, "was edited or damaged"),
        (lambda at: _edit(at, '"format": 1', '"format": 2'), InputError, "upgrade Headrace"),
        (lambda at: _edit(at, '"tied"', '"tyed"'), IntegrityError, "lacks fields"),
        (lambda at: (at / "manifest.json").unlink(), InputError, f"checkpoints here: {FIFTH}"),
    ],
)
def test_damage_is_named(copied: Path, damage: Any, error: type[HeadraceError], says: str) -> None:
    damage(copied / THIRD)
    with pytest.raises(error, match=says) as caught:
        read_weights(storage(copied), THIRD)
    assert str(copied / THIRD) in str(caught.value)


def _edit(at: Path, old: str, new: str) -> None:
    text = (at / "manifest.json").read_text()
    assert old in text
    (at / "manifest.json").write_text(text.replace(old, new, 1))
