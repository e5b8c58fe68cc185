"""One rank's process: ``python -m trainer.launching.rank``, the run's settings as JSON on stdin."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping

PARENT = "HEADRACE_LAUNCHER_PID"
"""Variable with the process id of the launcher that started this rank."""

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however that ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def run(text: str, environ: Mapping[str, str]) -> int:
    """Train as the rank that the environment names; returns the exit code.

    What the user can cause is printed as a message, anything else with its traceback: what a rank
    prints is its log.
    """
    from schemas.command_line import EXIT_FAULT
    from schemas.errors import EXIT_INTERRUPTED, HeadraceError

    rank = environ.get("RANK", "0")
    try:
        from trainer.config import RunConfig
        from trainer.engine.run import train
        from trainer.launching.place import place_of

        return train(RunConfig.model_validate_json(text), place_of(environ))
    except HeadraceError as error:
        print(f"rank {rank}: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"rank {rank}: stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BaseException:
        traceback.print_exc()
        return EXIT_FAULT


def main() -> None:
    """Run, then leave at once, whatever the outcome.

    After a failure a thread that waits for a dead peer would hold us. After success the interpreter's own
    end destroys process groups while their threads run, which aborted one in some 40 ranks.
    """
    if os.environ.get(PARENT, "").isdigit():
        die_with(int(os.environ[PARENT]))
    code = run(sys.stdin.read(), os.environ)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
