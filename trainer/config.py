"""Settings of a training run: a recipe (YAML) that names its parts, plus ``key=value`` overrides.

The engine's own settings are here; a model, source or objective brings its ``Settings`` beside its
code. A recipe names them: ``model: {name: metaclip2, size: tiny}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.resources import files
from types import ModuleType
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.command_line import suggest
from schemas.errors import UsageError
from schemas.settings import build, load_file, merge, parse_overrides

PARTS: Mapping[str, Mapping[str, str]] = {
    "model": {"metaclip2": "trainer.models.metaclip2", "decoder": "trainer.models.decoder"},
    "data": {"image_text": "trainer.sources.image_text", "tokens": "trainer.sources.tokens"},
    "objective": {
        "contrastive": "trainer.objectives.contrastive",
        "language": "trainer.objectives.language",
        "distillation": "trainer.objectives.distillation",
    },
}
"""Modules by part and name. Each has ``Settings`` and ``build(settings, config, parts)``."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)


Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(_Strict):
    """AdamW or SGD. No decay on what a model names, on norms and on biases."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(4e-4, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(1e-6, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd")


class Schedule(_Strict):
    """Learning rate over steps: linear warm-up, then the named curve down to ``final`` times lr.

    ``wsd`` (warmup-stable-decay, arXiv:2404.06395) stays at lr and comes down in the last ``decay`` steps.
    """

    name: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    decay: int | None = Field(None, ge=1, description="last steps in which wsd comes down")
    curve: Literal["linear", "sqrt"] = Field(
        "linear", description="of wsd's decay; sqrt is 1 - sqrt(part done)"
    )
    final: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _decays(self) -> Schedule:
        if (self.name == "wsd") != (self.decay is not None):
            raise ValueError("schedule.decay= is for schedule.name=wsd, which needs it")
        return self


class BatchSize(_Strict):
    """Samples of a global batch (one optimizer step) and of one forward pass on one rank."""

    size: int = Field(256, ge=1, description="samples of a global batch, over all ranks")
    tokens: int | None = Field(
        None, ge=1, description="of token data, in place of size: tokens of a global batch"
    )
    micro: int | None = Field(
        None, ge=1, description="samples a forward pass (default: all of a rank)"
    )


class Length(_Strict):
    """How long to train: exactly one of these."""

    steps: int | None = Field(None, ge=1)
    samples: int | None = Field(None, ge=1, description="samples seen")
    tokens: int | None = Field(None, ge=1, description="of token data: tokens seen")
    epochs: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one(self) -> Length:
        given = (self.steps, self.samples, self.tokens, self.epochs)
        if sum(value is not None for value in given) != 1:
            raise ValueError(
                "give exactly one of length.steps=, length.samples=, length.tokens= and "
                "length.epochs="
            )
        return self


class Checkpoints(_Strict):
    """When to save, and what is kept. The last step is always saved, and so is a stopped one.

    A save stops training for a copy to the host's memory; files are written while it goes on.
    """

    path: str | None = Field(
        None, description="folder or URL (s3://, gs://) of them (default: OUTPUT/checkpoints)"
    )
    every: int | None = Field(None, ge=1, description="steps between checkpoints")
    keep: int = Field(2, ge=1, description="newest checkpoints that are kept")
    milestones: int | None = Field(
        None,
        ge=1,
        description="steps between checkpoints that are kept for good, beside the newest",
    )
    wait: bool = Field(
        False, description="train on only when the files are written; needs no memory for the copy"
    )


class Spikes(_Strict):
    """Steps far above those before them: off unless `loss` or `gradient` is given.

    A spike is more than so many deviations above the median of the last ``window`` steps that changed
    the weights; a deviation is 1.4826 times the median absolute one (the standard deviation of a
    normal distribution), at least 1 % of the median. It is not looked for before half the window. As
    OLMo-core's SkipStepOptimizer, which has 6 standard deviations from the mean of 128 steps; medians,
    so that no spike hides the next.
    """

    loss: float | None = Field(None, gt=0, description="deviations of the loss, as in 6")
    gradient: float | None = Field(None, gt=0, description="deviations of the gradient's norm")
    window: int = Field(128, ge=8, le=10_000, description="steps that are looked back on")


class FaultPolicy(_Strict):
    """What is done about a loss or gradient that is not finite, or that is a spike. All ranks decide
    together before the weights change; the guilty samples are written down.

    ``skip`` leaves the step out: no weight, moment or count of the optimizer changes, as OLMo-core
    does. ``rewind`` goes back to the last checkpoint and leaves out the step and up to ``before`` steps
    in front of it, as PaLM did (arXiv:2204.02311, section 5.1: from about 100 steps before a spike,
    without 200 to 500 batches). Samples left out are not read again; the schedule goes on.
    """

    policy: Literal["stop", "skip", "rewind"] = "stop"
    budget: int = Field(10, ge=1, description="faults that are borne within so many steps")
    within: int = Field(1000, ge=1, description="the steps of the budget")
    before: int = Field(100, ge=0, description="of rewind: steps left out in front of the fault")
    spike: Spikes = Field(default_factory=Spikes)


class Branch(_Strict):
    """A checkpoint of another run to begin from: weights, moments and position.

    Model, data, tokenizer, objective, seed, batch and kind of optimizer are that run's; schedule, length
    and the rest are free. ``length`` counts from that run's first step.
    """

    run: str = Field(description="run directory")
    step: int = Field(ge=1, description="step of one of its checkpoints")


class RunConfig(_Strict):
    """Settings of ``trainer launch``."""

    recipe: str
    output: str = Field(description="run directory")
    model: dict[str, Any]
    data: dict[str, Any]
    objective: dict[str, Any]
    tokenizer: str | dict[str, Any] | None = Field(
        None,
        description="a tokenizer.json of `tokenizers`, or train: {name: train, vocabulary: 8192}",
    )
    optimizer: Optimizer = Field(default_factory=Optimizer)
    schedule: Schedule = Field(default_factory=Schedule)
    batch: BatchSize = Field(default_factory=BatchSize)
    length: Length
    precision: Literal["fp32", "bf16"] = "fp32"
    zero: Literal[0, 1, 2, 3] = 0
    compile: bool = Field(
        False, description="the model's forward and backward by torch.compile (stages 0 to 2)"
    )
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    deepspeed: dict[str, Any] = Field(
        default_factory=dict, description="passed through to DeepSpeed"
    )
    loaders: int = Field(0, ge=0, le=64, description="threads that read and decode ahead")
    checkpoint: Checkpoints = Field(default_factory=Checkpoints)
    faults: FaultPolicy = Field(default_factory=FaultPolicy)
    branch: Branch | None = Field(None, description="a checkpoint of another run to begin from")
    log_every: int = Field(10, ge=1, description="steps between lines of metrics")
    evaluate: dict[str, Any] | None = Field(
        None, description="an evaluation and its settings, at the end"
    )
    seed: int = Field(0, ge=0, lt=1 << 63)

    @model_validator(mode="after")
    def _in_samples(self) -> RunConfig:
        """Make ``batch.size`` of ``batch.tokens``: all else counts in samples."""
        for name, given in (("batch", self.batch.tokens), ("length", self.length.tokens)):
            if given is not None and self.sequence_length is None:
                raise ValueError(
                    f"{name}.tokens={given} is for token data, whose data.sequence_length says how "
                    f"many tokens a sample has; give {name}.{'size' if name == 'batch' else 'samples'}="
                )
        tokens, length = self.batch.tokens, self.sequence_length
        if tokens is None or length is None:
            return self
        if tokens % length:
            near = " or ".join(
                str(n * length) for n in (tokens // length, tokens // length + 1) if n
            )
            raise ValueError(
                f"batch.tokens={tokens} is no whole number of sequences of {length} tokens "
                f"(data.sequence_length): give {near}"
            )
        if "size" in self.batch.model_fields_set and self.batch.size != tokens // length:
            raise ValueError(
                f"batch.tokens={tokens} is {tokens // length} sequences of {length} tokens, and "
                f"batch.size={self.batch.size}: give one of the two"
            )
        self.batch = self.batch.model_copy(update={"size": tokens // length})
        return self

    @property
    def sequence_length(self) -> int | None:
        """Tokens of a sample of token data; None for other data."""
        found = self.data.get("sequence_length")
        return found if isinstance(found, int) and found > 0 else None


def part(kind: str, settings: Mapping[str, Any]) -> tuple[ModuleType, BaseModel]:
    """The module that a part names, and its checked settings.

    Raises UsageError for an unknown name or setting.
    """
    known = PARTS[kind]
    name = settings.get("name")
    if name not in known:
        raise UsageError(f"{kind}.name={name}: unknown.{suggest(str(name), known)}")
    module = import_module(known[str(name)])
    rest = {key: value for key, value in settings.items() if key != "name"}
    hint = f"settings in {kind}: name, {', '.join(module.Settings.model_fields)}"
    return module, build(module.Settings, rest, f"{kind} {name}", hint=hint)


def recipes() -> dict[str, str]:
    """{recipe: first line of its comment}."""
    found = {}
    for file in sorted(files("trainer.recipes").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            first = file.read_text(encoding="utf-8").splitlines()[0]
            found[file.name.removesuffix(".yaml")] = first.removeprefix("#").strip()
    return found


def load(recipe: str, words: Sequence[str], file: str | None = None) -> RunConfig:
    """The settings of a recipe with a YAML file and ``key=value`` words on top. UsageError if wrong."""
    known = recipes()
    if recipe not in known:
        raise UsageError(f"{recipe}: unknown recipe.{suggest(recipe, known)}")
    text = files("trainer.recipes").joinpath(f"{recipe}.yaml").read_text(encoding="utf-8")
    tree: dict[str, Any] = yaml.safe_load(text)
    over = merge(load_file(file) if file else {}, parse_overrides(words))
    length = over.get("length")
    if isinstance(length, Mapping):
        tree.pop("length", None)  # the one that is given replaces the recipe's
    batch = over.get("batch")
    if isinstance(batch, Mapping) and "tokens" in batch and isinstance(tree.get("batch"), dict):
        tree["batch"].pop("size", None)
    model = over.get("model")
    if (
        isinstance(model, Mapping)
        and model.get("init_from")
        and isinstance(tree.get("model"), dict)
    ):
        for name in ("size", "context", "dropout"):  # the checkpoint's are taken
            tree["model"].pop(name, None)
    config = build(RunConfig, {**merge(tree, over), "recipe": recipe}, recipe, "trainer plan")
    for kind in PARTS:
        part(kind, getattr(config, kind))
    return config
