"""Evaluation `harness`: tasks of EleutherAI's lm-evaluation-harness, from files on this machine.

A task is a YAML file as the harness reads it (its docs: "New Task Guide"), with its data by
``dataset_path: json`` (or csv, parquet, text, arrow) and ``dataset_kwargs: data_files:``; a path there is
relative to the task's file. Nothing is downloaded: a data set that is not on this machine is refused.
The model reads what `trainer export` saves: the same tokenizer, no token added, fp32.

A task's file is a program: its templates and its ``!function`` run with your rights. Give only files
that you trust.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.command_line import suggest
from schemas.errors import HeadraceError, InputError, UsageError

if TYPE_CHECKING:
    from trainer.evaluation.language import LanguageModel

LANGUAGE = True
"""This evaluation is of language models."""

READERS = ("json", "csv", "parquet", "text", "arrow")
"""Values of ``dataset_path`` that name a reader of files; any other must be a folder."""

RESAMPLES = 1000
"""Of the bootstrap by which the harness estimates the error of what is no mean."""

_Z = 1.959964  # of a 95 % interval
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "DISABLE_MULTIPROC": "1"}


class Settings(BaseModel):
    """Settings of ``trainer eval RUN harness tasks=FILE.yaml``."""

    model_config = ConfigDict(extra="forbid")

    tasks: str = Field(
        description="a task's YAML file, several with commas between, or a folder of them"
    )
    records: int | None = Field(
        None, ge=1, description="at most so many of each task, the first (default: all)"
    )
    shots: int | None = Field(
        None, ge=0, description="examples before each question (default: as the task says)"
    )


def evaluate(loaded: LanguageModel, settings: Settings) -> dict[str, Any]:
    """Run the tasks; rows are their names, with the harness's metrics.

    The headline is the first metric of the first task. UsageError without the harness, or for a
    task of data that is not here; InputError for a file that the harness cannot run.
    """
    with _apart() as cache:
        results = run(model(loaded), settings, cache)
    rows: dict[str, dict[str, Any]] = {}
    for task, found in results["results"].items():
        count = (
            float(results["n-samples"][task]["effective"]) if task in results["n-samples"] else 0
        )
        if scores := scores_of(found, count):
            rows[task] = scores
    if not rows:
        raise InputError(f"tasks={settings.tasks}: they have no metric; give one by metric_list:")
    name, first = next(iter(rows.items()))
    metric, score = next(iter(first.items()))
    score = score if isinstance(score, Mapping) else {"mean": score}
    amounts = sorted({column for scores in rows.values() for column in scores if _amount(column)})
    headline = f"{metric} of {name}"
    return {
        "headline": {"metric": headline, **score, "chance": None},
        "amounts": [*amounts, headline] if metric in amounts else amounts,
        "rows": rows,
        "versions": {"lm_eval": _version(), **results.get("versions", {})},
        "interval": f"95 %, of the harness's standard error (a bootstrap of {RESAMPLES} where no mean)",
    }


def model(loaded: LanguageModel) -> Any:
    """The harness's view of a loaded model. UsageError if the harness is not installed."""
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise UsageError(
            f"harness: lm-evaluation-harness is not installed ({error}); "
            "pip install -e '.[lm-eval]'"
        ) from None
    from trainer.evaluation.loading import quiet
    from trainer.export import language_tokenizer, settle

    settle(loaded)
    with quiet():
        return HFLM(
            pretrained=loaded.model,
            tokenizer=language_tokenizer(loaded),
            batch_size=loaded.batch,
            max_length=loaded.context,
            device=str(loaded.model.device),
        )


