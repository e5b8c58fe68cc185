"""Errors a user can cause, each with the exit code of the command that meets it.

``str(error)`` is the whole message: it names the value, the limit and the fix. Commands print it
without a traceback and exit with ``error.exit_code``.
"""

EXIT_INTERRUPTED = 130
"""Exit code of a command stopped by Ctrl-C."""


class HeadraceError(Exception):
    """Base of all errors whose message is meant for the user."""

    exit_code: int = 1


class CheckFailed(HeadraceError):
    """A check (``verify`` and its like) found a fault."""

    exit_code = 1


class UsageError(HeadraceError):
    """The command or its configuration asks for something that cannot be done."""

    exit_code = 2


class InputError(HeadraceError):
    """An input cannot be read, or has the wrong schema or version."""

    exit_code = 3


class ConflictError(HeadraceError):
    """Another writer was first."""

    exit_code = 4


class IntegrityError(HeadraceError):
    """Data contradicts what is recorded about it: checksum, edited manifest, counts, order."""

    exit_code = 5


class StorageError(HeadraceError):
    """The storage refused: full disk, missing permission, absent bucket."""

    exit_code = 6


class JobError(HeadraceError):
    """The job died; the same command continues it."""

    exit_code = 7
