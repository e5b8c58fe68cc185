"""The submission scripts: what they print is a command that this version takes, flag by flag."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

INPUT = "input=gs://b/two words/*.parquet"
DATAFLOW = (
    *("dataflow/submit.sh", "--project", "project-1", "--region", "europe-west4"),
    *("--bucket", "gs://bucket/", "--image", "registry/headrace:1"),
)
SPARK = ("spark/submit.sh", "--master", "spark://host:7077", "--jar", "server.jar")
FLINK = ("flink/submit.sh", "--master", "host:8081", "--jar", "server.jar")
SUBMISSIONS = {
    "dataflow": DATAFLOW,
    "dataflow-private": (*DATAFLOW, "--service-account", "a@b.example", "--subnetwork", "net"),
    "dataflow-sized": (*DATAFLOW, "--machine-type", "n2-highmem-8", "--max-workers", "7"),
    "spark": (*SPARK, "--image", "registry/headrace:1", "--processes", "4"),
    "spark-pool": (*SPARK, "--pool", "localhost:50000"),
    "flink": (*FLINK, "--image", "registry/headrace:1"),
    "flink-1.20": (*FLINK, "--image", "registry/headrace:1", "--flink-version", "1.20"),
}


def run(script: str, *argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "deploy" / script), *argv]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def printed(name: str) -> list[str]:
    """The words of the command that a submission prints."""
    recipe = ("metaclip2", INPUT, "metadata=builtin", "p=0.06", "output=gs://b/out")
    done = run(*SUBMISSIONS[name], "--dry-run", *recipe)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    words = shlex.split(line)
    assert words[:3] == ["dataflows", "run", "metaclip2"]
    return words


def beam_parser() -> argparse.ArgumentParser:
    """All options that the pinned Beam declares; no abbreviations, no unknown ones."""
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(allow_abbrev=False, conflict_handler="resolve")
    todo = list(PipelineOptions.__subclasses__())
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__module__.startswith("apache_beam.") and "_add_argparse_args" in vars(kind):
            kind._add_argparse_args(parser)
    return parser


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_every_flag_exists_in_the_pinned_beam(name: str) -> None:
    flags = printed(name)[printed(name).index("--") + 1 :]
    assert flags
    assert all(flag.startswith("--") for flag in flags)
    _, unknown = beam_parser().parse_known_args(flags)
    assert unknown == []


def test_an_invented_flag_would_be_found() -> None:
    _, unknown = beam_parser().parse_known_args(["--spark_master=x", "--project=y"])
    assert unknown == ["--spark_master=x"]


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_our_own_checks_accept_the_command(name: str) -> None:
    from dataflows.engine.runners import RunnerChoice, make_runner, validate

    words = printed(name)
    flags = words[words.index("--") + 1 :]
    runner = words[words.index("--runner") + 1]
    choice = RunnerChoice(runner, 1, tuple(flags))
    validate(choice, "gs://b/out")
    made, options = make_runner(choice)
    assert type(made).__name__.lower() == f"{runner}runner"
    assert options.get_all_options(drop_default=True)


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_words_reach_the_command_whole(name: str) -> None:
    assert INPUT in printed(name)


def test_spark_and_flink_masters_reach_the_job_server() -> None:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
    from apache_beam.runners.portability.spark_runner import SparkJarJobServer

    for name, server in (("spark", SparkJarJobServer), ("flink", FlinkJarJobServer)):
        flags = printed(name)[printed(name).index("--") + 1 :]
        arguments = server(PipelineOptions(flags)).java_arguments(1, 2, 3, "artifacts")
        master = SUBMISSIONS[name][SUBMISSIONS[name].index("--master") + 1]
        assert (
            arguments[arguments.index(f"--{name}-master{'-url' * (name == 'spark')}") + 1] == master
        )


@pytest.mark.parametrize("script", sorted(p.parent.name for p in ROOT.glob("deploy/*/*.sh")))
def test_help_and_mistakes(script: str) -> None:
    (path,) = (ROOT / "deploy" / script).glob("*.sh")
    name = f"{script}/{path.name}"
    shown = run(name, "--help")
    assert shown.returncode == 0
    assert f"deploy/{name}" in shown.stdout
    empty = run(name)
    assert empty.returncode == 2
    assert re.fullmatch(rf"{path.name}: --\w+ is missing: .* \(see --help\)\n", empty.stderr)
    wrong = run(name, "--no-such-option")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "unknown option --no-such-option" in wrong.stderr


def test_scripts_work_from_another_folder(tmp_path: Path) -> None:
    done = run(*DATAFLOW, "--dry-run", "metaclip2", "output=gs://b/o", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run("worker/build.sh", "--image", "a/b:1", "--dry-run", cwd=tmp_path).returncode == 0


def test_a_bucket_without_a_scheme_is_refused() -> None:
    done = run(*DATAFLOW[:-4], "--bucket", "bucket", "--image", "i", "metaclip2")
    assert done.returncode == 2
    assert "must start with gs://" in done.stderr


def test_docker_flags_exist() -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("docker: no Docker client to check the flags with")
    text = run("worker/build.sh", "--image", "a/b:1", "--push", "--dry-run").stdout
    for line in text.splitlines():
        words = shlex.split(line)
        if words[0] == "docker":
            helped = subprocess.run(
                [docker, words[1], "--help"], capture_output=True, text=True, check=True
            ).stdout
            for flag in (word for word in words if word.startswith("--")):
                assert re.search(rf"{flag}\b", helped), f"docker {words[1]} {flag}"
