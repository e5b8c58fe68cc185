"""Runs lines in a fresh clone and keeps the result file up to date after each."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from acceptance.registry import Command, Line, System, judge

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "acceptance" / "out"
SCRATCH = ROOT / "build" / "acceptance"
# Variables of the caller's environment that would make the clone other than fresh.
_FOREIGN = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
_VERSIONS = (
    "import importlib.metadata as m, json;"
    "print(json.dumps({d.name: d.version for d in m.distributions()}, sort_keys=True))"
)


@dataclass(frozen=True)
class Paths:
    """What `{name}` in a command stands for."""

    clone: Path  # the checkout that commands run in
    work: Path  # scratch folder for what they write
    data: Path  # the shared data sets

    def fill(self, word: str) -> str:
        """Replace the names in one word of a command."""
        names = {
            "{clone}": str(self.clone),
            "{work}": str(self.work),
            "{data}": str(self.data),
            "{python}": ".venv/bin/python",  # commands run in the clone
            "{dataflows}": ".venv/bin/dataflows",
            "{trainer}": ".venv/bin/trainer",
        }
        for name, value in names.items():
            word = word.replace(name, value)
        return word


def git(*words: str) -> str:
    """Output of a git command in this checkout, stripped; empty outside a repository."""
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def prepare(here: bool) -> Paths:
    """Empty the output folder and clone the current commit into it (or use this checkout)."""
    clone = ROOT if here else SCRATCH / "clone"
    work = SCRATCH / "work"
    for folder in (SCRATCH, OUT / "logs"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (work, OUT / "logs"):
        folder.mkdir(parents=True)
    if not here:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    given = os.environ.get("HEADRACE_DATA")
    data = Path(given) if given else ROOT.parent / "shared" / "data"
    return Paths(clone, work, data.resolve())


def environment(system: System, paths: Paths) -> dict[str, str]:
    """The caller's variables less those that leak into the clone, plus what the checks need."""
    env = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    tools = env.get("HEADRACE_PRISM") or str((ROOT.parent / "shared" / "tools").resolve())
    env.update(
        HEADRACE_DATA=str(paths.data),
        HEADRACE_PRISM=tools,
        HEADRACE_REQUIRE=",".join(system.require),
        OMP_NUM_THREADS="1",
        PYTHONUNBUFFERED="1",
    )
    return env


def printed_values(text: str) -> dict[str, Any]:
    """The JSON objects among the lines of `text`, merged; one with a `case` goes under that key."""
    values: dict[str, Any] = {}
    for line in text.splitlines():
        if line.startswith("{") and line.endswith("}"):
            try:
                found = dict(json.loads(line))
            except ValueError:
                continue
            values.update({str(found["case"]): found} if "case" in found else found)
    return values


