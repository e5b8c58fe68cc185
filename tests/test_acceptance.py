"""The acceptance harness: what passes, fails or is missed, and which records are out of date."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from acceptance import runner
from acceptance.__main__ import SYSTEMS
from acceptance.registry import Command, Limit, Line, System, judge
from acceptance.runner import Paths, printed_values, run_line
from tests.support import PROBES, ROOT


def line(*limits: Limit, commands: tuple[Command, ...] = ()) -> Line:
    return Line("x", "a promise", commands, limits)


@pytest.mark.parametrize(
    ("limits", "values", "status"),
    [
        ((Limit("n", "==", 3),), {"n": 3}, "pass"),
        ((Limit("n", "==", 3),), {"n": 4}, "fail"),
        ((Limit("n", "==", 3),), {}, "fail"),
        ((Limit("a.b", ">=", 2),), {"a": {"b": 2}}, "pass"),
        ((Limit("a.b", ">=", 2),), {"a": 5}, "fail"),
        ((Limit("s", "<=", 3, missed="slow disk"),), {"s": 4}, "missed"),
        ((Limit("s", "<=", 3, missed="slow disk"),), {"s": 3}, "pass"),
        # A value that was not measured is no explained miss.
        ((Limit("s", "<=", 3, missed="slow disk"),), {}, "fail"),
        ((Limit("s", "<=", 3, missed="slow"), Limit("n", "==", 1)), {"s": 4, "n": 2}, "fail"),
        ((Limit("n", "==", 1), Limit("s", "<=", 3, missed="slow")), {"s": 4, "n": 2}, "fail"),
        ((Limit("n", "==", 1), Limit("s", "<=", 3, missed="slow")), {"s": 4, "n": 1}, "missed"),
    ],
)
def test_judge(limits: tuple[Limit, ...], values: dict[str, Any], status: str) -> None:
    found, reasons, rows = judge(line(*limits), values)
    assert found == status
    assert bool(reasons) == (status != "pass")
    assert len(rows) == len(limits)


def test_values_are_the_json_lines_of_the_output() -> None:
    text = 'noise\n{"a": 1}\n{broken}\n{"case": "sink", "ratio": 0.9}\n{"a": 2, "b": 3}\n'
    assert printed_values(text) == {"a": 2, "b": 3, "sink": {"case": "sink", "ratio": 0.9}}


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(runner, "OUT", tmp_path)
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    (tmp_path / "logs").mkdir()
    return Paths(tmp_path, tmp_path / "work", tmp_path / "data")


def python(code: str, **options: Any) -> Command:
    return Command((sys.executable, "-c", code), **options)


def test_a_line_adds_up_the_values_of_its_commands(paths: Paths) -> None:
    row = run_line(
        line(
            Limit("a", "==", 1),
            Limit("seconds", "<=", 60),
            commands=(python("print('{\"a\": 1}')"), python("print('{\"b\": 2}')")),
        ),
        paths,
        {},
    )
    assert (row["status"], row["values"]["a"], row["values"]["b"]) == ("pass", 1, 2)
    assert [c["exit_code"] for c in row["commands"]] == [0, 0]


def test_a_wrong_exit_code_fails_and_ends_the_line(paths: Paths) -> None:
    bad = python("import sys; print('the reason'); sys.exit(3)")
    row = run_line(line(commands=(bad, python("1/0"))), paths, {})
    assert row["status"] == "fail"
    assert len(row["commands"]) == 1
    assert "exited 3: the reason" in row["reasons"][0]
    expected = python("import sys; sys.exit(3)", expect=3)
    assert run_line(line(commands=(expected,)), paths, {})["status"] == "pass"


def test_a_command_that_takes_too_long_is_killed_with_its_children(paths: Paths) -> None:
    code = "import subprocess; subprocess.run(['sleep', '600'])"
    start = time.monotonic()
    row = run_line(line(commands=(python(code, timeout=1),)), paths, {})
    assert time.monotonic() - start < 30
    assert (row["status"], "took more than 1 s" in row["reasons"][0]) == ("fail", True)


def test_a_program_that_does_not_exist_fails_the_line(paths: Paths) -> None:
    row = run_line(line(commands=(Command(("no-such-program-here",)),)), paths, {})
    assert row["status"] == "fail"


def test_what_needs_a_failed_line_has_failed(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (
        Line("a", "", (python("raise SystemExit(1)"),)),
        Line("b", "", (python("pass"),), needs=("a",)),
        Line("c", "", (python("pass"),)),
    )
    result = runner.run_system(System("s", lines, ()), [], True, paths, {})
    assert [row["status"] for row in result["lines"]] == ["fail", "fail", "pass"]
    assert result["lines"][1]["reasons"] == ["needs a"]
    written = json.loads((paths.clone / "acceptance.json").read_text())
    assert written["s"]["summary"] == {"pass": 1, "fail": 2, "missed": 0}
    only = runner.run_system(System("s", lines, ()), ["b"], True, paths, {})
    assert [row["id"] for row in only["lines"]] == ["a", "b"]
    capsys.readouterr()


def test_a_line_of_two_systems_runs_once(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = Line("a", "", (python(f"open({str(tmp_path / 'ran')!r}, 'a').write('x')"),))
    other = Line("b", "", (python("pass"),), needs=("a",))
    earlier: dict[str, Any] = {}
    for name, lines in (("one", (shared,)), ("two", (shared, other))):
        result = runner.run_system(System(name, lines, ()), [], True, paths, earlier)
        assert {row["status"] for row in result["lines"]} == {"pass"}
    assert (tmp_path / "ran").read_text() == "x"
    assert set(json.loads((paths.clone / "acceptance.json").read_text())) == {"one", "two"}
    capsys.readouterr()


@pytest.mark.parametrize("system", SYSTEMS.values(), ids=lambda system: system.name)
def test_registered_lines_are_consistent(system: System) -> None:
    seen: list[str] = []
    for entry in system.lines:
        assert entry.id not in seen
        assert set(entry.needs) <= set(seen), f"{entry.id} comes before what it needs"
        seen.append(entry.id)
        assert entry.commands
        for command in entry.commands:
            if "-m" in command.argv:
                module = command.argv[command.argv.index("-m") + 1]
                assert importlib.util.find_spec(module), module
    assert set(system.require) <= set(PROBES) | {"data"}


def test_the_harness_needs_the_standard_library_only() -> None:
    # -S leaves site-packages out.
    command = [sys.executable, "-S", "-m", "acceptance", "--list"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "make demo" in done.stdout
