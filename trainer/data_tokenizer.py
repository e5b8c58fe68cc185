"""The tokenizer that a run's token data was made with (``tokenizer: {name: data}``).

Unlike a text tower's (`trainer.tokenizer`) it need not end a text with a token of its own: the data
has the ends of its documents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.dataset import open_dataset
from schemas.errors import HeadraceError, InputError, UsageError
from schemas.storage import storage
from schemas.text_schemas import TOKENS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from trainer.config import RunConfig
    from trainer.protocols import Place

FILE = "tokenizer.json"
"""Name of the tokenizer in a token dataset's blobs and in the run's directory."""


def named(config: RunConfig) -> bool:
    """Return whether a run's tokenizer is the data's: settings say so, or the data is tokens.

    A model without a tokenizer (``model.shape.vocab_size``) has neither.
    """
    setting = config.tokenizer
    if setting == "data" or (isinstance(setting, Mapping) and setting.get("name") == "data"):
        return True
    given = setting is not None or config.model.get("init_from")
    return bool(given) and config.data.get("name") == "tokens"


def read(config: RunConfig) -> tuple[bytes, str]:
    """Return the bytes of the tokenizer of the run's token data, and the dataset.

    UsageError without data or if settings give another tokenizer, InputError if it is no token data,
    IntegrityError if the blob was changed.
    """
    setting = config.tokenizer
    if isinstance(setting, Mapping):
        if setting.get("name") != "data":
            raise UsageError(
                f"tokenizer.name={setting.get('name')}: token data was made by a tokenizer, which is the "
                "run's: give tokenizer={name: data}"
            )
        if more := set(setting) - {"name"}:
            raise UsageError(f"tokenizer.{min(more)}: the data decides it; leave it out")
    paths = locations(config.data)
    if not paths:
        raise UsageError(
            "tokenizer.name=data: give data.path= or data.mix=, of datasets of `dataflows run tokens`"
        )
    found = [(_blob(path), path) for path in paths]
    for data, path in found[1:]:
        if data != found[0][0]:
            raise UsageError(
                f"{path} was tokenised by another tokenizer than {found[0][1]}: tokenise both by one"
            )
    if isinstance(setting, str) and setting != "data":
        _check_file(setting, *found[0])
    return found[0]


def _check_file(file: str, data: bytes, path: str) -> None:
    """Raise UsageError if a tokenizer's file is another than the data's."""
    try:
        own = Path(file).expanduser().read_bytes()
    except OSError as error:
        raise InputError(
            f"tokenizer={file} cannot be read ({error.strerror}): give tokenizer={{name: data}}"
        ) from None
    if json.loads(parse(own, file).to_str()) != json.loads(parse(data, path).to_str()):
        raise UsageError(
            f"tokenizer={file} is another than the one that made {path}, so the ids would mean other "
            f"tokens: give tokenizer={{name: data}}, or tokenise the data with {file}"
        )


def locations(data: Mapping[str, Any]) -> list[str]:
    """Return the datasets that the settings of a token source name."""
    if path := data.get("path"):
        return [str(path)]
    return [str(part["path"]) for part in data.get("mix") or () if "path" in part]


def _blob(path: str) -> bytes:
    dataset = open_dataset(path)
    if dataset.spec.name != TOKENS.name:
        raise InputError(
            f"{path} is {dataset.spec.name}, not tokens: give a dataset of `dataflows run tokens`"
        )
    return dataset.blob(FILE).read_bytes()


def parse(data: bytes, name: str) -> Tokenizer:
    """Return the tokenizer of a file's bytes, which neither cuts nor pads; errors name ``name``."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the library raises a bare Exception
        raise InputError(
            f"{name}: its {FILE} is no file of `tokenizers`: {str(error).splitlines()[0]}"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def for_run(config: RunConfig, place: Place) -> Tokenizer:
    """Return the tokenizer and keep its bytes as ``OUTPUT/tokenizer.json``.

    The process group must stand. Every rank raises what rank 0 raises: the errors of `read`, and
    UsageError if the run began with another tokenizer.
    """
    found: list[Any] = [None]
    if place.rank == 0:
        try:
            found = [_kept(config)]
        except HeadraceError as error:
            found = [error]
    if place.ranks > 1:
        import torch.distributed

        torch.distributed.broadcast_object_list(found, src=0)
    if isinstance(found[0], Exception):
        raise found[0]
    return parse(found[0], config.output)


def _kept(config: RunConfig) -> bytes:
    data, path = read(config)
    parse(data, path)
    output = storage(config.output)
    if not output.create(FILE, data) and output.read_bytes(FILE) != data:
        raise UsageError(
            f"{output.path(FILE)} is not the tokenizer of {path}: a run keeps the one it began with; "
            "give the data that it had, or another output="
        )
    return data
