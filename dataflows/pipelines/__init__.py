"""Recipes of the data side: one folder each. The registry imports none of them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from schemas.errors import UsageError

RECIPES = {
    "ingest": "raw files (WAT, Parquet, JSONL, webdataset tar, folders) to committed records",
    "metadata": "Wikipedia dumps, page views and wordnets to the concept lists of each language",
    "fetch": "URLs to shards with pictures: polite, safe, a reason for every refusal",
    "tokens": "raw text to token ids: filters, deduplication, decontamination, any tokenizer",
    "metaclip2": "raw pairs or records to a matched and a balanced, curated dataset",
}


def recipe(name: str) -> ModuleType:
    """The recipe module of ``name``: ``Config``, ``graph(config)``, ``NAME``, ``SUMMARY``."""
    if name not in RECIPES:
        import difflib

        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{name}: unknown recipe{hint} (known: {', '.join(RECIPES)})")
    return import_module(f"dataflows.pipelines.{name}.recipe")
