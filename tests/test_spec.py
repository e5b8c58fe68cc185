"""The checklist command: items are tied to outcomes, also across test processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import spec, support
from tests.support import ROOT, Missing, require, required

EXAMPLE = """
import pytest

@pytest.mark.spec("metaclip2", 1)
def test_good(): pass

@pytest.mark.spec("metaclip2", 1)
@pytest.mark.spec("metaclip2", 2)
def test_both(): pass

@pytest.mark.spec("metaclip2", 2)
def test_bad(): assert False

@pytest.mark.spec("metaclip2", 3)
def test_skipped(): pytest.skip("no tool")

@pytest.mark.spec("other", 1)
def test_other(): pass

def test_unmarked(): assert False
"""


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["one process", "two processes"])
def test_outcomes_by_item(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "test_example.py").write_text(EXAMPLE)
    plugin = (
        "from tests import spec_plugin\n"
        "from tests.spec_plugin import pytest_addoption as pytest_addoption\n"
        "def pytest_configure(config):\n"
        "    config.addinivalue_line('markers', 'spec(paper, item): x')\n"
        "    spec_plugin.register(config)\n"
    )
    (tmp_path / "conftest.py").write_text(plugin)
    report = tmp_path / "spec.json"
    command = [sys.executable, "-m", "pytest", str(tmp_path), "-q", "--rootdir", str(tmp_path)]
    command += ["-c", "/dev/null", "--spec", "metaclip2", "--spec-report", str(report), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert set(found) == {"metaclip2"}
    outcomes = {item: row["outcomes"] for item, row in found["metaclip2"].items()}
    assert outcomes == {
        "1": {"passed": 2},
        "2": {"passed": 1, "failed": 1},
        "3": {"skipped": 1},
    }
    rows = {row["item"]: row["result"] for row in spec.table("metaclip2", found)}
    assert [rows[n] for n in (1, 2, 3, 4)] == ["pass", "fail", "skipped", "no test"]


def test_the_command_fails_while_an_item_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {str(n): {"outcomes": {"passed": 1}, "tests": ["t"]} for n in range(1, 30)}
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"metaclip2": whole}))
    words = ["metaclip2", "--from", str(report), "--json", str(tmp_path / "out" / "table.json")]
    assert spec.main(words) == 0
    assert "29 of the 29 items shown\n" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out" / "table.json").read_text())) == 29
    del whole["7"]
    report.write_text(json.dumps({"metaclip2": whole}))
    assert spec.main(words) == 1
    assert "28 of the 29 items shown; not shown: 7" in capsys.readouterr().out


def test_every_marked_item_is_on_the_checklist() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        for paper, item in re.findall(r'mark\.spec\("(\w+)", (\d+)\)', path.read_text()):
            if path != Path(__file__):
                assert 1 <= int(item) <= spec.CHECKLISTS[paper], path


def test_required_tools_fail_instead_of_skipping(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise Missing("no such thing")

    monkeypatch.setitem(support.PROBES, "vllm", absent)
    monkeypatch.delenv("HEADRACE_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="vllm: no such thing"):
        require("vllm")
    monkeypatch.setenv("HEADRACE_REQUIRE", "prism,vllm")
    with pytest.raises(pytest.fail.Exception, match="HEADRACE_REQUIRE names vllm"):
        require("vllm")
    monkeypatch.setenv("HEADRACE_REQUIRE", "prisn")
    with pytest.raises(pytest.UsageError, match="HEADRACE_REQUIRE names prisn"):
        required()
