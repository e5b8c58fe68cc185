"""Statistics add up over tables."""

from __future__ import annotations

import pytest

from schemas.step import merge_stats


def test_leaves_add_up_at_any_depth() -> None:
    a = {"n": 1, "languages": {"en": {"texts": 2}, "de": {"texts": 1, "mass": 0.5}}}
    b = {"n": 2, "languages": {"en": {"texts": 3}, "fr": {"texts": 4}}, "mode": "image"}
    merged = merge_stats(a, b)
    assert merged == {
        "n": 3,
        "languages": {"en": {"texts": 5}, "de": {"texts": 1, "mass": 0.5}, "fr": {"texts": 4}},
        "mode": "image",
    }
    assert merge_stats(merged, {"mode": "image"})["mode"] == "image"
    assert a["n"] == 1, "the arguments stay as they are"


def test_what_cannot_add_up_is_refused() -> None:
    with pytest.raises(ValueError, match="'mode'"):
        merge_stats({"mode": "image"}, {"mode": "text"})
    with pytest.raises(ValueError, match="'flag'"):
        merge_stats({"flag": True}, {"flag": False})
