"""What of a ``deepspeed:`` block is passed through, and what is refused in words."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from schemas.errors import UsageError
from tests.trainer.engine import tiny
from tests.trainer.launching.making import pairs, words
from trainer.cli import main
from trainer.config import load
from trainer.engine import deepspeed as engine_of
from trainer.engine.checkpoint_parts import find_parts
from trainer.engine.deepspeed import resolved
from trainer.engine.deepspeed_settings import PASSED, REFUSED, flat
from trainer.engine.run import train
from trainer.engine.sizes import sizes
from trainer.launching.plan import plan
from trainer.protocols import Place

PLACE = Place()


@pytest.fixture(autouse=True)
def parts() -> None:
    tiny.register()


def tree_of(setting: str, value: Any) -> dict[str, Any]:
    *path, leaf = setting.split(".")
    tree = {leaf: value}
    for name in reversed(path):
        tree = {name: tree}
    return tree


def resolve(block: dict[str, Any], **changes: Any) -> dict[str, Any]:
    config = tiny.run_config("unused", **{"zero": 2, **changes}, deepspeed=block)
    return resolved(config, sizes(config, 1))


PARALLEL = "tensor, sequence, expert and pipeline parallelism are not supported: .* give zero=3, more ranks"
FIX = "give precision=bf16 .* or precision=fp32 .* instead"


@pytest.mark.parametrize(
    ("setting", "value", "precision", "why"),
    [
        ("bf16.bf16_master_weights_and_grads", True, "bf16", f"masters are fp32 .*{FIX}"),
        ("bf16.bf16_optimizer_states", True, "bf16", f"moments are fp32 .*{FIX}"),
        ("bf16.immediate_grad_update", True, "bf16", FIX),
        ("bfloat16.enabled", True, "fp32", FIX),
        ("fp16.enabled", True, "bf16", FIX),
        ("fp16.fp16_master_weights_and_grads", True, "bf16", FIX),
        ("amp.enabled", True, "fp32", FIX),
        ("data_types.grad_accum_dtype", "bf16", "fp32", FIX),
        ("data_types.param_dtype", "bf16", "bf16", FIX),
        ("zero_optimization.zero_quantized_gradients", True, "bf16", "not rounded to fewer bits"),
        ("tensor_parallel.autotp_size", 2, "fp32", PARALLEL),
        ("sequence_parallel_size", 2, "fp32", PARALLEL),
        ("data_parallel_size", 2, "fp32", PARALLEL),
        ("expert_parallel.enabled", True, "fp32", PARALLEL),
        ("pipeline.stages", 2, "fp32", PARALLEL),
        ("use_data_before_expert_parallelism", True, "fp32", PARALLEL),
        ("compile.passes", ["z3", "autosp"], "fp32", PARALLEL),
        ("progressive_layer_drop.enabled", True, "fp32", "change what is trained"),
        ("compression_training.layer_reduction.enabled", True, "fp32", "change what is trained"),
        ("quantize_training.enabled", True, "fp32", "change what is trained"),
        ("eigenvalue.enabled", True, "fp32", "change what is trained"),
        ("sparse_attention.mode", "fixed", "fp32", "change what is trained"),
        ("zero_optimization.zenflow.topk_ratio", 0.1, "fp32", "change what is trained"),
        ("curriculum_learning.enabled", True, "fp32", "data and batch say which samples"),
        ("data_efficiency.enabled", True, "fp32", "data and batch say which samples"),
        ("random_ltd.enabled", True, "fp32", "data and batch say which samples"),
        ("dataloader_drop_last", True, "fp32", "data and batch say which samples"),
        ("gradient_allreduce_op", "sum", "fp32", "the mean over ranks"),
        ("elasticity.enabled", True, "fp32", "give batch.size and batch.micro"),
        ("autotuning.enabled", True, "fp32", "give batch.size and batch.micro"),
        ("checkpoint.load_universal", True, "fp32", "give checkpoint.every"),
        ("activation_checkpointing.cpu_checkpointing", True, "fp32", "model.gradient_checkpointing="),
        ("zero_opimization.stage", 2, "fp32", "passed through .* Did you mean 'zero_optimization'"),
        ("zero_optimization.overlap_com", True, "fp32", "such setting .* Did you mean 'overlap_comm'"),
        ("train_batchsize", 2, "fp32", "Did you mean 'train_batch_size'"),
        ("wall_clock_breakdown.enabled", True, "fp32", "is a value, not a group"),
        ("aio.block_size.bytes", 1, "fp32", "aio.block_size is a value, not a group"),
        ("flops_profiler", True, "fp32", "a group of settings, not a value"),
    ],
)  # fmt: skip
def test_what_is_not_passed_through_is_refused_with_what_to_give(
    setting: str, value: Any, precision: str, why: str
) -> None:
    said = f"deepspeed.{setting}={value}: "
    with pytest.raises(UsageError, match=f"^{re.escape(said)}.*{why}"):
        resolve(tree_of(setting, value), precision=precision)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("setting", "value", "ours"),
    [
        ("communication_data_type", "bf16", "contradicts precision={}, which makes it fp32"),
        ("zero_force_ds_cpu_optimizer", True, "contradicts optimizer.name=adamw"),
    ],
)
def test_what_the_precision_and_the_optimizer_make_is_not_replaced(
    precision: str, setting: str, value: Any, ours: str
) -> None:
    with pytest.raises(UsageError, match=ours.format(precision)):
        resolve(tree_of(setting, value), precision=precision)
    resolve({"communication_data_type": "fp32"}, precision=precision)


@pytest.mark.parametrize(("zero", "deepspeeds"), [(0, 0.0), (1, 1.0)])
def test_the_same_clip_in_both_places_is_no_contradiction(zero: int, deepspeeds: float) -> None:
    """At stage 0 in fp32 the engine clips, and DeepSpeed must not."""
    got = resolve({"gradient_clipping": 1.0}, zero=zero, clip=1.0)
    assert got["gradient_clipping"] == deepspeeds
    for given in (0.0, 2.0):
        with pytest.raises(UsageError, match=r"contradicts clip=1.0, which makes it 1.0"):
            resolve({"gradient_clipping": given}, zero=zero, clip=1.0)


def test_what_changes_how_a_run_goes_is_passed_through() -> None:
    block = {
        "zero_optimization": {
            "overlap_comm": False,
            "offload_optimizer": {"device": "cpu", "pin_memory": False},
            "leaf_module": {"names": ["a"]},
        },
        "comms_logger": {"enabled": True},
        "csv_monitor": {"enabled": True, "output_path": "o"},
        "timers": {"throughput": {"synchronized": False}},
        "aio": {"block_size": 1 << 20},
        "compile": {"passes": ["z3"]},
        "wall_clock_breakdown": True,
        "steps_per_print": 7,
    }
    assert dict(flat(block)).items() <= dict(flat(resolve(block))).items()
    assert resolve({"zero_optimization": {}})["zero_optimization"] == {"stage": 2}


def test_the_names_are_deepspeeds() -> None:
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.compile.config import CompileConfig
    from deepspeed.monitor.config import DeepSpeedMonitorConfig
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    groups: dict[str, Any] = {
        "zero_optimization": DeepSpeedZeroConfig,
        "bf16": DeepSpeedBF16Config,
        "comms_logger": CommsLoggerConfig,
        "compile": CompileConfig,
        **{name: of.annotation for name, of in DeepSpeedMonitorConfig.model_fields.items()},
    }
    for group, model in groups.items():
        fields = model.model_fields
        names = {*fields, *(of.alias for of in fields.values() if of.alias)}
        refused = {name.partition(".")[2] for name in REFUSED if name.startswith(f"{group}.")}
        assert PASSED[group] | refused == names and not PASSED[group] & refused, group


@pytest.mark.parametrize("setting", ["tensor_parallel.autotp_size=2", "sequence_parallel_size=2"])
def test_parallelism_is_listed_by_a_plan_and_ends_a_launch_in_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], setting: str
) -> None:
    given = words(pairs(tmp_path / "pairs"), tmp_path / "run", 1, "zero=2", f"deepspeed.{setting}")
    (why,) = plan(load(given[0], given[1:]), 2)["refused"]
    assert re.search(f"^deepspeed.{setting}: {PARALLEL}", why)
    for more in (["--dry-run"], []):
        assert main(["launch", *given, *more]) == 2
        said = capfd.readouterr().err
        assert why in said and "Traceback" not in said and "fault of this program" not in said


def test_masters_in_bf16_are_not_saved_as_fp32() -> None:
    engine = SimpleNamespace(optimizer=object(), zero_optimization_stage=lambda: 0)
    weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    with pytest.raises(
        UsageError, match="the master of w is bfloat16, and checkpoints hold float32"
    ):
        find_parts(engine, {"w": weight})
    assert find_parts(engine, {"w": torch.nn.Parameter(torch.zeros(3))})


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_a_run_whose_masters_deepspeed_makes_bf16_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zero: int
) -> None:
    """As if a version of DeepSpeed had another name for the setting, which nothing refuses."""

    def made(*given: Any) -> dict[str, Any]:
        got = resolved(*given)
        got["bf16"] |= {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}
        got["data_types"] = {"grad_accum_dtype": "bf16"}
        return got

    monkeypatch.setattr(engine_of, "resolved", made)
    config = tiny.run_config(tmp_path, zero=zero, precision="bf16", length={"steps": 1})
    with pytest.raises(UsageError, match="is bfloat16, and checkpoints hold float32"):
        train(config, PLACE)


def test_moments_in_bf16_are_not_saved_as_fp32() -> None:
    from trainer.engine.checkpoint_state import EngineState

    model = torch.nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.state[model.weight] = {"exp_avg": torch.zeros(1, 2, dtype=torch.bfloat16)}
    engine = SimpleNamespace(module=model, optimizer=optimizer, zero_optimization_stage=lambda: 0)
    with pytest.raises(UsageError, match="the moment exp_avg of weight is bfloat16"):
        EngineState(engine).moments()


@pytest.mark.parametrize(
    "block",
    [
        {"zero_optimization": {"offload_optimizer": {"device": "cpu", "ratio": 0.5}}},
        {"log_level": "loud"},
    ],
)
def test_deepspeeds_own_refusals_are_words(tmp_path: Path, block: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^deepspeed: .*: correct it or leave it out$"):
        train(tiny.run_config(tmp_path, zero=2, deepspeed=block), PLACE)
