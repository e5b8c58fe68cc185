"""The trainer image's recipe: what it installs trains, what it copies is in its context."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement

from tests.deploy.test_scripts import run
from tests.deploy.test_worker_image import packages
from tests.support import ROOT

DOCKERFILE = (ROOT / "deploy" / "trainer" / "Dockerfile").read_text()


def test_the_image_brings_what_training_imports() -> None:
    install = re.search(r"headrace-\*\.whl\)\[([\w,]+)\]", DOCKERFILE)
    assert install
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in install[1].split(","):
        wanted += project["optional-dependencies"][extra]
    brought: set[str] = set()
    for requirement in map(Requirement, wanted):
        brought |= packages(requirement.name, set(requirement.extras), set())
    assert {"torch", "deepspeed", "transformers", "tokenizers", "tensorboard"} <= brought
    assert {"simplejpeg", "safetensors", "pyarrow", "pydantic"} <= brought
    assert {"gcsfs", "s3fs"} <= brought, "datasets are read from object stores too"
    assert "pytest" not in brought


def test_torch_is_the_pinned_version_that_the_index_has_with_cuda() -> None:
    """`torch==2.13.0`, not a local version such as +cpu: the image is for GPUs too."""
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    assert "+" not in pinned[1]


def test_every_copied_file_is_in_the_context() -> None:
    text = (ROOT / "deploy" / "trainer" / "build.sh").read_text()
    files = re.search(r"^files=\((.*)\)$", text, re.M)
    assert files
    sent = shlex.split(files[1])
    assert all((ROOT / name).exists() for name in sent)
    for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.M):
        if "--from" not in line and line.split()[0] != ".":
            assert line.split()[0] in sent


def test_docker_flags_exist() -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("docker: no Docker client to check the flags with")
    text = run("trainer/build.sh", "--image", "a/b:1", "--push", "--dry-run").stdout
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("docker ")]
    assert [words[1] for words in commands] == ["build", "push"]
    for words in commands:
        shown = subprocess.run(
            [docker, words[1], "--help"], capture_output=True, text=True, check=True
        ).stdout
        for flag in (word for word in words if word.startswith("--")):
            assert re.search(rf"{flag}\b", shown), f"docker {words[1]} {flag}"
