"""What the data is: Arrow schemas, committed datasets, ids, ledgers, verification.

Importing this package (or any module of it) loads pyarrow and numpy only; fsspec and its
backends are imported when a path needs them. See ``schemas/README.md`` for the layout on disk,
the manifest's fields and the exit codes.
"""
