"""`trainer launch`: what is refused before anything starts, what a dry run shows, and real runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.launching.killed_runs import last_step
from tests.trainer.launching.making import TRAINER, pairs, words
from trainer.cli import main
from trainer.launching.compilers import check_compilers

HOSTFILE = "hosts"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / HOSTFILE).write_text("a slots=2\nb slots=2\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], here: Path, *arguments: str) -> str:
    """The error of a launch that starts nothing."""
    code = main(["launch", *words(here / "pairs", here / "run", 4), *arguments])
    assert code == 2
    assert not (here / "run").exists()
    return capsys.readouterr().err.removeprefix("trainer: error: ").strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ranks", "3"], "batch.size=8 does not split evenly over 3 ranks: give 6 or 9"),
        (["--ranks", "0"], "--ranks 0: give 1 or more"),
        (["--hostfile", HOSTFILE, "--ranks", "8"], "--ranks 8: the hosts have 4 slots (a 2, b 2)"),
        (["--hostfile", HOSTFILE, "--slurm"], "--hostfile and --slurm: give one of them"),
        (["--hostfile", HOSTFILE, "--hosts", "2"], "--hosts 2: the hostfile says which hosts"),
        (["--rsh", "ssh"], "--rsh needs --hostfile"),
        (["--slurm"], "--slurm: this is not inside a Slurm allocation"),
        (["--hosts", "2"], "--hosts, --host-index and --master go together"),
        (
            ["--hosts", "2", "--host-index", "2", "--master", "a"],
            "--host-index 2: with --hosts 2 give 0 to 1",
        ),
        (
            ["--hosts", "2", "--host-index", "0", "--master", "a", "--ranks", "3"],
            "--ranks 3 over --hosts 2: give a multiple of 2",
        ),
        (
            ["--hosts", "2", "--host-index", "0", "--master", "a:x"],
            "--master a:x: give HOST:PORT, as in trainer-0:29500",
        ),
        (["--port", "70000"], "--port 70000: give 1 to 65535"),
        (["--max-restarts", "1"], "--max-restarts needs several ranks"),
        (["--max-restarts", "-1"], "--max-restarts -1: give 0 or more"),
        (["batch.micro=3"], "batch.micro=3 does not divide the 8 samples of a rank"),
        (["--rank", "2"], "unknown argument '--rank'. Did you mean '--ranks'?"),
    ],
)
def test_what_cannot_run_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refused(capsys, here, *arguments)


def test_an_output_on_an_object_store_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [w for w in words(here / "pairs", here, 4) if not w.startswith("output=")]
    assert main(["launch", *given, "output=s3://bucket/run", "--ranks", "2"]) == 2
    assert "output=s3://bucket/run: a run directory is a local path" in capsys.readouterr().err


def test_ranks_of_another_launcher(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):  # a run in this process sets them
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = refused(capsys, here, "--ranks", "2")
    assert "RANK=2 is set, so another launcher started this process" in message
    assert "LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not" in refused(capsys, here)
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    assert "RANK=2 with WORLD_SIZE=2: ranks count from 0 to 1" in refused(capsys, here)
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert "WORLD_SIZE='two': must be a whole number" in refused(capsys, here)


def test_a_dry_run_shows_what_would_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = words(here / "pairs", here / "run", 4, "zero=2", "batch.micro=2")
    assert main(["launch", *given, "--hostfile", HOSTFILE, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert not (here / "run").exists()
    table = {line[2:33].strip(): line[33:48].strip() for line in shown.splitlines()[1:8]}
    assert table["samples a rank"] == "2" and table["samples seen"] == "32"
    begin = shown.index("{")
    resolved, end = json.JSONDecoder().raw_decode(shown[begin:])
    assert resolved["zero_optimization"]["stage"] == 2
    assert resolved["train_batch_size"] == 8
    assert resolved["train_micro_batch_size_per_gpu"] == 2
    rest = shown[begin + end :]
    for rank, host in enumerate("aabb"):
        assert f"\n{host}: RANK={rank} WORLD_SIZE=4 LOCAL_RANK={rank % 2} " in rest
    assert f" b {sys.executable} -m trainer.launching.agent" in rest


def test_what_must_be_compiled_is_checked_before(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = {"PATH": str(tmp_path / "empty")}
    check_compilers({}, nothing)
    check_compilers({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}, nothing)
    monkeypatch.setenv("PATH", nothing["PATH"])
    setting = "deepspeed.zero_optimization.offload_optimizer.device=nvme"
    message = refused(capsys, here, "zero=3", setting)
    assert message.startswith(f"{setting}: DeepSpeed compiles its async_io operation")
    assert "apt install g++" in message and "apt install ninja-build" in message
    (tmp_path / "empty").mkdir()
    for tool in ("c++", "ninja"):
        (tmp_path / "empty" / tool).symlink_to("/bin/true")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    message = refused(capsys, here, "zero=3", setting)
    assert "libaio-dev" in message and "g++" not in message and "ninja" not in message
    message = refused(capsys, here, "zero=3", "deepspeed.compile.deepcompile=true")
    assert "its dc operation" in message and "nvcc" in message


def test_operations_are_deepspeeds() -> None:
    from deepspeed.ops.op_builder import all_ops

    from trainer.launching.compilers import COMPILED

    known = set(all_ops.ALL_OPS) | {path.stem for path in _builders()}
    assert {need.op for need in COMPILED} <= known


def _builders() -> list[Path]:
    import deepspeed.ops.op_builder as folder

    return list(Path(folder.__file__).parent.glob("**/*.py"))


@pytest.mark.slow
def test_one_rank_and_two_without_a_compiler(tmp_path: Path) -> None:
    """A PATH on which nothing is found: no c++, no ninja, no shell."""
    bare = tmp_path / "bare"
    bare.mkdir()
    environ = {**os.environ, "PATH": str(bare), "TORCH_EXTENSIONS_DIR": str(tmp_path / "built")}
    environ.pop("CXX", None)
    assert shutil.which("c++", path=environ["PATH"]) is None
    data = pairs(tmp_path / "pairs")
    for ranks, more in ((1, ()), (2, ("zero=1",))):
        output = tmp_path / f"run-{ranks}"
        done = subprocess.run(
            [*TRAINER, "launch", *words(data, output, 2, *more), "--ranks", str(ranks)],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert last_step(output) == 2
    assert not (tmp_path / "built").exists(), "nothing was built"
