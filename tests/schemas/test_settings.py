"""Settings of the command line: quotes, lists, and what an error names."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import UsageError
from schemas.settings import build, merge, parse_overrides


class Part(BaseModel):
    """A group in a list."""

    model_config = ConfigDict(extra="forbid")
    path: str
    weight: float


class Inner(BaseModel):
    """A group."""

    model_config = ConfigDict(extra="forbid")
    text: str | None = None
    deep: Part | None = None


class Config(BaseModel):
    """Fields of every kind."""

    model_config = ConfigDict(extra="forbid")
    eos: str | None = None
    names: dict[str, str] = {}
    many: list[str] = []
    either: dict[str, str] | list[str] | str | None = None
    inner: Inner = Field(default_factory=Inner)
    mix: list[Part] = []
    p: float = 0.5


def given(*words: str) -> Config:
    """The configuration of a command line."""
    return build(Config, merge({}, parse_overrides(words)), "tokens")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("[SEP]", "[SEP]"),
        ('"[SEP]"', "[SEP]"),
        ("'[SEP]'", "[SEP]"),
        ('"0007"', "0007"),
        ('"null"', "null"),
        ('"a', '"a'),
        ('"a" b', '"a" b'),
        ('"', '"'),
        ("2024-01-01", "2024-01-01"),
        ("", ""),
    ],
)
def test_text_is_what_was_typed_without_its_quotes(word: str, value: str) -> None:
    assert given(f"eos={word}").eos == value
    assert given(f"inner.text={word}").inner.text == value
    assert given(f"names.x={word}").names == {"x": value}


def test_a_list_stays_one_where_a_list_is_expected() -> None:
    assert given("many=[a, b]", "eos=[SEP]").many == ["a", "b"]
    assert given("either=[a, b]").either == ["a", "b"]
    assert type(given("many=[a]").many) is list
    assert given("mix=[{path: a, weight: 0.5}]").mix == [Part(path="a", weight=0.5)]


def test_another_fault_is_named_beside_a_text_that_looks_like_a_list() -> None:
    with pytest.raises(UsageError, match=r"^p='x': .*number") as caught:
        given("eos=[SEP]", "p=x")
    assert "eos" not in str(caught.value)


def test_groups_of_another_form_are_told_what_to_give() -> None:
    with pytest.raises(UsageError) as caught:
        given("mix=[o1/tokens,o6c/tokens]")
    said = str(caught.value)
    assert "mix.0='o1/tokens': each of mix is a group of settings (path, weight)" in said
    assert "give mix='[{path: ..., weight: ...}, ...]'" in said
    with pytest.raises(UsageError, match=r"is a group of settings; give inner\.text, inner\.deep"):
        given("inner=3")
    with pytest.raises(UsageError, match=r"give inner\.deep\.path, inner\.deep\.weight"):
        given("inner.deep=3")
