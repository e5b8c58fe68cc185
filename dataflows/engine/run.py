"""Runs the due stages of a graph: one job and one commit each, in order."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shlex
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from dataflows.engine import plan as planning
from dataflows.engine.finish import commit_stage, refuse_second
from dataflows.engine.progress import Progress
from dataflows.engine.runners import IN_PROCESS, RunnerChoice, make_runner, validate
from dataflows.engine.stage import Graph, JobContext, Stage
from schemas import errors
from schemas.commit import is_tidy, tidy
from schemas.dataset import open_dataset
from schemas.errors import ConflictError, HeadraceError, JobError
from schemas.manifest import Manifest
from schemas.redact import without_secrets
from schemas.storage import Storage, storage
from schemas.storage_local import translated

if TYPE_CHECKING:
    from dataflows.transforms.sink import Sink


def say(line: str) -> None:
    """A line for the person who waits."""
    print(line, file=sys.stderr, flush=True)


class Described(Exception):
    """A job was checked or described, as its flags asked, and did not run."""


@dataclass(frozen=True)
class RunSettings:
    """How a graph is run; none of it enters a key or a digest."""

    output: str
    runner: RunnerChoice = field(default_factory=RunnerChoice)
    replace: bool = False
    command: str = ""


def command_line() -> str:
    """The command as typed, without what could be a secret: Beam's flags, user names and passwords
    in URLs, and their query strings."""
    words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
    cut = words.index("--") if "--" in words else len(words)
    more = " -- ..." if cut < len(words) else ""
    return " ".join(shlex.quote(without_secrets(word)) for word in words[:cut]) + more


def run_directory(output: str) -> Path:
    """Where a run keeps its log and progress: beside a local output, else in this user's cache."""
    if "://" in output and not output.startswith("file://"):
        name = hashlib.blake2b(output.encode(), digest_size=8).hexdigest()
        return Path.home() / ".cache" / "headrace" / "runs" / name
    return Path(output.removeprefix("file://")) / ".run"


def run_graph(graph: Graph, settings: RunSettings) -> dict[str, Manifest]:
    """Bring every stage of ``graph`` to a commit; returns the manifests by stage name.

    A finished stage costs one read of its manifest. A stage that would replace a dataset of another
    configuration is refused unless ``settings.replace``.
    """
    validate(settings.runner, settings.output)
    output = storage(settings.output)
    lines = planning.plan(graph, output)
    _refuse_replacing(lines, settings)
    digests: dict[str, str | None] = dict(planning.external_digests(graph))
    done: dict[str, Manifest] = {}
    for number, stage in enumerate(graph.stages, 1):
        line = planning.plan_stage(stage, output, digests)
        label = f"[{number}/{len(graph.stages)}] {stage.name}"
        if line.state == planning.FINISHED and line.head is not None:
            manifest = line.head
            place = output.at(stage.name)
            if not is_tidy(place, manifest):
                tidy(place, manifest)
            say(f"{label}: finished, {manifest.totals['rows']:,} rows, {manifest.digest[:12]}")
        else:
            _refuse_replacing([line], settings)
            started = time.monotonic()
            say(f"{label}: {line.why}")
            try:
                manifest = _run_stage(graph, stage, line, digests, settings)
            except Described:
                say(f"{label}: job checked and described, not run; later stages need its result")
                return done
            seconds = time.monotonic() - started
            say(
                f"{label}: {manifest.totals['rows']:,} rows in {_count(manifest.totals['shards'], 'shard')}, "
                f"{manifest.digest[:12]}, {seconds:.1f} s"
            )
            _say_warnings([w for w in manifest.warnings if w not in stage.warnings])
        digests[stage.name] = manifest.digest
        done[stage.name] = manifest
    return done


_SHOWN_WARNINGS = 3


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _say_warnings(warnings: list[str]) -> None:
    """What a stage found odd about this very input; the first few, for the report has them all."""
    for warning in warnings[:_SHOWN_WARNINGS]:
        say(f"  warning: {warning}")
    if len(warnings) > _SHOWN_WARNINGS:
        more = len(warnings) - _SHOWN_WARNINGS
        say(f"  and {_count(more, 'warning')} more: `dataflows report` shows them all")


def _refuse_replacing(lines: list[planning.PlanLine], settings: RunSettings) -> None:
    first = None if settings.replace else planning.superseded(lines)
    if first is not None:
        assert first.head is not None
        place = storage(settings.output).path(first.stage.name)
        raise ConflictError(
            f"{place} holds dataset {first.head.digest[:12]} made otherwise: {first.why}. Choose "
            "another output=, or add --replace to supersede it (its manifest is kept); `dataflows plan` "
            "shows what would run"
        )


def _inputs(graph: Graph, stage: Stage, output: Storage) -> dict[str, Storage]:
    return {
        name: storage(graph.externals[name]) if name in graph.externals else output.at(name)
        for name in stage.inputs
    }


