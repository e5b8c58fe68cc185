"""What the checks share: printing values, running our commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def finish(values: dict[str, Any], faults: list[str]) -> int:
    """Print the faults on stderr and the values as the last line; the exit code."""
    for fault in faults:
        print(fault, file=sys.stderr)
    print(json.dumps(values | {"faults": len(faults)}, ensure_ascii=False))
    return 1 if faults else 0


def dataflows(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a `dataflows` command of this environment and echo what it says."""
    command = [sys.executable, "-m", "dataflows", *words]
    done = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    print(done.stdout, done.stderr, sep="", end="", flush=True)
    return done


def manifests(run: Path) -> dict[str, dict[str, Any]]:
    """{stage: manifest} of all committed datasets directly below the folder of a run."""
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(run.glob("*/manifest.json"))
    }