def run(lm: Any, settings: Settings, cache: str) -> dict[str, Any]:
    """What `lm_eval.simple_evaluate` returns for a harness's model; ``cache``: a folder for its copies
    of the data. Errors as `evaluate`."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    from trainer.evaluation.loading import quiet

    tasks = [read_task(file, cache) for file in files(settings.tasks)]
    with quiet(), _bars(), _explained(settings.tasks):
        found: dict[str, Any] | None = lm_eval.simple_evaluate(
            lm,
            tasks=tasks,
            num_fewshot=settings.shots,
            limit=settings.records,
            bootstrap_iters=RESAMPLES,
            log_samples=False,
            task_manager=TaskManager(include_defaults=False),
        )
    assert found is not None  # None only on ranks but the first
    return found


def files(tasks: str) -> list[Path]:
    """The YAML files of ``tasks=``. InputError for one that is not there, or a folder without any."""
    found: list[Path] = []
    for word in tasks.split(","):
        place = Path(word.strip()).expanduser()
        inside = (
            sorted([*place.glob("*.yaml"), *place.glob("*.yml")]) if place.is_dir() else [place]
        )
        if not inside or not inside[0].is_file():
            raise InputError(
                f"tasks={tasks}: {place} is no YAML file and no folder of them; a name of the "
                "harness's own tasks is not taken, for their data is downloaded"
            )
        found += inside
    return found


def read_task(file: Path, cache: str) -> dict[str, Any]:
    """A task's configuration, its data's paths made absolute. InputError naming file and fault."""
    from lm_eval.tasks._yaml_loader import load_yaml

    with _explained(str(file)):
        config = load_yaml(file)
    if "group" in config or not isinstance(config.get("task"), str):
        raise InputError(f"{file}: it has no `task: NAME`; give files of single tasks")
    path = config.get("dataset_path")
    if "custom_dataset" in config or "class" in config:
        return config
    if path not in READERS:
        place = (file.parent / str(path)).resolve()
        if path is None or not place.exists():
            raise UsageError(
                f"{file}: dataset_path: {path} is not on this machine, and nothing is downloaded: give "
                f"dataset_path: {'|'.join(READERS)} with dataset_kwargs: {{data_files: ...}}"
            )
        config["dataset_path"] = str(place)
    _check_metrics(config, file)
    kwargs = dict(config.get("dataset_kwargs") or {})
    if "data_files" in kwargs:
        kwargs["data_files"] = _absolute(kwargs["data_files"], file)
    elif path in READERS:
        raise InputError(
            f"{file}: dataset_path: {path} needs dataset_kwargs: {{data_files: ...}}, the data's files"
        )
    return {**config, "dataset_kwargs": {"cache_dir": cache, **kwargs}}


def scores_of(found: Mapping[str, Any], count: float) -> dict[str, Any]:
    """Metrics of one task: an estimate where the harness gives a standard error, else a number.

    ``found`` has them by "metric,filter"; the filter ``none`` is not said.
    """
    scores: dict[str, Any] = {}
    for key, value in found.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, str):
            continue
        name = metric if kind == "none" else f"{metric} ({kind})"
        error = found.get(f"{metric}_stderr,{kind}")
        if isinstance(error, int | float):
            half = _Z * float(error)
            scores[name] = {
                "mean": float(value),
                "low": float(value) - half,
                "high": float(value) + half,
                "n": count,
            }
        else:
            scores[name] = float(value)
    return scores


# -- helpers -------------------------------------------------------------------------------


def _amount(column: str) -> bool:
    """Whether a metric of the harness is no share of 1: perplexities, bits, and scores of up to 100."""
    return "perplexity" in column or column.split()[0] in ("bits_per_byte", "bleu", "chrf", "ter")


def _absolute(given: Any, file: Path) -> Any:
    if isinstance(given, Mapping):
        return {name: _absolute(part, file) for name, part in given.items()}
    if isinstance(given, list):
        return [_absolute(part, file) for part in given]
    path = Path(str(given)).expanduser()
    place = path if path.is_absolute() else file.parent.resolve() / path
    if "://" in str(given):
        raise UsageError(f"{file}: data_files: {given}: nothing is downloaded; give a local file")
    if not place.exists() and not any(c in str(given) for c in "*?["):
        raise InputError(f"{file}: data_files: {given}: there is no file {place}")
    return str(place)


def _check_metrics(config: Mapping[str, Any], file: Path) -> None:
    """Refuse a metric that the harness does not have: it would fetch a program of that name."""
    import lm_eval.api.metrics  # noqa: F401 - it registers them
    from lm_eval.api.registry import metric_registry

    for one in config.get("metric_list") or ():
        name = one.get("metric") if isinstance(one, Mapping) else one
        if callable(name):
            continue
        if name not in metric_registry or (isinstance(one, Mapping) and one.get("hf_evaluate")):
            hint = suggest(str(name), [key for key, _ in metric_registry.items()])
            raise UsageError(
                f"{file}: metric {name} is none of the harness's own, and nothing is downloaded.{hint}"
            )


@contextlib.contextmanager
def _apart() -> Iterator[str]:
    """No network, one process, and a folder for the copies of data that `datasets` makes."""
    import datasets.config
    import huggingface_hub.constants

    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(_OFFLINE)
    # They read the variables when they were imported.
    modules: tuple[Any, ...] = (huggingface_hub.constants, datasets.config)
    were = [module.HF_HUB_OFFLINE for module in modules]
    for module in modules:
        module.HF_HUB_OFFLINE = True
    try:
        with tempfile.TemporaryDirectory(prefix="headrace-harness-") as cache:
            yield cache
    finally:
        for module, value in zip(modules, were, strict=True):
            module.HF_HUB_OFFLINE = value
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _bars() -> Iterator[None]:
    """The harness's bars and words go to a terminal or nowhere: logs would fill with them."""
    with contextlib.ExitStack() as stack:
        shown = sys.stderr
        if not sys.stderr.isatty():
            shown = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(shown))
        stack.enter_context(contextlib.redirect_stderr(shown))
        yield


@contextlib.contextmanager
def _explained(tasks: str) -> Iterator[None]:
    """Turn what the harness raises for a task's fault into one line."""
    try:
        yield
    except (HeadraceError, MemoryError):
        raise
    except Exception as error:  # a task's templates and functions may raise anything
        lines = str(error).strip().splitlines() or [""]
        raise InputError(
            f"{tasks}: lm-evaluation-harness cannot run it: {type(error).__name__}: {lines[0]:.300}"
        ) from error


def _version() -> str:
    from importlib.metadata import version

    return version("lm_eval")
