"""Ingest: from files of the world to RECORDS tables, every file pinned, every row accounted for.

    made = plan("s3://bucket/pool/*.parquet", IngestOptions())
    for unit in made.units:
        for outcome in read(unit, options):
            ...                                    # outcome.table, .ledger, .dead

Formats: Common Crawl WAT, Parquet and JSON lines of URL and text (LAION, DataComp, any columns),
webdataset tar, a folder of images with captions.
"""

from curation.ingest.options import Columns, IngestOptions
from curation.ingest.plan import Plan, ReadUnit, plan
from curation.ingest.read import read

__all__ = ["Columns", "IngestOptions", "Plan", "ReadUnit", "plan", "read"]
