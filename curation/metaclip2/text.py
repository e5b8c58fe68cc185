"""Text rules of MetaCLIP 2 matching: classes, normalisation, spacing (spec 3.4, 4.3).

Defined beside the compiled kernel (`kernels.matching.classes`), which must agree with them.
"""

from kernels.matching.classes import (
    is_isolating,
    is_word,
    normalise,
    space_entry,
    space_text,
)

__all__ = ["is_isolating", "is_word", "normalise", "space_entry", "space_text"]
