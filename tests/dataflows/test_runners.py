"""The same pipeline on every runner that can run here: equal digests, whatever the workers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflows.engine.runners import RunnerChoice, validate
from schemas.dataset import open_dataset
from schemas.errors import UsageError
from tests import support
from tests.dataflows.conftest import Run

STAGES = (
    *("records", "pool", "automata", "matches", "counts"),
    *("sample", "balance", "matched", "curated"),
)


def digests(output: Path) -> dict[str, str]:
    return {name: open_dataset(output / name).manifest.digest for name in STAGES}


@pytest.mark.slow
@pytest.mark.spec("metaclip2", 19)
@pytest.mark.spec("metaclip2", 15)
def test_four_workers_give_the_digests_of_one(
    small_run: Run, baseline: Path, tmp_path: Path
) -> None:
    assert digests(small_run(tmp_path / "out", "--workers", "4")) == digests(baseline)


@pytest.fixture
def prism_server(prism: str, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A Prism job server and a worker pool in another process, as a cluster has them."""
    job, web, pool = (support.free_port() for _ in range(3))
    log = (tmp_path / "server.log").open("wb")
    server = subprocess.Popen(
        [prism, f"--job_port={job}", f"--web_port={web}"], stdout=log, stderr=log
    )
    workers = subprocess.Popen(
        [
            *(sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"),
            f"--service_port={pool}",
        ],
        stdout=log,
        stderr=log,
    )
    time.sleep(3)
    yield job, pool
    for process in (workers, server):
        process.terminate()
        process.wait(20)
    log.close()


@pytest.mark.slow
@pytest.mark.spec("metaclip2", 19)
def test_prism_with_external_workers_gives_the_same_digests(
    small_run: Run, baseline: Path, tmp_path: Path, prism_server: tuple[int, int]
) -> None:
    job, pool = prism_server
    output = small_run(
        tmp_path / "out",
        *("--runner", "portable", "--"),
        f"--job_endpoint=localhost:{job}",
        "--environment_type=EXTERNAL",
        f"--environment_config=localhost:{pool}",
    )
    assert digests(output) == digests(baseline)


CASES = [
    (RunnerChoice("spork"), "/tmp/x", "--runner spork: unknown; choose one of"),
    (RunnerChoice("inprocess", 0), "/tmp/x", "--workers 0: must lie between 1 and 1024"),
    (RunnerChoice("prism", 4), "/tmp/x", "--workers is for --runner inprocess"),
    (RunnerChoice("portable"), "/tmp/x", "needs --job_endpoint"),
    (RunnerChoice("dataflow"), "gs://b/x", "needs --project, --region, --temp_location"),
    (
        RunnerChoice("dataflow", 1, ("--project=p", "--region=r", "--temp_location=gs://b/t")),
        "gs://b/x",
        "--sdk_container_image=IMAGE",
    ),
    (
        RunnerChoice(
            "dataflow",
            1,
            ("--project=p", "--region=r", "--temp_location=gs://b/t", "--setup_file=s.py"),
        ),
        "/tmp/x",
        "Dataflow's workers reach no local disk; use a gs:// path",
    ),
    (
        RunnerChoice("spark"),
        "s3://b/x",
        "needs a job server: --job_endpoint=HOST:PORT or --spark_job",
    ),
    (RunnerChoice("flink"), "s3://b/x", "--flink_job_server_jar=PATH"),
    (
        RunnerChoice("flink", 1, ("--job_endpoint=h:1",)),
        "/tmp/x",
        "workers may be other machines; use s3:// or gs://",
    ),
]


@pytest.mark.parametrize(("choice", "output", "message"), CASES)
def test_missing_options_are_refused_before_anything_is_submitted(
    choice: RunnerChoice, output: str, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        validate(choice, output)
    assert message in str(caught.value)


def test_a_finished_run_submits_no_job_and_opens_no_shard(
    small_run: Run, baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataflows.engine import run
    from schemas import dataset

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a finished stage was touched")

    monkeypatch.setattr(run, "_submit", refuse)
    monkeypatch.setattr(dataset._ShardReader, "__enter__", refuse)
    small_run(baseline)


def test_another_p_is_refused_and_with_replace_only_its_stages_run(
    small_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = small_run(tmp_path / "out")
    before = digests(output)
    with pytest.raises(AssertionError, match="4 == 0"):
        small_run(output, "p=0.1")
    assert "--replace" in capsys.readouterr().err
    assert digests(output) == before
    small_run(output, "p=0.1", "--replace")
    after = digests(output)
    changed = {name for name in STAGES if before[name] != after[name]}
    assert changed == {"balance", "matched", "curated"}
    assert (output / "balance" / ".headrace" / "superseded" / f"{before['balance']}.json").is_file()
