"""Ingest: raw files to committed records."""
