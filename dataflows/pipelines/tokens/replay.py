"""What the stage `documents` does with its dead letters when they are replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from curation.text.again import letters_again
from curation.text.documents import Sieve
from curation.text.options import TextOptions
from dataflows.engine.replay import Replayed
from dataflows.pipelines.tokens.documents import planned, renderer_of
from schemas.dataset import Dataset
from schemas.errors import UsageError

SETTING = "max_document_bytes"


def again(old: Dataset, letters: pa.Table, settings: Mapping[str, Any]) -> Replayed:
    """Documents that pass with today's code and limits, read from the pinned files once more, in shards
    of their own after the old ones."""
    manifest = old.manifest
    for name in settings:
        if name != SETTING:
            raise UsageError(f"{name}: not a setting of replaying documents; known: {SETTING}")
    config = manifest.config
    limits = {**config.get("replay", {}), **settings}
    if not isinstance(limits.get(SETTING, 1), int) or limits.get(SETTING, 1) < 1:
        raise UsageError(f"{SETTING}={limits[SETTING]}: give a number of bytes, 1 or more")
    units = planned(config, manifest.inputs)
    options = TextOptions.from_json({**config["options"], **limits})
    render = renderer_of(config, str(manifest.run.get("runtime", {}).get("chat_template", "")))
    sieve = Sieve(config["rules"], tuple(config["languages"]))
    return Replayed(*letters_again(letters, units, options, sieve, config["validation"], render))
