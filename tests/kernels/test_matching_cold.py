"""A new process: what importing loads, time to the first match, installations that are read-only."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels.matching import build, cache
from tests.support import ROOT

FIRST_MATCH = """
import json, sys, time
import pyarrow as pa
from kernels.matching import Automaton
assert "numba" not in sys.modules and "torch" not in sys.modules
matcher = Automaton.open(sys.argv[1])
assert "numba" not in sys.modules
offsets, ids = matcher.match(pa.array(["a hot dog"]))
from kernels.matching import compiled
print(json.dumps({
    "ids": ids.tolist(),
    "seconds": time.process_time(),
    "compiled": sum(compiled.match_texts.stats.cache_misses.values()),
    "folder": str(compiled.match_texts._cache.cache_path),
}))
"""
LIMIT = 3.0
WITHOUT_RIGHTS = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all")


def first_match(path: Path, root: Path = ROOT, **variables: str) -> dict:
    """The first match of a new process: ids, CPU seconds, whether it compiled, cache folder."""
    command = [sys.executable, "-c", FIRST_MATCH, str(path)]
    if root != ROOT and os.getuid() == 0:
        # The super-user writes everywhere unless it gives up that right.
        command = [*WITHOUT_RIGHTS, *command]
    done = subprocess.run(
        command,
        env={**os.environ, **variables, "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    build(["dog", "hot dog"], mode="repaired", path=tmp_path / "a")
    return tmp_path / "a"


def test_the_first_match_of_a_cold_process(path: Path) -> None:
    first_match(path)
    second = first_match(path)
    assert second["ids"] == [0, 1]
    assert second["compiled"] == 0
    assert second["seconds"] < LIMIT


@pytest.fixture
def read_only_install(tmp_path: Path) -> Iterator[Path]:
    """A folder with a copy of the packages that cannot be written to."""
    if os.getuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed, and the super-user may write everywhere")
    for package in ("kernels", "schemas"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / "lib" / package, ignore=ignored)
    folders = [folder for folder, _, _ in os.walk(tmp_path / "lib")]
    (tmp_path / "closed").mkdir()
    folders.append(str(tmp_path / "closed"))
    for folder in folders:
        os.chmod(folder, 0o555)
    yield tmp_path
    for folder in folders:
        os.chmod(folder, 0o755)


@pytest.mark.slow
def test_a_read_only_install_caches_in_the_users_folder(
    path: Path, read_only_install: Path
) -> None:
    base = read_only_install
    home = {"HOME": str(base / "home"), "XDG_CACHE_HOME": ""}
    first = first_match(path, base / "lib", **home)
    assert first["compiled"] == 1
    assert Path(first["folder"]).is_relative_to(base / "home/.cache/headrace")
    second = first_match(path, base / "lib", **home)
    assert (second["ids"], second["compiled"]) == ([0, 1], 0)
    assert second["seconds"] < LIMIT
    # Without a home a private folder in the temporary one serves.
    (base / "tmp").mkdir()
    away = {"HOME": str(base / "closed"), "XDG_CACHE_HOME": "", "TMPDIR": str(base / "tmp")}
    third = first_match(path, base / "lib", **away)
    assert third["ids"] == [0, 1]
    assert Path(third["folder"]).is_relative_to(base / "tmp")
    place = next((base / "tmp").glob("headrace-*"))
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert first_match(path, base / "lib", **away)["compiled"] == 0


def test_the_cache_folder_is_named_by_the_sources() -> None:
    found = cache.folder()
    assert found.name == f"headrace-{cache.digest()}"
    assert cache.folder("") == found


def test_numbas_own_setting_comes_first(tmp_path: Path) -> None:
    assert cache.folder(str(tmp_path)).parent == tmp_path


def test_a_warmed_package_that_became_read_only_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    warmed = package / "__pycache__" / f"headrace-{cache.digest()}"
    warmed.mkdir(parents=True)
    (warmed / "code").write_bytes(b"machine code")
    digest = cache.digest()
    monkeypatch.setattr(cache, "_HERE", package)
    monkeypatch.setattr(cache, "digest", lambda: digest)
    writable = cache._writable
    monkeypatch.setattr(cache, "_writable", lambda p: not p.is_relative_to(package) and writable(p))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = cache.folder()
    assert found == tmp_path / "cache/headrace" / warmed.name
    assert (found / "code").read_bytes() == b"machine code"
    assert sorted(p.name for p in found.parent.iterdir()) == [warmed.name]


def test_a_foreign_folder_in_the_temporary_place_is_not_trusted(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert not cache._private(open_to_all)
    (tmp_path / "link").symlink_to(open_to_all)
    assert not cache._private(tmp_path / "link")
    assert cache._private(tmp_path / "new")
