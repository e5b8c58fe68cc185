"""A trained run as a folder of `transformers`: model, tokenizer, processor and card.

A CLIP loads by ``AutoModel`` and ``AutoProcessor`` without this project and without torchvision, a
language model by ``AutoModelForCausalLM`` and ``AutoTokenizer``. The folder appears whole, by one
rename, or not at all.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import ConflictError, InputError, UsageError
from schemas.storage import storage
from trainer.ancestors import datasets_of
from trainer.evaluation.language import LanguageModel, load
from trainer.evaluation.loading import Loaded, quiet, read_run
from trainer.export_card import card
from trainer.export_chat import Chat, chat_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def export(run: str, to: str | None = None, replace: bool = False, step: int | None = None) -> Path:
    """Write a run's checkpoint of a step, the latest if None, as a folder of `transformers`; return its
    path.

    ``to``: a local folder (default: RUN/export). ConflictError if it exists and ``replace`` is not
    given; with ``replace`` only a former export is replaced, and evaluations in it go too. UsageError
    for a place that is not local and a step without checkpoint, InputError if the run cannot be read.
    """
    description = read_run(run)
    target = _target(run, to)
    _check_free(target, replace)
    loaded = load(run, step=step)
    with _appearing(target) as folder:
        loaded.model.to("cpu")
        with quiet():
            if isinstance(loaded, LanguageModel):
                data, settings = description.get("data") or {}, description["config"].get("data")
                chat, _ = chat_of(datasets_of(data, settings or {})[0])  # the card tells why not
                _save_language(loaded, folder, chat)
            else:
                _save_clip(loaded, folder)
        text = card(description, loaded)
        (folder / "README.md").write_text(text, encoding="utf-8")
        _durable(folder)
        _check_free(target, replace)  # another export may have been faster
    return target


def _save_clip(loaded: Loaded, folder: Path) -> None:
    from trainer.models.clip import LOGIT_SCALE_BOUNDS

    if (scale := getattr(loaded.model, "logit_scale", None)) is not None:
        # Training clamps it in the forward pass (`Bounded`); classes of transformers do not.
        scale.clamp_(*LOGIT_SCALE_BOUNDS)
    loaded.model.save_pretrained(folder)
    processor(loaded).save_pretrained(folder)


def _save_language(loaded: LanguageModel, folder: Path, chat: Chat | None) -> None:
    settle(loaded)
    loaded.model.save_pretrained(folder)
    language_tokenizer(loaded, chat).save_pretrained(folder)


def settle(loaded: LanguageModel) -> None:
    """Tell the model what ends a text and that it may keep keys and values, for `generate`."""
    from transformers import GenerationConfig

    model = loaded.model
    model.config.eos_token_id = loaded.eos
    model.config.use_cache = True
    model.generation_config = GenerationConfig(eos_token_id=loaded.eos, pad_token_id=loaded.eos)


def language_tokenizer(loaded: LanguageModel, chat: Chat | None = None) -> PreTrainedTokenizerBase:
    """The model's tokenizer as `transformers` has it: same ids, no token added.

    Special tokens written in a text are split like any other text, as in training; with the chat template
    that the data was rendered by they are read as such, as those of the template were.
    """
    from transformers import PreTrainedTokenizerFast

    special = {}
    if loaded.eos is not None:
        special = dict.fromkeys(
            ("eos_token", "pad_token"), loaded.tokenizer.id_to_token(loaded.eos)
        )
    if chat is not None:  # what the template writes for them
        special |= chat.named(loaded.tokenizer)
    return PreTrainedTokenizerFast(
        tokenizer_object=loaded.tokenizer,
        model_max_length=loaded.context,
        padding_side="right",
        split_special_tokens=chat is None,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **({"chat_template": chat.template} if chat is not None else {}),
        **special,
    )


def processor(loaded: Loaded) -> Any:
    """The model's `CLIPProcessor`: its image transform (Pillow) and its tokenizer."""
    from transformers import CLIPProcessor

    return CLIPProcessor(loaded.processor, tokenizer(loaded))


def tokenizer(loaded: Loaded) -> PreTrainedTokenizerBase:
    """The model's tokenizer as `transformers` has it: same ids, ``padding="max_length"`` and
    ``truncation=True`` to the model's context.

    Special tokens written in a text are split like any other text, as in training, so a caption
    with ``</s>`` has one end token.
    """
    from transformers import PreTrainedTokenizerFast

    from trainer.tokenizer import frame

    around = frame(loaded.tokenizer)
    named = {"eos_token": around.end, "pad_token": around.pad}
    if around.prefix:
        named["bos_token"] = around.prefix[0]
    special = {key: loaded.tokenizer.id_to_token(number) for key, number in named.items()}
    if loaded.tokenizer.token_to_id("<unk>") is not None:
        special["unk_token"] = "<unk>"
    return PreTrainedTokenizerFast(
        tokenizer_object=loaded.tokenizer,
        model_max_length=loaded.context,
        padding_side="right",
        truncation_side="right",
        split_special_tokens=True,
        model_input_names=["input_ids", "attention_mask"],
        **special,
    )


def _target(run: str, to: str | None) -> Path:
    place = storage(to) if to else storage(run).at("export")
    if not place.is_local:
        raise UsageError(f"{place.url}: an export goes to a local folder; give one by --to")
    return Path(place.url)


def _check_free(target: Path, replace: bool) -> None:
    if not os.path.lexists(target):
        return
    if not replace:
        raise ConflictError(f"{target} exists; give --replace to put a new export in its place")
    known = target.is_dir() and all(
        (target / name).is_file() for name in ("README.md", "config.json")
    )
    if target.is_symlink() or not known:
        raise ConflictError(
            f"{target} is no former export (it has no README.md and config.json), so --replace leaves "
            "it alone; remove it yourself or give another folder by --to"
        )


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A temporary folder beside the target that takes its place at the end; removed on errors."""
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = f"{os.getpid()}-{secrets.token_hex(4)}"
    folder = target.parent / f".{target.name}.{mark}.tmp"
    folder.mkdir()
    try:
        yield folder
        old = target.parent / f".{target.name}.{mark}.old"
        if target.exists():
            target.rename(old)
        try:
            folder.rename(target)
        except OSError as error:
            if old.exists():
                old.rename(target)
            raise InputError(f"{target}: cannot be put there: {error.strerror}") from None
        _sync(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _durable(folder: Path) -> None:
    mode = (folder / "config.json").stat().st_mode
    for file in folder.iterdir():
        file.chmod(mode)  # safetensors writes for the owner alone, whatever the umask
        _sync(file)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
