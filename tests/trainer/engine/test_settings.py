"""Sizes, schedule, DeepSpeed's configuration and parameter groups follow from a run's settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from schemas.errors import UsageError
from tests.trainer.engine import tiny, tiny_model, tiny_source
from trainer.config import Schedule, load
from trainer.engine import directory
from trainer.engine.deepspeed import parameter_groups, resolved
from trainer.engine.schedule import learning_rate
from trainer.engine.sizes import sizes


def config_of(**changes: Any) -> Any:
    return tiny.run_config("unused", **changes)


def test_everything_is_derived_from_the_global_batch() -> None:
    of = sizes(config_of(batch={"size": 96, "micro": 8}, length={"samples": 1000}), 4)
    assert (of.per_rank, of.micro, of.micro_batches, of.steps) == (24, 8, 3, 10)
    assert sizes(config_of(batch={"size": 96, "micro": 500}), 4).micro == 24
    table = "\n".join(of.table())
    for number in ("96", "24", "10", "960"):
        assert f" {number}  " in table


def tokens(**changes: Any) -> Any:
    """Settings of a run on sequences of 128 tokens."""
    data = {"name": "tokens", "path": "unused", "sequence_length": 128}
    return config_of(**{"data": data, "length": {"tokens": 1_000_000}, **changes})


def test_a_batch_and_a_length_may_be_given_in_tokens() -> None:
    config = tokens(batch={"tokens": 4096, "micro": 4})
    of = sizes(config, 2)
    assert (of.batch, of.per_rank, of.micro_batches) == (32, 16, 4)
    assert of.steps == 1_000_000 // 4096
    assert "  tokens a step                           4,096  " in "\n".join(of.table())
    again = type(config).model_validate_json(config.model_dump_json())  # as ranks get them
    assert again == config and directory.identity(config)["batch.size"] == 32
    same = tokens(batch={"size": 32, "micro": 4})
    assert directory.config_digest(same) == directory.config_digest(config)


@pytest.mark.parametrize(
    ("changes", "ranks", "said"),
    [
        ({"batch": {"tokens": 4000}}, 1, "batch.tokens=4000 .* of 128 tokens .*: give 3968 or 4096"),
        ({"batch": {"tokens": 100}}, 1, r"batch.tokens=100 .*\(data.sequence_length\): give 128"),
        ({"batch": {"tokens": 4096, "size": 8}}, 1, "4096 is 32 sequences of 128 tokens, and batch.size=8"),
        ({"batch": {"tokens": 4096}}, 3, r"tokens=4096 \(32 of 128 tokens\) .* 3 ranks: give 3840 or 4224"),
        ({"batch": {"tokens": 4096, "micro": 5}}, 2, "give batch.micro=4 or 8, or batch.tokens=3840 or 5120"),
        ({"data": {"name": "tiny"}}, 1, "length.tokens=1000000 is for token data.*; give length.samples="),
        ({"batch": {"tokens": 4096}, "length": {"tokens": 4095}}, 1, r"tokens=4095 \(31 samples\) is less"),
    ],
)  # fmt: skip
def test_tokens_that_do_not_fit_are_refused_with_those_that_do(
    changes: dict[str, Any], ranks: int, said: str
) -> None:
    with pytest.raises((UsageError, ValidationError), match=said):
        sizes(tokens(**changes), ranks)


def test_tokens_given_in_words_replace_a_recipes_batch_in_samples() -> None:
    config = load(
        "llama-tiny", ["data.path=x", "output=y", "batch.tokens=4096", "length.tokens=400000"]
    )
    assert (config.batch.size, sizes(config, 1).steps) == (16, 97)


def test_a_length_in_epochs_is_rounded_down_to_whole_steps() -> None:
    source = tiny_source.TinySource(tiny_source.Settings())
    assert sizes(config_of(length={"epochs": 2.5}), 1, source).steps == 250 // 16


@pytest.mark.parametrize(
    ("changes", "ranks", "said"),
    [
        ({"batch": {"size": 250}}, 4, "batch.size=250 does not split evenly over 4 ranks: give 248 or 252"),
        ({"batch": {"size": 3}}, 4, "batch.size=3 does not split evenly over 4 ranks: give 4"),
        ({"batch": {"size": 96, "micro": 5}}, 4, "divide the 24 samples of a rank .* batch.micro=4 or 6"),
        ({"batch": {"size": 96}, "length": {"samples": 95}}, 1, "length.samples=95 is less than one"),
        ({"batch": {"size": 101}, "length": {"epochs": 1}}, 1, r"epochs=1 \(100 samples\) .*size=100 at"),
        ({"schedule": {"warmup": 6}}, 1, "schedule.warmup=6 is more than the 5 steps"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(
    changes: dict[str, Any], ranks: int, said: str
) -> None:
    source = tiny_source.TinySource(tiny_source.Settings())
    with pytest.raises(UsageError, match=said):
        sizes(config_of(**changes), ranks, source)


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_the_learning_rate_is_that_of_torchs_schedulers(name: Any) -> None:
    steps, warmup, peak, final = 40, 8, 0.3, 0.1
    schedule = Schedule(name=name, warmup=warmup, final=final)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], peak)
    lr = torch.optim.lr_scheduler
    left = steps - warmup
    after: Any = {
        "cosine": lambda: lr.CosineAnnealingLR(optimizer, left, eta_min=peak * final),
        "linear": lambda: lr.LinearLR(optimizer, 1.0, final, left),
        "constant": lambda: lr.ConstantLR(optimizer, 1.0),
    }[name]
    for step in range(warmup):
        assert learning_rate(schedule, peak, step, steps) == pytest.approx(
            peak * (step + 1) / warmup
        )
    scheduler = after()
    for step in range(warmup, steps):
        assert learning_rate(schedule, peak, step, steps) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-6
        )
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(("curve", "theirs"), [("linear", "linear"), ("sqrt", "1-sqrt")])
def test_warmup_stable_decay_is_that_of_transformers(curve: Any, theirs: str) -> None:
    from transformers import get_wsd_schedule

    steps, warmup, decay, final = 40, 5, 12, 0.1
    schedule = Schedule(name="wsd", warmup=warmup, decay=decay, curve=curve, final=final)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.3)
    scheduler = get_wsd_schedule(
        optimizer, warmup, decay, steps, decay_type=theirs, min_lr_ratio=final
    )
    # Theirs begins the warm-up at 0, ours ends it with its last step: alike from the next step on.
    for step in range(steps):
        if step >= warmup:
            assert learning_rate(schedule, 0.3, step, steps) == pytest.approx(
                optimizer.param_groups[0]["lr"], rel=1e-6
            )
        optimizer.step()
        scheduler.step()
    with pytest.raises(ValueError, match=r"schedule\.decay="):
        Schedule(name="wsd")


def test_the_warm_up_may_be_the_whole_run() -> None:
    schedule = Schedule(warmup=5)
    assert learning_rate(schedule, 1.0, 4, 5) == 1.0
    assert math.isfinite(learning_rate(schedule, 1.0, 5, 5))


def test_deepspeed_gets_what_follows_from_the_settings() -> None:
    config = config_of(
        batch={"size": 96, "micro": 8},
        zero=2,
        precision="bf16",
        clip=1.5,
        deepspeed={"zero_optimization": {"overlap_comm": False}, "wall_clock_breakdown": True},
    )
    got = resolved(config, sizes(config, 4))
    assert got["train_batch_size"] == 96
    assert got["train_micro_batch_size_per_gpu"] * got["gradient_accumulation_steps"] * 4 == 96
    assert got["zero_optimization"] == {"stage": 2, "overlap_comm": False}
    assert got["bf16"] == {"enabled": True}
    assert got["data_types"] == {"grad_accum_dtype": "fp32"}
    assert got["gradient_clipping"] == 1.5
    assert got["wall_clock_breakdown"] is True


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"train_batch_size": 64}, "deepspeed.train_batch_size=64 contradicts batch.size=16"),
        (
            {"zero_optimization": {"stage": 3}},
            "deepspeed.zero_optimization.stage=3 contradicts zero=1",
        ),
        ({"bf16": {"enabled": True}}, "deepspeed.bf16.enabled=True contradicts precision=fp32"),
        ({"gradient_clipping": 2}, "deepspeed.gradient_clipping=2 contradicts clip=None"),
        ({"optimizer": {"type": "Adam"}}, "deepspeed.optimizer.type=Adam: give optimizer.name"),
        ({"fp16": {"enabled": True}}, "deepspeed.fp16.enabled=True: give precision="),
        ({"zero_optimization": 3}, "deepspeed.zero_optimization=3: a group of settings"),
    ],
)
def test_a_block_that_contradicts_the_settings_is_refused(block: dict[str, Any], said: str) -> None:
    config = config_of(zero=1, deepspeed=block)
    with pytest.raises(UsageError, match=said):
        resolved(config, sizes(config, 1))
    same = config_of(zero=1, deepspeed={"train_batch_size": 16, "bf16": {"enabled": False}})
    assert resolved(same, sizes(same, 1))["train_batch_size"] == 16


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optimizer.betas=[0.9,1.0]", "optimizer.betas.1=1.0: Input should be less than 1"),
        ("optimizer.lr=.nan", "optimizer.lr=nan: Input should be a finite number"),
        ("length.epochs=.inf", "length.epochs=inf: Input should be a finite number"),
        (f"seed={1 << 63}", f"seed={1 << 63}: Input should be less than"),
        ("model.sise=tiny", "sise: unknown setting of model metaclip2; did you mean size"),
        ("model.foo=1", r"\(settings in model: name, size, init_from, "),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_runs(word: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load("metaclip2-tiny", ["output=o", "data.path=d", word])


def test_gradients_are_not_added_in_bf16() -> None:
    config = config_of(precision="bf16", batch={"size": 16, "micro": 4})
    with pytest.raises(UsageError, match="zero=1"):
        resolved(config, sizes(config, 1))
    assert resolved(config.model_copy(update={"zero": 1}), sizes(config, 1))


def test_decay_spares_vectors_norms_biases_and_what_the_model_names() -> None:
    model = tiny_model.TwoTowers(24, 0.0)
    model.norm2d = torch.nn.LayerNorm((2, 3))
    model.image[0].bias.requires_grad_(False)
    names = {id(p): n for n, p in model.named_parameters()}
    decayed, spared = parameter_groups(model, 0.2)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.2, 0.0)
    assert {names[id(p)] for p in decayed["params"]} == {
        "image.0.weight", "image.4.weight", "text.1.weight",
    }  # fmt: skip
    assert {names[id(p)] for p in spared["params"]} == {
        "image.3.weight", "image.3.bias", "image.4.bias", "words.weight", "logit_scale",
        "norm2d.weight", "norm2d.bias",
    }  # fmt: skip
    model.no_decay = lambda: {"wordz.weight"}
    with pytest.raises(ValueError, match=r"wordz\.weight"):
        parameter_groups(model, 0.2)


def test_a_compiled_model_at_stage_3_is_refused() -> None:
    config = config_of(zero=3, compile=True)
    with pytest.raises(UsageError, match=r"compile=true with zero=3.*give zero=2"):
        resolved(config, sizes(config, 1))
