"""Loads numba and the compiled functions; everything else imports this module inside functions."""

from __future__ import annotations

from pathlib import Path

from kernels.minhash import cache

with cache.kept(Path(__file__).parent):
    from kernels.minhash import overlap, scan, sketching, unions

shingles_of_texts = scan.shingles_of_texts
sketch_texts = scan.sketch_texts
sketch_rows = sketching.sketch_rows
band_rows = sketching.band_rows
join = unions.join
places_of_grams = overlap.places_of_grams
find_overlaps = overlap.find_overlaps
