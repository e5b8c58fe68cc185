"""`tests PATH...`: run those tests; none may fail or be skipped."""

from __future__ import annotations

import re
import subprocess
import sys

from acceptance.checks.common import finish


def main(*paths: str) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout[-3000:])
    closing = (done.stdout.strip().splitlines() or [""])[-1]
    counts = {
        word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", closing)
    }
    faults = [closing] if done.returncode or counts.get("skipped") else []
    return finish({"passed": counts.get("passed", 0), "skipped": counts.get("skipped", 0)}, faults)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
