"""The runners a job can go to, what each needs, and its pipeline options. Beam is imported inside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import UsageError

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineRunner

IN_PROCESS = "inprocess"
RUNNERS = (IN_PROCESS, "prism", "portable", "dataflow", "spark", "flink")
_SHIPPING = ("sdk_container_image", "setup_file", "extra_package")
_LOCAL_SCHEMES = ("", "file", "memory")


@dataclass(frozen=True)
class RunnerChoice:
    """Where jobs run. ``workers``: processes of the in-process runner. ``options``: Beam's own flags."""

    name: str = IN_PROCESS
    workers: int = 1
    options: Sequence[str] = field(default_factory=tuple)

    @property
    def remote(self) -> bool:
        """Whether jobs leave this machine and go on without it."""
        return self.name in ("dataflow", "spark", "flink")

    @property
    def describes_only(self) -> bool:
        """Whether the flags ask for a job's description (a template or a dry run), not for the job."""
        flags = (_flag(self.options, "dry_run"), _flag(self.options, "template_location"))
        return self.name == "dataflow" and any(flags)

    def for_one_unit(self) -> RunnerChoice:
        """This choice for a job of one unit: worker processes would only cost their start."""
        return replace(self, workers=1) if self.name == IN_PROCESS else self


def _flag(options: Sequence[str], name: str) -> str | None:
    """Value of ``--name=value`` or ``--name value`` among Beam's flags."""
    for position, option in enumerate(options):
        if option == f"--{name}" and position + 1 < len(options):
            return options[position + 1]
        if option.startswith(f"--{name}="):
            return option.partition("=")[2]
    return None


def _require(choice: RunnerChoice, names: Sequence[str]) -> None:
    missing = [name for name in names if _flag(choice.options, name) is None]
    if missing:
        flags = " ".join(f"--{name}=..." for name in missing)
        raise UsageError(
            f"--runner {choice.name} needs {', '.join('--' + n for n in missing)}: "
            f"put Beam's flags after a bare --, as in `-- {flags}`"
        )


def validate(choice: RunnerChoice, output: str) -> None:
    """Refuse before anything is submitted: unknown runners, missing options, unreachable outputs."""
    if choice.name not in RUNNERS:
        raise UsageError(f"--runner {choice.name}: unknown; choose one of {', '.join(RUNNERS)}")
    if not 1 <= choice.workers <= 1024:
        raise UsageError(f"--workers {choice.workers}: must lie between 1 and 1024")
    if choice.workers > 1 and choice.name != IN_PROCESS:
        raise UsageError(
            f"--workers is for --runner {IN_PROCESS}; give {choice.name} its own flag after --"
        )
    scheme = output.partition("://")[0] if "://" in output else ""
    if choice.name == "dataflow":
        _require(choice, ("project", "region", "temp_location"))
        if not any(_flag(choice.options, name) for name in _SHIPPING):
            raise UsageError(
                "--runner dataflow: its workers need this project installed; give "
                "--sdk_container_image=IMAGE (deploy/worker/Dockerfile builds it) or "
                "--setup_file=PATH after --"
            )
        if not output.startswith("gs://"):
            raise UsageError(
                f"output={output}: Dataflow's workers reach no local disk; use a gs:// path"
            )
    if choice.name in ("spark", "flink"):
        dry = _flag(choice.options, "job_endpoint") or _flag(
            choice.options, f"{choice.name}_job_server_jar"
        )
        if dry is None:
            raise UsageError(
                f"--runner {choice.name} needs a job server: --job_endpoint=HOST:PORT or "
                f"--{choice.name}_job_server_jar=PATH after a bare --"
            )
        if scheme in _LOCAL_SCHEMES and _flag(choice.options, "environment_type") is None:
            raise UsageError(
                f"output={output}: {choice.name}'s workers may be other machines; use s3:// or gs://, "
                "or give --environment_type=LOOPBACK after -- when all runs on this one"
            )
    if choice.name == "portable":
        _require(choice, ("job_endpoint",))
    if choice.name == "prism" and prism_location(choice) is None:
        raise UsageError(
            "--runner prism needs the Prism binary: set HEADRACE_PRISM to its path, or give "
            "--prism_location=PATH after a bare --"
        )


def prism_location(choice: RunnerChoice) -> str | None:
    """Path of the Prism binary: Beam's flag, $HEADRACE_PRISM, or ``prism`` on PATH."""
    return (
        _flag(choice.options, "prism_location")
        or os.environ.get("HEADRACE_PRISM")
        or shutil.which("prism")
    )


def make_runner(
    choice: RunnerChoice, log: Path = Path(os.devnull)
) -> tuple[PipelineRunner, PipelineOptions]:
    """The runner object and its options; worker processes print to ``log``.

    Never ``DirectRunner``: it may download another runner.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    if choice.name == IN_PROCESS:
        from apache_beam.runners.portability.fn_api_runner import fn_runner

        flags = [f"--direct_num_workers={choice.workers}", *choice.options]
        if choice.workers > 1:
            from dataflows.engine.worker_runner import WorkerRunner
            from dataflows.engine.workers import WorkerProcesses

            runner = WorkerRunner(default_environment=WorkerProcesses(log))
            return runner, PipelineOptions(flags)
        return fn_runner.FnApiRunner(), PipelineOptions(flags)
    flags = list(choice.options)
    if choice.name == "prism":
        from apache_beam.runners.portability.prism_runner import PrismRunner

        if _flag(flags, "prism_location") is None:
            flags.append(f"--prism_location={prism_location(choice)}")
        return PrismRunner(), PipelineOptions(flags)
    if choice.name == "dataflow":
        from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

        return DataflowRunner(), PipelineOptions(flags)
    if choice.name == "spark" and _flag(flags, "job_endpoint") is None:
        from apache_beam.runners.portability.spark_runner import SparkRunner

        return SparkRunner(), PipelineOptions(flags)
    if choice.name == "flink" and _flag(flags, "job_endpoint") is None:
        from apache_beam.runners.portability.flink_runner import FlinkRunner

        return FlinkRunner(), PipelineOptions(flags)
    from apache_beam.runners.portability.portable_runner import PortableRunner

    return PortableRunner(), PipelineOptions(flags)
