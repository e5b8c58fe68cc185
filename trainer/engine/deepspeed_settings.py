"""What a recipe's ``deepspeed:`` block may pass through to DeepSpeed 0.19, and why the rest is refused.

DeepSpeed takes many settings that say what is trained: in which numbers, on which samples, towards which
objective, by how many ranks together. This project states those itself, records them with a run and in its
checkpoints, and would record what is not so. Only what changes how a run goes is passed through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from schemas.command_line import suggest
from schemas.errors import UsageError

_GROUPS = {
    "zero_optimization": """
        allgather_bucket_size allgather_partitions compute_grad_norm contiguous_gradients cpu_offload
        cpu_offload_param cpu_offload_use_pin_memory elastic_checkpoint enable_sanity_checks
        ignore_unused_parameters leaf_module legacy_stage1 load_from_fp32_weights log_trace_cache_warnings
        memory_efficient_linear offload_optimizer offload_param overlap_comm override_module_apply
        parameter_alignment pipeline_loading_checkpoint reduce_bucket_size reduce_scatter
        round_robin_gradients save_muon_momentum_buffer_in_memory stage
        stage3_gather_fp16_weights_on_model_save sub_group_size use_multi_rank_bucket_allreduce
        zero_hpz_partition_size
        allgather_sequential gather_16bit_weights_on_model_save max_live_parameters max_reuse_distance
        model_persistence_threshold module_granularity_threshold param_persistence_threshold
        prefetch_bucket_size use_all_reduce_for_fetch_params
        stage3_allgather_sequential stage3_gather_16bit_weights_on_model_save stage3_max_live_parameters
        stage3_max_reuse_distance stage3_model_persistence_threshold stage3_module_granularity_threshold
        stage3_param_persistence_threshold stage3_prefetch_bucket_size
        stage3_use_all_reduce_for_fetch_params""",
    "bf16": "enabled check_grad_overflow",
    "aio": "block_size intra_op_parallelism overlap_events queue_depth single_submit use_gds",
    "comet": """
        api_key enabled experiment_key experiment_name mode online project samples_log_interval workspace""",
    "comms_logger": "debug enabled prof_all prof_ops verbose",
    "compile": """
        debug_log deepcompile double_buffer free_activation free_activation_threshold keep_all_input_tensors
        keep_int_input_tensors offload_activation offload_activation_pin_memory offload_opt_states
        offload_parameters passes symmetric_memory sync_after_allgather sync_after_reduce
        sync_before_allgather sync_before_reduce""",
    "csv_monitor": "enabled job_name output_path",
    "flops_profiler": """
        detailed enabled module_depth output_file profile_step recompute_fwd_factor top_modules""",
    "tensorboard": "enabled job_name output_path",
    "timers": "throughput",
    "wandb": "enabled group project team",
}
"""Groups of settings that are passed through, and the settings in each."""

PASSED = {name: frozenset(settings.split()) for name, settings in _GROUPS.items()} | {
    name: frozenset[str]()
    for name in (
        *("disable_python_gc", "dump_state", "log_level", "memory_breakdown", "steps_per_print"),
        *("vocabulary_size", "wall_clock_breakdown"),
    )
}
"""What is passed through: a group with its settings, or a value, which has none."""

_NESTED = {
    *("zero_optimization.leaf_module", "zero_optimization.offload_optimizer"),
    *("zero_optimization.offload_param", "timers.throughput"),
}
"""Groups inside of those, whose settings DeepSpeed itself checks at the start."""

_PRECISION = (
    "give precision=bf16 (weights and gradients of a pass in bf16; masters, moments and what is added up "
    "or sent in fp32) or precision=fp32 (all in fp32) instead"
)
_PARALLEL = (
    "tensor, sequence, expert and pipeline parallelism are not supported: ranks share the batch, and zero= "
    "says what else they share. Leave it out; for a model that does not fit give zero=3, more ranks, a "
    "smaller batch.micro or activation checkpointing (model.gradient_checkpointing=true where a model has it)"
)
_REMADE = (
    "it would change what is trained or on which samples beside what the recipe says, which records and "
    "checkpoints of a run could not tell: leave it out"
)
_SAMPLES = "data and batch say which samples a step has, in which order: leave it out"
_MEAN = "a gradient is the mean over ranks, added up in fp32 and not scaled before: leave it out"
_BATCH = "give batch.size and batch.micro, and any number of ranks that divides them, instead"
_ROUNDED = (
    "weights and gradients are not rounded to fewer bits between ranks, for precision= says in which "
    "numbers a run computes: leave it out"
)
_CHECKPOINTS = "give checkpoint.every, checkpoint.keep and what is beside them instead"

REFUSED = {
    "optimizer": "give optimizer.name, optimizer.lr and what is beside them instead",
    "scheduler": "give schedule.name, schedule.warmup and schedule.final instead",
    **dict.fromkeys(("fp16", "amp", "torch_autocast", "bfloat16", "data_types"), _PRECISION),
    "bf16.bf16_master_weights_and_grads": f"masters are fp32 in every precision: {_PRECISION}",
    "bf16.bf16_optimizer_states": f"moments are fp32 in every precision: {_PRECISION}",
    "bf16.immediate_grad_update": f"the engine adds gradients up itself: {_PRECISION}",
    **dict.fromkeys(
        (
            *("tensor_parallel", "sequence_parallel_size", "data_parallel_size", "expert_parallel"),
            *(
                "pipeline",
                "use_data_before_expert_parallelism",
                "seq_parallel_communication_data_type",
            ),
            "compile.autoep_non_moe",
        ),
        _PARALLEL,
    ),
    **dict.fromkeys(
        (
            *("progressive_layer_drop", "compression_training", "quantize_training", "eigenvalue"),
            *("sparse_attention", "sparse_gradients", "weight_quantization", "hybrid_engine"),
            "zero_optimization.zenflow",
        ),
        _REMADE,
    ),
    **dict.fromkeys(
        ("curriculum_learning", "data_efficiency", "random_ltd", "dataloader_drop_last"), _SAMPLES
    ),
    **dict.fromkeys(
        ("gradient_allreduce_op", "gradient_predivide_factor", "prescale_gradients"), _MEAN
    ),
    **dict.fromkeys(("autotuning", "elasticity"), _BATCH),
    **dict.fromkeys(
        (
            *(
                "zero_optimization.zero_quantized_gradients",
                "zero_optimization.zero_quantized_weights",
            ),
            "zero_optimization.zero_quantized_nontrainable_weights",
        ),
        _ROUNDED,
    ),
    **dict.fromkeys(("checkpoint", "datastates", "nebula"), _CHECKPOINTS),
    "activation_checkpointing": (
        "it is for models that call DeepSpeed's own function, and none does: give "
        "model.gradient_checkpointing=true, where the model has it, instead"
    ),
}
"""Settings and groups that are refused, and what to give instead."""


def passed(
    block: Mapping[str, Any], ours: Mapping[str, tuple[Any, str]], stated: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a ``deepspeed:`` block adds, {dotted name: value}.

    ``ours``: {dotted name: (value, the setting of ours that says so)}; equal values of the block are left
    out. ``stated``: what that setting says, where another part of this project does it and DeepSpeed gets
    a different value. UsageError for all that is not passed through.
    """
    found: dict[str, Any] = {}
    for name, value in flat(block):
        if name in ours:
            meant = stated.get(name, ours[name][0])
            if meant != value:
                raise UsageError(
                    f"deepspeed.{name}={value} contradicts {ours[name][1]}, which makes it {meant}: "
                    f"leave deepspeed.{name} out"
                )
            continue
        _check(name, value, [known.partition(".")[0] for known in ours])
        found[name] = value
    return found


