"""Which metadata entries occur in a text: an automaton file per language, matched by compiled code.

`build` writes the file, `Automaton.open(path).match(texts)` reads it. The compiler (numba) loads
at the first call of either, not at import. Semantics: `classes`; complexity: `search`.
"""

from kernels.matching.automaton import Automaton
from kernels.matching.builder import build

__all__ = ["Automaton", "build"]
