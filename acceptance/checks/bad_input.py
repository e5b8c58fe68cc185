"""`bad_input`: how many cases of bad input the tests hold (that they pass is `make test`'s)."""

from __future__ import annotations

import subprocess
import sys

from acceptance.checks.common import finish


def main() -> int:
    command = [sys.executable, "-m", "pytest", "tests/bad_input", "--collect-only", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    cases = sum("::" in line for line in done.stdout.splitlines())
    return finish({"cases": cases}, [done.stdout[-500:]] if done.returncode else [])


if __name__ == "__main__":
    sys.exit(main())
