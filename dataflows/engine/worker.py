"""Main program of a worker process: Beam's harness, which ends when the command is gone."""

from __future__ import annotations

import os
import sys
import threading


def _end_with_the_command() -> None:
    """Its end of our standard input closes however it ends, also when it is killed."""
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    """Serve the command that started this process."""
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
