"""Where a page goes."""

from __future__ import annotations

import os
import posixpath

from curation.page.numbers import size
from schemas.errors import UsageError
from schemas.storage import storage


def put(page: str, default: str, out: str | None) -> str:
    """Write a page to ``out`` or else the default place, over an older one; return a line that says so.

    UsageError if ``out`` is a directory.
    """
    place = default
    if out is not None:
        place = storage(out).url
        if out.endswith("/") or os.path.isdir(place):
            raise UsageError(f"--out {out} is a directory; name a file, such as report.html")
    folder, name = posixpath.split(place)
    data = page.encode("utf-8")
    storage(folder).replace(name, data)
    return f"{place} ({size(len(data))})"
