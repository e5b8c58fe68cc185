"""What importing costs: no package loads a stack that it does not need, and imports go one way."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
import time

import pytest

from tests.support import ROOT

PACKAGES = ("schemas", "kernels", "curation", "dataflows", "trainer")
HEAVY = {"apache_beam", "numba", "polars", "torch", "pandas", "datasets", "deepspeed"}


def modules_of(package: str) -> list[str]:
    found = [package]
    for info in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
        if not info.name.endswith(".__main__"):
            found.append(info.name)
    return found


def loaded_by(code: str) -> set[str]:
    """Top-level modules in sys.modules of a fresh process after running `code`."""
    names = "sorted({name.partition('.')[0] for name in sys.modules})"
    script = f"import sys, json\n{code}\nprint(json.dumps({names}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_is_light(package: str) -> None:
    assert not loaded_by(f"import {package}") & HEAVY


def test_schemas_load_pyarrow_and_numpy_only() -> None:
    loaded = loaded_by("\n".join(f"import {name}" for name in modules_of("schemas")))
    assert not loaded & (HEAVY | {"fsspec", "s3fs", "gcsfs"})


@pytest.mark.parametrize("package", ["curation", "kernels"])
def test_no_module_loads_beam_or_torch(package: str) -> None:
    loaded = loaded_by("\n".join(f"import {name}" for name in modules_of(package)))
    assert not loaded & {"apache_beam", "torch", "deepspeed"}


# Subclasses of torch's classes; they are imported when a run is built.
OF_TORCH = (
    "trainer.models.clip",
    "trainer.models.decoder_model",
    "trainer.models.weights",
    "trainer.objectives.linear_cross_entropy",
    "trainer.objectives.top_k_divergence",
)


def test_only_what_is_made_of_torch_loads_it() -> None:
    names = [name for name in modules_of("trainer") if name not in OF_TORCH]
    loaded = loaded_by("\n".join(f"import {name}" for name in names))
    assert not loaded & {"apache_beam", "torch", "deepspeed"}


def test_dataflows_never_loads_torch_or_the_trainer() -> None:
    loaded = loaded_by("\n".join(f"import {name}" for name in modules_of("dataflows")))
    assert not loaded & {"torch", "deepspeed", "trainer"}


@pytest.mark.parametrize("command", ["dataflows", "trainer"])
def test_help_loads_nothing_heavy(command: str) -> None:
    loaded = loaded_by(f"from {command}.cli import main\nassert main(['--help']) == 0")
    assert not loaded & (HEAVY | {"pyarrow", "numpy"})


def test_trainer_help_takes_under_a_second() -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "trainer", "--help"], check=True, cwd=ROOT)
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0, times


def test_every_folder_of_code_is_a_package() -> None:
    """Without __init__.py a folder is left out of the wheel."""
    bare = [
        str(folder.relative_to(ROOT))
        for package in PACKAGES
        for folder in {path.parent for path in (ROOT / package).rglob("*.py")}
        if not (folder / "__init__.py").exists()
    ]
    assert bare == []


def test_import_contract() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
