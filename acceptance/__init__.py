"""`make acceptance`: every promise of every system, run in a fresh clone, written to one JSON file.

Standard library only, so that it runs before anything is installed.
"""
