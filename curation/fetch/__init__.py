"""Fetching images from URLs: politely, safely, and with one row and one reason for every URL.

:func:`fetch` takes URLs and yields rows; the parts are :mod:`network` (which addresses may be
reached), :mod:`hosts` (rates and connections of each host), :mod:`robots`, :mod:`opt_out`,
:mod:`client` (one URL, with redirects and tries) and :mod:`resize` (decoding in a child process).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec

import pyarrow as pa

from curation.fetch.options import FetchOptions
from curation.fetch.rows import FETCH_ROWS
from schemas.errors import UsageError

__all__ = ["FETCH_ROWS", "FetchOptions", "fetch", "host_of"]


def fetch(rows: pa.Table, options: FetchOptions, share: int = 1) -> Iterator[pa.Table]:
    """Fetch the URLs of ``rows`` (image_id, url) and yield FETCH_ROWS tables as they complete.

    Exactly one row comes for every input row, in the order of completion; ``reason`` is "" or one
    of :data:`schemas.reasons.REASONS`. With ``share=K`` this call has one of K parts of its hosts
    and uses a K-th of their rate. At most ``concurrency`` requests are under way at once; bodies
    that wait for the decoder or the caller hold at most 256 MiB beside those still arriving.

    Raises UsageError for a table without the two columns, JobError if the decoder process does
    not start. What single URLs cause never raises.
    """
    _check_installed()
    from curation.fetch.run import run

    return run(rows, options, share)


def host_of(url: str | None) -> str:
    """The host that a URL is packed under: its name in lower case, ASCII, without port and ``www.``.

    ``www.x`` and ``x`` belong together, for one mostly leads to the other. "" for what
    :func:`fetch` refuses as ``fetch_bad_url`` without asking any host.
    """
    _check_installed()
    from curation.fetch.target import Target, site_of
    from curation.fetch.verdict import Refusal

    try:
        return site_of(Target.of(url).host)
    except Refusal:
        return ""


@cache
def _check_installed() -> None:
    missing = [name for name in ("httpx", "img2dataset", "protego") if find_spec(name) is None]
    if missing:
        raise UsageError(f"fetching needs {', '.join(missing)}: pip install 'headrace[fetch]'")
