"""Text to tokens: reading documents, filters, duplicates, contamination, tokenizers.

Plain functions on Arrow tables; ``dataflows.pipelines.tokens`` wires them into jobs.
"""