def run_command(
    command: Command, log: Path, paths: Paths, env: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run one command in the clone; (what to record of it, the values it printed)."""
    argv = [paths.fill(word) for word in command.argv]
    start = time.monotonic()
    timed_out = False
    extra = {name: paths.fill(value) for name, value in command.env.items()}
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            argv,
            cwd=paths.clone,
            env=env | extra,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(command.timeout)
        except BaseException as error:
            # The command's whole process group ends: a half-finished make leaves no workers.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            timed_out = True
    row: dict[str, Any] = {
        "command": shlex.join([*(f"{k}={v}" for k, v in extra.items()), *argv]),
        "exit_code": process.returncode,
        "seconds": round(time.monotonic() - start, 1),
        "log": str(log.relative_to(ROOT)),
    }
    if timed_out:
        row["timed_out"] = command.timeout
    return row, printed_values(log.read_text(encoding="utf-8", errors="replace"))


def run_line(line: Line, paths: Paths, env: dict[str, str]) -> dict[str, Any]:
    """Run a line's commands until one has the wrong exit code; its row of the result file."""
    rows: list[dict[str, Any]] = []
    values: dict[str, Any] = {}
    wrong: str | None = None
    for number, command in enumerate(line.commands):
        try:
            row, printed = run_command(
                command, OUT / "logs" / f"{line.id}.{number}.txt", paths, env
            )
        except FileNotFoundError as error:
            row, printed = {"command": shlex.join(command.argv), "exit_code": 127}, {}
            wrong = f"{error.filename} does not exist"
        rows.append(row)
        values.update(printed)
        if row["exit_code"] != command.expect:
            wrong = wrong or _tail(row)
            break
    values["seconds"] = round(sum(row.get("seconds", 0.0) for row in rows), 1)
    status, reasons, limits = judge(line, values)
    if wrong:
        status, reasons = "fail", [wrong]
    return {
        "id": line.id,
        "promise": line.promise,
        "status": status,
        "reasons": reasons,
        "commands": rows,
        "values": values,
        "limits": limits,
    }


def _tail(row: dict[str, Any]) -> str:
    if "timed_out" in row:
        return f"`{row['command']}` took more than {row['timed_out']} s"
    text = (ROOT / row["log"]).read_text(encoding="utf-8", errors="replace")
    spoken = [line for line in text.splitlines() if line.strip() and not line.startswith("{")]
    last = spoken[-1] if spoken else "no output"
    return f"`{row['command']}` exited {row['exit_code']}: {last[:300]}"


def run_system(
    system: System, only: list[str], here: bool, paths: Paths, earlier: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Run the lines of a system (those named by `only` and what they need, or all).

    ``earlier`` holds rows of lines that another system ran in the same clone, by their commands;
    those are not repeated, and this system's are added.
    """
    env = environment(system, paths)
    wanted = _closure(system, only)
    head = {
        "system": system.name,
        "commit": git("rev-parse", "HEAD"),
        "uncommitted": bool(git("status", "--porcelain")),
        "fresh_clone": not here,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "require": list(system.require),
    }
    result: dict[str, Any] = {**head, "lines": []}
    failed: set[str] = set()
    for line in system.lines:
        if line.id not in wanted:
            continue
        print(f"{system.name} {line.id:<22} ", end="", flush=True)
        broken = [need for need in line.needs if need in failed]
        if broken:
            row: dict[str, Any] = {"id": line.id, "promise": line.promise, "status": "fail"}
            row |= {"reasons": [f"needs {', '.join(broken)}"], "commands": [], "values": {}}
        elif (same := f"{line.id} {line.commands}") in earlier:
            row = earlier[same]
        else:
            row = earlier[same] = run_line(line, paths, env)
        if row["status"] == "fail":
            failed.add(line.id)
        result["lines"].append(row)
        seconds = row["values"].get("seconds", 0)
        print(f"{row['status']:<7} {seconds:>7.1f} s  {'; '.join(row['reasons'])}", flush=True)
        _write(system.name, result | {"versions": _versions(paths)})
    return result


def _closure(system: System, only: list[str]) -> set[str]:
    by_id = {line.id: line for line in system.lines}
    todo = list(only) or list(by_id)
    if unknown := [name for name in todo if name not in by_id]:
        raise SystemExit(f"acceptance: no line {unknown[0]!r}; known: {', '.join(by_id)}")
    wanted: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            todo += by_id[name].needs
    return wanted


def _versions(paths: Paths) -> dict[str, str]:
    python = paths.clone / ".venv" / "bin" / "python"
    command = [str(python if python.exists() else sys.executable), "-c", _VERSIONS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return printed_values(done.stdout)


def _write(name: str, result: dict[str, Any]) -> None:
    """Update the system's part of the result file."""
    counts = {"pass": 0, "fail": 0, "missed": 0}
    for row in result["lines"]:
        counts[row["status"]] += 1
    path = OUT / "acceptance.json"
    whole = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    whole[name] = result | {"summary": counts}
    text = json.dumps(whole, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
