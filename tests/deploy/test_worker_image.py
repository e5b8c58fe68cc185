"""The worker image's recipe: what it installs has no torch, what it copies exists."""

from __future__ import annotations

import re
import shlex
import subprocess
from importlib.metadata import requires
from pathlib import PurePosixPath

from packaging.requirements import Requirement

from tests.support import ROOT

DOCKERFILE = (ROOT / "deploy" / "worker" / "Dockerfile").read_text()


def packages(name: str, extras: set[str], seen: set[tuple[str, str]]) -> set[str]:
    """Names of all distributions that installing `name[extras]` brings, from installed metadata."""
    found = {name.lower().replace("_", "-")}
    for text in requires(name) or []:
        requirement = Requirement(text)
        for extra in extras | {""}:
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            key = (requirement.name.lower(), ",".join(sorted(requirement.extras)))
            if wanted and key not in seen:
                seen.add(key)
                found |= packages(requirement.name, requirement.extras, seen)
    return found


def test_the_image_brings_no_torch() -> None:
    install = re.search(r"headrace-\*\.whl\)\[([\w,]+)\]", DOCKERFILE)
    assert install
    brought = packages("headrace", set(install[1].split(",")), set())
    assert {"apache-beam", "gcsfs", "s3fs", "boto3", "jieba"} <= brought
    assert not brought & {"torch", "deepspeed", "triton", "transformers"}


def test_beam_is_the_pinned_version() -> None:
    pinned = re.search(r"^apache-beam==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    assert f"FROM apache/beam_python3.11_sdk:{pinned[1]} AS harness" in DOCKERFILE


def test_every_copied_file_is_in_the_context() -> None:
    text = (ROOT / "deploy" / "worker" / "build.sh").read_text()
    files = re.search(r"^files=\((.*)\)$", text, re.M)
    assert files
    sent = shlex.split(files[1])
    for name in sent:
        assert (ROOT / name).exists(), name
    for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.M):
        if "--from" not in line and line.split()[0] != ".":
            assert line.split()[0] in sent
    # What the build backend reads has to be sent as well.
    project = (ROOT / "pyproject.toml").read_text()
    readme = re.search(r'^readme = "(.*)"$', project, re.M)
    assert readme
    assert readme[1] in sent


def test_stages_are_named_before_they_are_used() -> None:
    names: set[str] = set()
    for line in DOCKERFILE.splitlines():
        if used := re.search(r"--from=(\S+)", line):
            assert used[1] in names
        if made := re.match(r"FROM \S+ AS (\S+)", line):
            names.add(made[1])


def test_boot_is_where_the_beam_image_has_it() -> None:
    copied = re.search(r"COPY --from=harness (\S+) (\S+)", DOCKERFILE)
    entry = re.search(r'ENTRYPOINT \["(\S+)"\]', DOCKERFILE)
    assert copied
    assert entry
    assert copied[1] == copied[2] == str(PurePosixPath(entry[1]).parent)


def test_shell_scripts_parse() -> None:
    for script in ROOT.glob("deploy/**/*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