def _check(name: str, value: Any, ours: list[str]) -> None:
    parts = name.split(".")
    top = parts[0]
    for length in range(len(parts), 0, -1):
        if why := REFUSED.get(".".join(parts[:length])):
            raise UsageError(f"deepspeed.{name}={value}: {why}")
    if top not in PASSED:
        raise UsageError(
            f"deepspeed.{name}={value}: no setting that is passed through to DeepSpeed."
            f"{suggest(top, {*PASSED, *ours})}"
        )
    known = PASSED[top]
    if len(parts) == 1 and known:
        if not isinstance(value, Mapping):
            raise UsageError(f"deepspeed.{name}={value}: a group of settings, not a value")
    elif len(parts) > 1 and not known:
        raise UsageError(f"deepspeed.{name}={value}: deepspeed.{top} is a value, not a group")
    elif len(parts) > 1 and parts[1] not in known:
        raise UsageError(
            f"deepspeed.{name}={value}: deepspeed.{top} has no such setting that is passed through."
            f"{suggest(parts[1], known)}"
        )
    elif len(parts) > 2 and ".".join(parts[:2]) not in _NESTED:
        raise UsageError(f"deepspeed.{name}={value}: {'.'.join(parts[:2])} is a value, not a group")
    if name == "compile.passes" and {"autosp", "autotp"} & set(_words(value)):
        raise UsageError(f"deepspeed.{name}={value}: {_PARALLEL}")


def _words(value: Any) -> Iterator[str]:
    yield from map(str, value if isinstance(value, list | tuple) else [value])


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of a tree of settings; an empty group is a value."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
