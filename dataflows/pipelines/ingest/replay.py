"""What the stage `records` does with its dead letters when they are replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from curation.ingest import IngestOptions
from curation.ingest.again import read_again
from dataflows.engine.replay import Replayed, letter_rows
from schemas import settings as configuration
from schemas.dataset import Dataset
from schemas.errors import UsageError
from schemas.ledger import Ledger

_SETTINGS = ("images", "max_record_bytes")


def again(old: Dataset, letters: pa.Table, settings: Mapping[str, Any]) -> Replayed:
    """Records that pass with today's code and limits, in shards of their own after the old ones."""
    for name in settings:
        if name not in _SETTINGS:
            raise UsageError(
                f"{name}: not a setting of replaying records; known: images.max_bytes, "
                "images.max_pixels, images.seconds, images.memory, max_record_bytes"
            )
    before = {**old.manifest.config, **old.manifest.config.get("replay", {})}
    config = configuration.merge(before, settings)
    for name in ("hash", "phash", "replay"):
        config.pop(name, None)
    files = {str(pin["path"]): number for number, pin in enumerate(old.manifest.inputs)}
    options = IngestOptions.from_json(config)
    outcome = read_again(letters, letter_rows(letters), files, options)
    counted = Ledger()
    for reason in letters.column("reason").to_pylist():
        counted.add("record", "in", "", 1)
        counted.add("record", "rejected", reason, 1)
    return Replayed(outcome, counted)
