"""Arrow schemas of all datasets, one ``SchemaSpec`` each, registered in ``SCHEMAS``.

Schemas evolve by adding nullable columns with a version bump. Ids are ``pa.binary(16)``; images are
``struct<bytes, path>`` with the feature metadata by which `datasets` decodes them.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.schema_spec import ENTRIES, ID, IMAGE, TEXTS, Columns, SchemaSpec, declare
from schemas.text_schemas import TEXT_SCHEMAS

__all__ = ["ENTRIES", "ID", "IMAGE", "SCHEMAS", "TEXTS", "SchemaSpec"]

_RECORD: Columns = [
    ("image_id", ID),
    ("url", pa.string()),
    ("texts", TEXTS),
    ("image", IMAGE),
    ("sha256", pa.binary(32)),
    ("phash", pa.uint64()),
    ("score", pa.float64()),
    ("file", pa.int32()),
    ("position", pa.int64()),
]
_POOL: Columns = [
    ("pair_id", ID),
    ("image_id", ID),
    ("url", pa.string()),
    ("key", pa.string()),
    ("text", pa.string()),
    ("source", pa.int32()),
    ("shard", pa.int32()),
    ("row", pa.int64()),
    ("score", pa.float64()),
]
_MATCHES: Columns = [
    *_POOL,
    ("language", pa.string()),
    ("metadata", pa.string()),
    ("entries", ENTRIES),
]
_MATCHED: Columns = [*_MATCHES, ("image_texts", pa.int32()), ("keep_probability", pa.float64())]
_ENTRY: Columns = [("metadata", pa.string()), ("entry", pa.uint32())]

RECORDS = declare(
    "records",
    _RECORD,
    sort_by=("file", "position"),
    unit="record",
    id_column="image_id",
    nullable=("url", "image", "sha256", "phash", "score"),
    doc="What ingest read: an image (or its URL) with its texts. file is the ordinal in the "
    "manifest's inputs, position the record's number in that file.",
)
POOL = declare(
    "pool",
    _POOL,
    sort_by=("image_id", "pair_id"),
    unit="text",
    id_column="pair_id",
    nullable=("url", "score"),
    doc="One text of one image. (source, shard, row) is where the record lies: ordinal of the "
    "input dataset, ordinal in its shard list, row in that shard.",
)
MATCHES = declare(
    "matches",
    _MATCHES,
    sort_by=("image_id", "pair_id"),
    unit="text",
    id_column="pair_id",
    nullable=("url", "score"),
    doc="A text with at least one metadata entry: identified language, metadata key, ascending "
    "unique entry numbers.",
)
MATCHED = declare(
    "matched",
    _MATCHED,
    sort_by=("image_id", "pair_id"),
    unit="text",
    id_column="pair_id",
    nullable=("url", "score"),
    doc="Every pair with a match: the number of matched texts of its image and the probability "
    "with which balancing keeps it. A trainer that draws anew each epoch reads this.",
)
PAIRED = declare(
    "paired",
    [*_MATCHED, ("image", IMAGE)],
    sort_by=("image_id", "pair_id"),
    unit="text",
    id_column="pair_id",
    nullable=("url", "score", "image"),
    doc="Every row of matched with its picture; the texts of an image lie together. A trainer that "
    "draws anew each epoch and needs pictures streams this.",
)
CURATED = declare(
    "curated",
    [*_MATCHED, ("image", IMAGE)],
    sort_by=("image_id", "pair_id"),
    unit="text",
    id_column="pair_id",
    nullable=("url", "score", "image"),
    doc="The draw of epoch 0; sorted by (source, shard, row, pair_id) where images are attached.",
)
METADATA = declare(
    "metadata",
    [*_ENTRY, ("text", pa.string()), ("source", pa.string())],
    sort_by=("metadata", "entry"),
    unit="entry",
    doc="Entries of each metadata key; source is w (WordNet), u, b (uni-, bigrams), t (titles).",
)
AUTOMATA = declare(
    "automata",
    [
        ("metadata", pa.string()),
        ("entries", pa.uint32()),
        ("blob", pa.string()),
        ("match", pa.string()),
    ],
    sort_by=("metadata",),
    unit="entry",
    doc="The compiled automaton of each metadata key: entry count, digest of its blob, match mode.",
)
COUNTS = declare(
    "counts",
    [*_ENTRY, ("count", pa.uint64())],
    sort_by=("metadata", "entry"),
    unit="entry",
    doc="Matched texts of each entry; only counts above 0.",
)
SAMPLE = declare(
    "sample",
    [
        ("metadata", pa.string()),
        ("rank", pa.uint64()),
        ("pair_id", ID),
        ("entries", ENTRIES),
        ("image_texts", pa.int32()),
    ],
    sort_by=("metadata", "rank", "pair_id"),
    unit="text",
    id_column="pair_id",
    doc="Bottom-k sample of matches by rank, a hash of the pair id.",
)
BALANCE = declare(
    "balance",
    [*_ENTRY, ("text", pa.string()), ("count", pa.uint64()), ("probability", pa.float64())],
    sort_by=("metadata", "entry"),
    unit="entry",
    doc="Probability with which each entry keeps its texts.",
)
VALID = declare(
    "valid",
    [("image_id", ID), ("shard", pa.int32()), ("row", pa.int64())],
    sort_by=("image_id",),
    unit="image",
    id_column="image_id",
    nullable=("shard", "row"),
    doc="Ids of images that were fetched and are wanted. (shard, row) is where the picture lies in "
    "the dataset that listed them, null where it holds none.",
    version=2,
)
FETCH_HOSTS = declare(
    "fetch_hosts",
    [("host", pa.string()), ("urls", pa.int64())],
    sort_by=("host",),
    unit="entry",
    doc="Hosts of so many URLs that these do not fit in one worker; sorted inside each shard.",
)
FETCH_UNITS = declare(
    "fetch_units",
    [
        ("unit", pa.string()),
        ("image_id", ID),
        ("url", pa.string()),
        ("host", pa.string()),
        ("share", pa.int32()),
    ],
    sort_by=("unit", "image_id"),
    unit="image",
    id_column="image_id",
    doc="What is to be fetched, in units of whole hosts; a host of too many URLs for one unit is "
    "split over as many units as its share says, and each keeps to that part of the host's rate.",
)
FETCHED = declare(
    "fetched",
    [
        ("unit", pa.string()),
        ("image_id", ID),
        ("url", pa.string()),
        ("image", IMAGE),
        ("sha256", pa.binary(32)),
        ("phash", pa.uint64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
    ],
    sort_by=("unit", "image_id"),
    unit="image",
    id_column="image_id",
    nullable=("image", "phash"),  # `datasets` takes a column for pictures only if it is nullable
    doc="Pictures as fetched and resized; sha256 and phash are those of the bytes that the server "
    "sent, sizes are in pixels. Refused URLs are in the dead letters, each with its reason.",
)
NGRAMS = declare(
    "ngrams",
    [
        ("wiki", pa.string()),
        ("kind", pa.string()),
        ("text", pa.string()),
        ("count", pa.uint64()),
        ("score", pa.float64()),
    ],
    sort_by=("wiki", "kind", "text"),
    unit="entry",
    nullable=("score",),
    doc="Unigrams (u), bigrams (b) and titles (t) of a wiki with their counts.",
)
DEAD_LETTERS = declare(
    "dead_letters",
    [
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("error", pa.string()),
        ("source", pa.string()),
        ("position", pa.int64()),
        ("row", pa.binary()),
    ],
    sort_by=(),
    unit="record",
    doc="Rows a stage could not process: row is an Arrow IPC stream of a one-row table of the "
    "stage's input schema, enough to replay it.",
)

SCHEMAS: dict[str, SchemaSpec] = {
    spec.name: spec
    for spec in (
        RECORDS,
        POOL,
        MATCHES,
        MATCHED,
        PAIRED,
        CURATED,
        METADATA,
        AUTOMATA,
        COUNTS,
        SAMPLE,
        BALANCE,
        VALID,
        FETCH_HOSTS,
        FETCH_UNITS,
        FETCHED,
        NGRAMS,
        DEAD_LETTERS,
        *TEXT_SCHEMAS,
    )
}
