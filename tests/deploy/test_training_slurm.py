"""Slurm: what is submitted has options that `sbatch` and `srun` know, and words that we know."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from schemas.errors import UsageError
from tests.deploy.test_scripts import run
from tests.support import ROOT, require
from trainer.cli import main
from trainer.launching import slurm
from trainer.launching.remote import shell_command

EVERY = (
    *("--hosts", "2", "--ranks", "16", "--gpus-per-host", "8", "--time", "24:00:00"),
    *("--partition", "gpu", "--account", "lab", "--qos", "high", "--name", "clip"),
    *("--chdir", "/shared/x", "--max-restarts", "3"),
)
WORDS = ("metaclip2-tiny", "data.path=/shared/two words", "output=/shared/run")
SBATCH = ROOT / "trainer" / "launching" / "sbatch.txt"


def submitted(*options: str) -> list[str]:
    done = run("slurm/submit.sh", *options, "--dry-run", *WORDS)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


def complaint(program: str, options: list[str], folder: Path) -> str:
    """What a program's own option parser says against options; its usage ends the parsing."""
    require("slurm")
    conf = folder / "slurm.conf"  # without one it looks in the network for a cluster
    conf.write_text("ClusterName=x\nSlurmctldHost=localhost\n")
    done = subprocess.run(
        [program, *options, "--usage"],
        env={**os.environ, "SLURM_CONF": str(conf)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == done.stdout.startswith(f"Usage: {program}")
    return done.stderr


def names(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def test_sbatch_takes_every_option(tmp_path: Path) -> None:
    words = submitted(*EVERY)
    options = words[1 : words.index(str(SBATCH))]
    assert len(names(options)) == 8
    assert complaint("sbatch", options, tmp_path) == ""
    directives = re.findall(r"^#SBATCH (\S+)$", SBATCH.read_text(), re.M)
    assert len(directives) == 7
    assert complaint("sbatch", directives, tmp_path) == ""
    assert "unrecognized option" in complaint("sbatch", ["--gpu-per-node=8"], tmp_path)


def test_srun_takes_every_option_of_a_step(tmp_path: Path) -> None:
    words = shell_command(slurm.SRUN, "node7", ["python"])
    assert (words[0], words[-1]) == ("srun", "python")
    assert "--nodelist=node7" in words
    assert complaint("srun", words[1:-1], tmp_path) == ""
    assert "unrecognized option" in complaint("srun", ["--cpu-bindings=none"], tmp_path)


def test_words_reach_the_trainers_parser_whole(tmp_path: Path) -> None:
    """The batch file run by a shell in which `trainer` prints its arguments."""
    words = submitted(*EVERY)
    arguments = words[words.index(str(SBATCH)) + 1 :]
    (tmp_path / "trainer").write_text('#!/bin/sh\nfor w in "$@"; do echo "$w"; done\n')
    (tmp_path / "trainer").chmod(0o755)
    shown = subprocess.run(
        ["bash", str(SBATCH), *arguments],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert shown == ["launch", *WORDS, "--ranks", "16", "--max-restarts", "3", "--slurm"]


def test_the_printed_batch_file_asks_for_the_hosts_and_runs_the_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, "length.steps=9", "schedule.warmup=1", "batch.size=32"]
    arguments = ["--slurm", "--hosts", "2", "--ranks", "16", "--dry-run"]
    assert main(["launch", *words, *arguments]) == 0
    _, _, text = capsys.readouterr().out.partition("batch file:\n")
    assert text.startswith("#!/bin/bash\n")
    assert "\n#SBATCH --nodes=2\n" in text
    command = shlex.split(text.splitlines()[-1])
    assert command == ["exec", "trainer", "launch", *words, "--ranks", "16", "--slurm"]
    assert set(SBATCH.read_text().splitlines()[:-1]) < set(text.splitlines())


def test_hosts_of_an_allocation(tmp_path: Path) -> None:
    """`scontrol` is a stand-in that unfolds the list of names: the real one asks a cluster."""
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "node1\nnode2" # $3\n')
    (tmp_path / "scontrol").chmod(0o755)
    given = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "PATH": f"{tmp_path}:/bin"}
    found = slurm.allocated_hosts
    assert found(None, given) == {"node1": 1, "node2": 1}
    assert found(6, given) == {"node1": 3, "node2": 3}
    assert found(None, {**given, "SLURM_GPUS_ON_NODE": "8"}) == {"node1": 8, "node2": 8}
    assert found(None, {**given, "SLURM_NTASKS_PER_NODE": "4"}) == {"node1": 4, "node2": 4}
    with pytest.raises(UsageError, match=r"SLURM_JOB_ID is not set.*slurm/submit\.sh"):
        found(None, {"PATH": given["PATH"]})
    with pytest.raises(UsageError, match="no `scontrol` on PATH"):
        found(None, {**given, "PATH": "/nowhere"})
