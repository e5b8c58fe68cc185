"""Retrieval examples with pictures: of the generated pool rendered anew, of a dataset read from it.

Whatever a picture comes from, its bytes are decoded in a child process (`curation.page.thumbnails`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.page.thumbnails import thumbnails
from curation.pool.render import SIZES, render
from schemas.dataset import Dataset, open_dataset
from schemas.errors import HeadraceError
from trainer.report.model import Example, Hit

SHOWN = 8
HITS = 5
SIDE = 112
GENERATED = "generated://"
_RENDERED = 96


def examples(result: Mapping[str, Any]) -> tuple[Example, ...]:
    """The result's ``examples`` with a picture for each image, or the reason why there is none.

    Cost: some ms a picture; for images of a dataset its column of ids is read once.
    """
    raw = [one for one in _dicts(result.get("examples")) if _dicts(one.get("images"))][:SHOWN]
    images = [image for one in raw for image in _dicts(one["images"])[:HITS]]
    pictures = iter(thumbnails(_bytes(result, images), SIDE))
    return tuple(
        Example(
            language=str(one.get("language", "")),
            text=str(one.get("text", "")),
            hits=tuple(
                Hit(next(pictures), str(image.get("class") or ""), image.get("right") is True)
                for image in _dicts(one["images"])[:HITS]
            ),
        )
        for one in raw
    )


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _bytes(result: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> list[bytes | None]:
    """The encoded picture of each image; None for one that is not at hand."""
    settings = result.get("settings")
    size = settings.get("size") if isinstance(settings, Mapping) else None
    side = size if isinstance(size, int) and SIZES[0] <= size <= SIZES[1] else _RENDERED
    found: dict[str, bytes | None] = {}
    for image in images:
        url = image.get("url")
        if isinstance(url, str) and url.startswith(GENERATED) and url not in found:
            try:
                found[url] = render(url, side)
            except HeadraceError:
                found[url] = None
    ids = {
        str(image["image_id"])
        for image in images
        if image.get("image_id") and not found.get(str(image.get("url")))
    }
    stored = _stored(result, ids) if ids else {}
    return [found.get(str(i.get("url"))) or stored.get(str(i.get("image_id"))) for i in images]


def _stored(result: Mapping[str, Any], ids: set[str]) -> dict[str, bytes]:
    """Pictures of the dataset that was evaluated, by id in hex, if it is still the same."""
    settings = result.get("settings")
    if not isinstance(settings, Mapping) or not settings.get("path"):
        return {}
    column = str(settings.get("image_column") or "image")
    try:
        dataset = open_dataset(str(settings["path"]))
        names = dataset.schema.names
        if dataset.manifest.digest != result.get("dataset") or not {column, "image_id"} <= set(
            names
        ):
            return {}
        return _read(dataset, column, ids)
    except HeadraceError:
        return {}


def _read(dataset: Dataset, column: str, ids: set[str]) -> dict[str, bytes]:
    wanted = [data for text in ids if (data := _unhex(text)) is not None]
    kind = dataset.schema.field("image_id").type
    fitting = [data for data in wanted if getattr(kind, "byte_width", None) in (None, len(data))]
    values = pa.array(fitting, kind)
    found: dict[str, bytes] = {}
    for shard in range(len(dataset.shards())):
        tables = list(dataset.tables(["image_id"], shard))
        if not tables or len(found) == len(fitting):
            continue
        column_ids = pa.concat_tables(tables)["image_id"]
        hits = pc.is_in(column_ids, value_set=values).to_numpy()
        rows = np.flatnonzero(hits)
        picked = column_ids.take(pa.array(rows)).to_pylist()
        first = {one: int(row) for one, row in zip(reversed(picked), reversed(rows), strict=True)}
        new = {one: row for one, row in first.items() if one.hex() not in found}
        if not new:
            continue
        taken = dataset.take(shard, list(new.values()), [column])[column].to_pylist()
        for one, value in zip(new, taken, strict=True):
            data = value.get("bytes") if isinstance(value, dict) else value
            if data:
                found[one.hex()] = bytes(data)
    return found


def _unhex(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None
