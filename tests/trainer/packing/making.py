"""Small token datasets, and a packer in plain Python that the real ones are compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas import ids
from schemas.commit import commit
from schemas.dataset import Dataset, open_dataset, put_blob
from schemas.ledger import Ledger
from schemas.manifest import Manifest
from schemas.storage import storage
from schemas.text_schemas import TOKENS
from schemas.writer import ShardWriter

TOKENIZER = (
    b'{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,'
    b'"pre_tokenizer":null,"post_processor":null,"decoder":null,'
    b'"model":{"type":"WordLevel","vocab":{"a":0,"b":1},"unk_token":"a"}}'
)


@dataclasses.dataclass(frozen=True)
class Text:
    """A document of a test."""

    tokens: Sequence[int]
    split: str = "train"
    source: str = "web"

    @property
    def doc_id(self) -> bytes:
        return ids.id128(b"document", np.asarray(self.tokens, "<u4").tobytes())


def texts(lengths: Sequence[int], *, validation: int = 0, first: int = 0) -> list[Text]:
    """Documents whose tokens are all different: 0, 1, 2, ... in the order of the documents.

    Every ``validation``-th one is of that split.
    """
    found = []
    for i, length in enumerate(lengths):
        held_out = validation and i % validation == validation - 1
        found.append(
            Text(range(first, first + length), "validation" if held_out else "train", f"s{i % 3}")
        )
        first += length
    return found


def made(
    root: Path,
    documents: Sequence[Text],
    *,
    group_rows: int = 7,
    shard_rows: int = 23,
    width: int = 4,
    vocabulary: int = 1 << 20,
    tokenizer: bytes = TOKENIZER,
    **change: Any,
) -> Dataset:
    """Commit documents in small row groups and shards. ``change``: other columns or fields of the head."""
    columns = {
        "doc_id": ids.id_array(d.doc_id for d in documents),
        "split": [d.split for d in documents],
        "source": [d.source for d in documents],
        "tokens": pa.array([np.array(d.tokens, f"<u{width}").tobytes() for d in documents]),
        "length": pa.array([len(d.tokens) for d in documents], pa.int32()),
    }
    rest = {name: change.pop(name) for name in list(change) if name in TOKENS.arrow.names}
    table = TOKENS.validate(pa.table({**columns, **rest}))
    place = storage(root)
    shards = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("schemas.writer.ROW_GROUP_ROWS", group_rows)
        for start in range(0, table.num_rows, shard_rows):
            with ShardWriter(place, TOKENS) as writer:
                writer.write(table.slice(start, shard_rows))
            shards += writer.close()
    ledger = Ledger()
    everything = ids.id_sum(table["doc_id"])
    ledger.add("document", "created", "generated", table.num_rows, everything)
    ledger.add("document", "out", "", table.num_rows, everything)
    (root / "tokenizer").write_bytes(tokenizer)
    head = Manifest(
        schema={"name": TOKENS.name, "version": TOKENS.version},
        counts=ledger.rows(),
        config={"tokens": {"bytes": width, "vocabulary": vocabulary, "eos": None}},
        stats={
            "tokens": {
                split: sum(len(d.tokens) for d in documents if d.split == split)
                for split in ("train", "validation")
            }
        },
        blobs={"tokenizer.json": put_blob(place, root / "tokenizer")},
    )
    commit(place, dataclasses.replace(head, **change), shards)
    return open_dataset(root)
