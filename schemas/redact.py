"""What must not be written down: user names, passwords and signatures inside URLs."""

from __future__ import annotations

import re

_USER = re.compile(r"(://)[^/\s@]+@")
_QUERY = re.compile(r"(://[^\s?#]*)[?#][^\s,]*")


def without_secrets(text: str) -> str:
    """``text`` with every URL cut down to scheme, host and path: signed URLs carry keys after ``?``."""
    return _QUERY.sub(r"\1", _USER.sub(r"\1", text))
