"""Saved under one ZeRO stage and number of ranks, restored under another: in real processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.storage import storage
from tests.trainer.checkpoints.training import BATCH, job, run
from trainer.engine.checkpoint import read_weights

pytestmark = pytest.mark.slow
STAGES = (0, 1, 2, 3)
PRECISIONS = ("fp32", "bf16")
SAVED_AT, END = 3, 6
NAME = "step-00000003"
LAST = SAVED_AT + 20
Found = dict[tuple[Any, ...], dict[str, Any]]
Plan = dict[tuple[Any, ...], dict[str, Any]]


def _folder(tmp: Path, *key: object) -> str:
    return str(tmp / "-".join(map(str, key)))


def _whole(tmp: Path, ranks: int) -> Plan:
    """("whole", ranks, zero, precision): from 0 to the end, saved on the way."""
    return {
        ("whole", ranks, zero, precision): job(
            zero,
            END,
            precision=precision,
            save=[_folder(tmp, ranks, zero, precision), NAME],
            save_at=SAVED_AT,
        )
        for zero in STAGES
        for precision in PRECISIONS
    }


def _on(tmp: Path, saved: int, ranks: int, shift: int) -> Plan:
    """("on", ranks saved, zero saved, ranks, zero, precision): continued and saved at once."""
    plan: Plan = {}
    for zero in STAGES:
        for precision in PRECISIONS:
            to = (zero + shift) % 4
            key = ("on", saved, zero, ranks, to, precision)
            plan[key] = job(
                to,
                END,
                precision=precision,
                before=zero % 2,
                restore=[_folder(tmp, saved, zero, precision), None],
                save=[_folder(tmp, *key), NAME],
                save_at=SAVED_AT,
            )
    return plan


def _long(tmp: Path, ranks: int, shift: int) -> Plan:
    """("long", ranks, zero saved, optimizer): 20 steps more; 2 ranks begin, others continue."""
    plan: Plan = {}
    for zero in (1, 3):
        for optimizer in ("adamw", "sgd"):
            folder = _folder(tmp, "long", zero, optimizer)
            more = {"save": [folder, NAME], "save_at": SAVED_AT}
            if ranks != 2:
                more = {"restore": [folder, None]}
            key = ("long", ranks, zero, optimizer)
            plan[key] = job((zero + shift) % 4, LAST, optimizer=optimizer, **more)
    return plan


def _others(tmp: Path) -> Plan:
    """("precision", saved) restored in the other one; ("stale", zero) without the refresh."""
    bf16, fp32 = (_folder(tmp, 2, 1, precision) for precision in ("bf16", "fp32"))
    stale = {"break": "no refresh", "restore": [bf16, NAME], "precision": "bf16"}
    return {
        ("precision", "fp32"): job(2, SAVED_AT, precision="bf16", restore=[fp32, NAME]),
        ("precision", "bf16"): job(3, SAVED_AT, precision="fp32", restore=[bf16, NAME]),
        **{("stale", zero): job(zero, END, **stale) for zero in STAGES},
    }


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Found]:
    """All runs, by key: groups of 1, 2, 1 and 4 real processes."""
    tmp = tmp_path_factory.mktemp("matrix")
    plans = (
        (1, _whole(tmp, 1)),
        (2, _whole(tmp, 2) | _on(tmp, 2, 2, 0) | _on(tmp, 1, 2, 1) | _long(tmp, 2, 0)),
        (1, _on(tmp, 1, 1, 0) | _on(tmp, 2, 1, 3) | _long(tmp, 1, 1) | _others(tmp)),
        (4, _long(tmp, 4, 2)),
    )
    done: Found = {}
    for ranks, plan in plans:
        done |= zip(plan, run(tmp, ranks, list(plan.values())), strict=True)
    return tmp, done


def _restored(done: Found) -> list[tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]]:
    found = []
    for key, result in done.items():
        if key[0] == "on":
            assert "error" not in result, (key, result["error"])
            _, ranks, zero, _, _, precision = key
            found.append((key, result, done["whole", ranks, zero, precision]))
    assert len(found) == 32
    return found


def test_what_was_saved_is_what_the_engine_holds_and_the_forward_uses(
    matrix: tuple[Path, Found],
) -> None:
    for key, result, source in _restored(matrix[1]):
        for rank in result["every"]:
            assert rank["restored"] == source["saved"], key
        assert result["facts"]["position"] == SAVED_AT * BATCH


def test_the_same_state_is_the_same_bytes_from_any_stage_and_number_of_ranks(
    matrix: tuple[Path, Found],
) -> None:
    tmp, done = matrix
    for key, *_ in _restored(done):
        heads = [
            json.loads((Path(folder) / NAME / "manifest.json").read_text())
            for folder in (_folder(tmp, key[1], key[2], key[5]), _folder(tmp, *key))
        ]
        assert heads[0]["files"] == heads[1]["files"], key
        assert heads[0]["digest"] == heads[1]["digest"], key


def test_at_the_same_number_of_ranks_a_continued_run_is_the_uninterrupted_one(
    matrix: tuple[Path, Found],
) -> None:
    same = 0
    for key, result, source in _restored(matrix[1]):
        if key[1] == key[3] and key[2] == key[4]:
            same += 1
            assert result["losses"] == source["losses"][SAVED_AT:], key
            assert result["held"] == source["held"], key
    assert same == 16


def test_weights_are_read_without_an_engine(matrix: tuple[Path, Found]) -> None:
    import torch

    tmp, _ = matrix
    weights = read_weights(storage(_folder(tmp, 2, 3, "bf16")), NAME)
    assert weights["head.weight"] is weights["embed.weight"]
    assert set(weights) == {
        *("embed.weight", "norm.weight", "norm.bias", "up.weight", "up.bias", "down.weight"),
        *("frozen.weight", "frozen.bias", "head.weight", "scale", "seen"),
    }
    assert weights["seen"].tolist() == [11, 12, 13, 14, 15]
    assert all(v.dtype == torch.float32 for k, v in weights.items() if k != "seen")
    # bf16 runs keep fp32 masters: some bits are below those of bf16.
    up = weights["up.weight"]
    assert not torch.equal(up, up.bfloat16().float())


def test_without_the_refresh_the_stale_weights_of_the_forward_are_found(
    matrix: tuple[Path, Found],
) -> None:
    for zero in STAGES:
        kind, message = matrix[1]["stale", zero]["error"]
        assert kind == "IntegrityError" and "that the forward uses on rank 0" in message


def test_another_precision_takes_the_masters_as_they_are(matrix: tuple[Path, Found]) -> None:
    done = matrix[1]
    for precision in PRECISIONS:
        saved = done["whole", 2, 1, precision]["saved"]["tensors"]
        restored = done["precision", precision]["restored"]["tensors"]
        for name, found in saved.items():
            for kind in ("masters", "exp_avg", "exp_avg_sq"):
                assert restored[name].get(kind) == found.get(kind), (name, kind)
            trained = "masters" in found
            assert not trained or restored[name]["forward"] != found["forward"]


def test_at_another_number_of_ranks_training_goes_on_as_it_would_have(
    matrix: tuple[Path, Found],
) -> None:
    """20 steps: losses to 1e-5 under AdamW, weights to 1e-5 of a tensor's norm under SGD."""
    import torch

    done = matrix[1]
    for ranks in (1, 4):
        for zero in (1, 3):
            mine, other = (done["long", n, zero, "adamw"]["losses"] for n in (ranks, 2))
            assert len(mine) == 20 and mine == pytest.approx(other[SAVED_AT:], rel=1e-5)
            weights, expected = (done["long", n, zero, "sgd"]["weights"] for n in (ranks, 2))
            for name, value in expected.items():
                want = torch.tensor(value)
                distance = float((torch.tensor(weights[name]) - want).norm())
                assert distance <= 1e-5 * float(want.norm()) + 1e-8, (ranks, zero, name)
