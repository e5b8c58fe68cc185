"""Groups of settings of the recipe: columns, near duplicates, contamination."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from curation.text.contamination import ContaminationOptions
from curation.text.near import NearOptions

_NEAR = NearOptions()
_RULE = ContaminationOptions()


class Columns(BaseModel):
    """Which columns (or JSON keys) hold what."""

    model_config = ConfigDict(extra="forbid")
    text: str | None = Field(
        None, description="text; found by its usual names (text, content, ...) if not given"
    )
    messages: str | None = Field(
        None, description="list of {role, content}, for chat_template=, instead of text"
    )
    source: str | None = Field(None, description="name of the row's source")
    language: str | None = Field(None, description="language of the row, instead of identifying it")


class Near(BaseModel):
    """MinHash near duplicates; the defaults are those of FineWeb and datatrove."""

    model_config = ConfigDict(extra="forbid")
    words: int = Field(_NEAR.words, description="words of an n-gram")
    bands: int = Field(_NEAR.bands, description="bands of a signature")
    rows: int = Field(_NEAR.rows, description="hashes of a band")
    seed: int = Field(_NEAR.seed, description="of the hash functions")
    threshold: float = Field(
        _NEAR.threshold, description="least estimated Jaccard similarity; 0 takes all candidates"
    )


class Contamination(BaseModel):
    """The rule by which a document shares text with an evaluation set (GPT-3, appendix C)."""

    model_config = ConfigDict(extra="forbid")
    words: int = Field(_RULE.words, description="words of an n-gram that both have")
    least_words: int = Field(
        _RULE.least_words, description="words of an evaluation text that is looked for in documents"
    )
    share: float = Field(
        _RULE.share, description="least share of a text's n-grams; 0: one is enough"
    )
    columns: list[str] = Field(
        [], description="columns of the evaluation sets, as question,solution; else their text"
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [part for part in value.split(",") if part] if isinstance(value, str) else value
