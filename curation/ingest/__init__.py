"""Ingest: from files of the world to RECORDS tables, every file pinned, every row accounted for.

    pinned = pin_sources(find("s3://bucket/pool/*.parquet"))    # pinned.pins go to the manifest
    for unit in plan(pinned, options):
        for outcome in read(unit, options):
            ...                                                 # outcome.table, .ledger, .dead

Formats: Common Crawl WAT, Parquet and JSON lines of URL and text (LAION, DataComp, any columns),
webdataset tar, a folder of images with captions.
"""

from curation.ingest.options import Columns, IngestOptions
from curation.ingest.plan import ReadUnit, plan
from curation.ingest.read import read
from curation.ingest.sources import Pinned, find, pin_sources
from curation.ingest.units import grouped, notes

__all__ = [
    "Columns",
    "IngestOptions",
    "Pinned",
    "ReadUnit",
    "find",
    "grouped",
    "notes",
    "pin_sources",
    "plan",
    "read",
]
