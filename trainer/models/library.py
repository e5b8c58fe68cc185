"""What `transformers` needs before a second model is built in a process."""

from __future__ import annotations

import sys


def settle() -> None:
    """Keep ``transformers.initialization`` reachable.

    The library replaces its package by another object while it imports its first model, and that one has
    not the submodules imported before it as attributes.
    """
    from transformers import initialization

    vars(sys.modules["transformers"])["initialization"] = initialization
