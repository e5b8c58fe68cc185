"""`show FILE.json`: print the object that an earlier command wrote, as values."""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    print(json.dumps(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
