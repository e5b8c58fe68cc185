"""Behaviour that all commands share: messages, exit codes, no traceback on the screen."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
import types
from functools import partial
from pathlib import Path

import pytest

from schemas import command_line
from schemas.command_line import guarded, suggest
from schemas.errors import (
    CheckFailed,
    ConflictError,
    HeadraceError,
    InputError,
    IntegrityError,
    JobError,
    StorageError,
    UsageError,
)
from tests.support import ROOT


def run(*argv: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("command", ["dataflows", "trainer"])
def test_no_argument_shows_help(command: str) -> None:
    done = run(command)
    assert done.returncode == 0
    assert done.stdout == run(command, "--help").stdout
    assert done.stdout.startswith(f"usage: {command} ")


def test_help_lists_every_command_with_a_line() -> None:
    text = run("dataflows", "--help").stdout
    for path in (ROOT / "dataflows" / "commands").glob("[a-z]*.py"):
        assert re.search(rf"^ +{path.stem.replace('_', '-')}\s+\S", text, re.M), path.stem


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("dataflows", "lst"), "no command 'lst'. Did you mean 'list'?"),
        (("dataflows", "zzzz"), "no command 'zzzz'. Known: "),
        (("dataflows", "--hlp"), "unknown argument '--hlp'. Did you mean '--help'?"),
        (("dataflows", "list", "metaclip3"), "metaclip3: unknown recipe; did you mean metaclip2?"),
        (("dataflows", "list", "--al"), "unknown argument '--al'."),
        (("dataflows", "list", "a", "b"), "unknown argument 'b'."),
        (("trainer", "raed"), "no command 'raed'. Did you mean 'read'?"),
    ],
)
def test_a_wrong_word_names_the_nearest(argv: tuple[str, ...], message: str) -> None:
    done = run(*argv)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"{argv[0]}: error: {message}"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckFailed, 1),
        (UsageError, 2),
        (InputError, 3),
        (ConflictError, 4),
        (IntegrityError, 5),
        (StorageError, 6),
        (JobError, 7),
    ],
)
def test_our_errors_are_one_message_and_their_code(
    error: type[HeadraceError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error("p is 1.5, the limit is 1: give p=0.06")

    assert guarded("dataflows", fail) == code
    out = capsys.readouterr()
    assert out.err == "dataflows: error: p is 1.5, the limit is 1: give p=0.06\n"
    assert out.out == ""


def test_a_full_disk_outside_the_storage_layer_is_no_fault(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/report.html")

    assert guarded("dataflows", fail) == 6
    assert "No space left on device: 'out/report.html' (free some" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_under_standard_output() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dataflows", "list"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 6
    assert "Traceback" not in done.stderr


class PanicError(BaseException):
    """Stands for exceptions of compiled libraries that are no Exception."""


@pytest.mark.parametrize("kind", [ValueError, PanicError, MemoryError])
def test_a_fault_is_one_line_and_a_file(
    kind: type[BaseException],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail() -> int:
        raise kind("two\nlines")

    assert guarded("dataflows", fail) == 70
    out = capsys.readouterr()
    assert out.err.count("\n") == 1
    assert f"a fault of this program: {kind.__name__}: two lines" in out.err
    (written,) = tmp_path.iterdir()
    assert str(written) in out.err
    assert "Traceback (most recent call last)" in written.read_text()
    assert written.stat().st_mode & 0o077 == 0


def test_ctrl_c_says_how_to_continue() -> None:
    code = textwrap.dedent(
        """
        import sys, time
        from schemas.command_line import guarded
        def work():
            print("working", flush=True)
            time.sleep(60)
            return 0
        sys.exit(guarded("dataflows", work))
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background makes them ignore Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "dataflows: stopped; the same command continues\n"


def test_a_closed_pipe_is_quiet() -> None:
    code = (
        "import sys\nfrom schemas.command_line import guarded\n"
        "def work():\n    for i in range(10**6): print('row', i)\n    return 0\n"
        "sys.exit(guarded('dataflows', work))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"row 0\n"
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_text_that_the_terminal_cannot_show_is_escaped() -> None:
    code = (
        "import sys\nfrom schemas import command_line\n"
        "sys.modules['show'] = command_line\n"
        "command_line.HELP, command_line.add_arguments = '', lambda parser: None\n"
        "command_line.run = lambda args: print('猫') or 0\n"
        "sys.exit(command_line.main('dataflows', '', {'show': 'show'}, ['show']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert (done.returncode, done.stdout) == (0, "\\u732b\n"), done.stderr


def test_arguments_are_not_abbreviated() -> None:
    parser = command_line.Parser(prog="x", allow_abbrev=False)
    parser.add_argument("--output")
    with pytest.raises(UsageError, match=r"unknown argument '--out'\. Did you mean '--output'\?"):
        parser.parse_args(["--out=x"])


def test_a_missing_argument_is_a_usage_error() -> None:
    parser = command_line.Parser(prog="x")
    parser.add_argument("name")
    with pytest.raises(UsageError, match=r"required: name\. See `x --help`\."):
        parser.parse_args([])


def test_settings_may_stand_on_both_sides_of_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    module = types.ModuleType("show_settings")
    module.HELP = "show"  # type: ignore[attr-defined]

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("recipe")
        parser.add_argument("settings", nargs="*")
        parser.add_argument("--workers", type=int)

    module.add_arguments = add_arguments  # type: ignore[attr-defined]
    module.run = lambda args: seen.append((args.workers, args.settings)) or 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "show_settings", module)
    modules = {"show": "show_settings"}
    for line in ("r a=1 b=2 --workers 2", "r a=1 --workers 2 b=2", "r --workers 2 a=1 b=2"):
        assert command_line.main("dataflows", "", modules, ["show", *line.split()]) == 0
    assert seen == [(2, ["a=1", "b=2"])] * 3
    line = "r a=1 --workers 2 b=2 -- --project=p"
    assert command_line.main("dataflows", "", modules, ["show", *line.split()]) == 0
    assert seen[-1] == (2, ["a=1", "b=2", "--project=p"])
    assert command_line.main("dataflows", "", modules, ["show", "r", "a=1", "--worker=2"]) == 2
    assert "unknown argument '--worker'. Did you mean '--workers'?" in capsys.readouterr().err


def test_suggest_lists_what_is_known_when_nothing_is_near() -> None:
    assert suggest("mach", ["match", "mode"]) == " Did you mean 'match'?"
    assert suggest("qqq", ["mode", "match"]) == " Known: match, mode."
