"""The data report: one self-contained HTML page about a run's committed datasets.

`source` opens them, `gather` reads the facts (`model`), `render` makes the page. No Beam here.
"""
