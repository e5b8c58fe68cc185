"""The frame of both commands: sub-commands loaded when named, errors as messages, exit codes.

A command module has `HELP: str`, `add_arguments(parser)` and `run(args) -> int`. Exit codes beside
those of `schemas.errors`: 0 done, 70 a fault of this program (the traceback goes to a file whose
path is printed), 130 stopped by Ctrl-C, 141 the reader of our output went away.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import importlib
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn, Protocol, cast

from schemas.errors import EXIT_INTERRUPTED, HeadraceError, StorageError, UsageError

EXIT_FAULT = 70
EXIT_PIPE = 141

_STORAGE_ERRNOS = {
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "raise the quota or write elsewhere",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "the file system is read-only: write elsewhere",
}


class Command(Protocol):
    """What a command module offers."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do the work; returns the exit code."""


def suggest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the nearest of `known`, or the known words if none is near."""
    words = sorted(set(known))
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(words)}."


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are `UsageError`, with the nearest option named."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            options = [option for action in self._actions for option in action.option_strings]
            word = unknown.split()[0].partition("=")[0]
            hint = suggest(word, options) if word.startswith("-") and options else ""
            raise UsageError(f"unknown argument {word!r}.{hint} See `{self.prog} --help`.")
        raise UsageError(f"{message}. See `{self.prog} --help`.")


def main(
    prog: str, description: str, modules: Mapping[str, str], argv: Sequence[str] | None = None
) -> int:
    """Run `prog` with `modules` {command: module path}; returns the exit code, never raises."""
    args = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # a terminal without UTF-8 shows captions as escapes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return guarded(prog, lambda: _dispatch(prog, description, modules, args))


def _dispatch(prog: str, description: str, modules: Mapping[str, str], argv: list[str]) -> int:
    word = argv[0] if argv else "--help"
    if word not in modules and not word.startswith("-"):
        raise UsageError(f"no command {word!r}.{suggest(word, modules)} See `{prog} --help`.")
    # Only the command that was named is imported; the list of all needs each one's HELP.
    wanted = [word] if word in modules else list(modules)
    parser = Parser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=_version(prog))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    loaded = {name: cast(Command, importlib.import_module(modules[name])) for name in wanted}
    for name, module in loaded.items():
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(parser=sub)
    # What follows a bare -- is for the runner, and reaches the command as it is.
    cut = argv.index("--") if "--" in argv else len(argv)
    known, extra = parser.parse_known_args(argv[:cut] or ["--help"])
    words = getattr(known, "settings", None)
    if isinstance(words, list):
        # argparse takes key=value words up to the first option only; those after it count as well.
        words += [word for word in extra if not word.startswith("-")] + argv[cut + 1 :]
        extra = [word for word in extra if word.startswith("-")]
    else:
        extra += argv[cut:]
    if extra or known.command is None:
        getattr(known, "parser", parser).error(f"unrecognized arguments: {' '.join(extra)}")
    return loaded[known.command].run(known)


def _version(prog: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{prog} (headrace) {version('headrace')}"
    except PackageNotFoundError:
        return f"{prog} (headrace, not installed)"


def guarded(prog: str, work: Callable[[], int]) -> int:
    """Run `work`, turning whatever it raises into one message on stderr and an exit code."""
    try:
        try:
            code = work()
        except SystemExit as stop:  # argparse after --help or --version
            code = stop.code if isinstance(stop.code, int) else 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _say(prog, "stopped; the same command continues", EXIT_INTERRUPTED)
    except HeadraceError as error:
        return _say(prog, f"error: {error}", error.exit_code)
    except BrokenPipeError:
        # Python flushes stdout once more at exit: let that go nowhere.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except OSError as error:
        if fix := _STORAGE_ERRNOS.get(error.errno or 0):
            where = f" {error.filename!r}" if error.filename else ""
            message = f"error: {error.strerror}:{where} ({fix})"
            return _say(prog, message, StorageError.exit_code)
        return _fault(prog, error)
    except BaseException as error:
        return _fault(prog, error)


def _fault(prog: str, error: BaseException) -> int:
    """One line on the screen; the traceback in a file of the user's own."""
    line = " ".join(str(error).split())[:200]
    kind = type(error).__name__
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"{prog}-fault-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(f"{' '.join([prog, *sys.argv[1:]])}\n\n")
            traceback.print_exception(error, file=file)
        where = f"the traceback is in {file.name}"
    except OSError as unwritable:
        where = f"the traceback could not be written ({unwritable.strerror})"
    return _say(prog, f"error: a fault of this program: {kind}: {line} ({where})", EXIT_FAULT)


def _say(prog: str, message: str, code: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    print(f"{prog}: {message}", file=sys.stderr)
    return code