def _run_stage(
    graph: Graph,
    stage: Stage,
    line: planning.PlanLine,
    digests: Mapping[str, str | None],
    settings: RunSettings,
) -> Manifest:
    from dataflows.transforms.sink import JOB, Sink  # Beam is loaded only from here on

    assert line.key is not None
    output = storage(settings.output)
    run_dir = run_directory(settings.output)
    here = not settings.runner.remote  # workers elsewhere cannot write to this machine
    progress_dir = run_dir / "progress" / line.key if here else None
    context = JobContext(
        stage=stage,
        key=line.key,
        storage=output.at(stage.name),
        dead_letters=output.at(f"{stage.name}.dead_letters"),
        inputs={n: open_dataset(s) for n, s in _inputs(graph, stage, output).items()},
        progress_dir=str(progress_dir) if progress_dir else None,
        workers=settings.runner.workers if settings.runner.name == IN_PROCESS else None,
    )
    sink = Sink(
        context.storage,
        context.dead_letters,
        stage.schema,
        line.key,
        progress_dir=context.progress_dir,
    )
    started = datetime.now(UTC)
    result = sink.finished(JOB)
    if result is None:
        try:
            with Progress(stage.name, progress_dir):
                _submit(context, sink, settings, run_dir)
            result = sink.finished(JOB)
            if result is None:
                raise JobError(
                    f"{stage.name}: the job ended without a result; run the same command again"
                )
        except HeadraceError:
            # Another run that commits first clears away what both worked with.
            if (head := _committed_meanwhile(context)) is not None:
                return head
            refuse_second(context, None, line.head.digest if line.head is not None else None)
            raise
    run = {
        "runner": settings.runner.name,
        "workers": settings.runner.workers,
        "host": socket.gethostname(),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 3),
        "command": settings.command,
        "runtime": dict(stage.runtime),
        "inputs": {n: without_secrets(s.url) for n, s in _inputs(graph, stage, output).items()},
    }
    return commit_stage(
        graph, context, result, {n: str(digests[n]) for n in stage.inputs}, line, run
    )


def _committed_meanwhile(context: JobContext) -> Manifest | None:
    """The head, if a run with the same key committed it."""
    head = planning.head_of(context.storage)
    return head if head is not None and head.stage_key == context.key else None


def _submit(context: JobContext, sink: Sink, settings: RunSettings, run_dir: Path) -> None:
    """Build the pipeline of the stage's job and run it to its end."""
    import apache_beam as beam

    from dataflows.transforms.units import RecordResult

    module, _, function = context.stage.job.partition(":")
    job = getattr(import_module(module), function)(context, sink)
    choice = settings.runner.for_one_unit() if context.stage.single else settings.runner
    with _quiet(run_dir) as log:
        runner, options = make_runner(choice, log)
        pipeline = beam.Pipeline(runner=runner, options=options)
        _ = pipeline | context.stage.name >> job | "Result" >> RecordResult(sink)
        try:
            running = None
            running = pipeline.run()
            if choice.describes_only:
                raise Described(context.stage.name)
            running.wait_until_finish()
        except Described:
            raise
        except KeyboardInterrupt:
            _end_workers()
            raise
        except Exception as error:
            died = _end_workers()
            if _interrupted(error):
                raise KeyboardInterrupt from None
            found = _as_user_error(context.stage.name, error, log)
            if died is not None and isinstance(found, JobError):
                raise JobError(f"{context.stage.name}: {died}. The log is {log}") from None
            raise found from None


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C met a step in this very process, whose errors Beam raises as its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _end_workers() -> str | None:
    """No worker process outlives its job; returns how one died, if one did."""
    module = sys.modules.get("dataflows.engine.workers")
    return module.end_all() if module else None


class _quiet:  # noqa: N801  reads as a statement
    """Beam's log goes to a file of the run, so the screen shows progress and messages for people."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / "job.log"

    def __enter__(self) -> Path:
        with translated("create", str(self.path.parent)):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(self.path, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root = logging.getLogger()
        self._before, root.handlers = root.handlers, [self._handler]
        self._hook, threading.excepthook = threading.excepthook, self._thread_failed
        return self.path

    def __exit__(self, *exc: object) -> None:
        threading.excepthook = self._hook
        logging.getLogger().handlers = self._before
        self._handler.close()

    @staticmethod
    def _thread_failed(args: threading.ExceptHookArgs) -> None:
        """Threads that lose their worker say so here; the job's own error tells the user."""
        name = args.thread.name if args.thread else "a thread"
        error = args.exc_value
        logging.warning("%s ended with an error", name, exc_info=error if error else None)


_MARKED = re.compile(r"schemas\.errors\.(\w+): (.*?)(?: \[while running|\n|$)", re.DOTALL)


def _as_user_error(stage: str, error: Exception, log: Path) -> HeadraceError:
    """The user's error that a worker raised, or a JobError that names the log."""
    text = "".join(traceback.format_exception(error))
    with log.open("a", encoding="utf-8") as file:
        file.write(text)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HeadraceError):
            message = str(cause).partition(" [while running")[0]
            return type(cause)(message)
        cause = cause.__cause__ or cause.__context__
    found = _MARKED.findall(text)
    if found and isinstance(getattr(errors, found[-1][0], None), type):
        return getattr(errors, found[-1][0])(found[-1][1].strip())
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
    return JobError(
        f"{stage}: the job failed: {last}. The log is {log}. "
        "Finished units are kept: the same command continues"
    )
