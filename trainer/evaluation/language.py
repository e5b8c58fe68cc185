"""A trained language model with its tokenizer, from a run or a `transformers` folder, and what it says
of texts: log-probabilities of given tokens, greedy answers.

Nothing is downloaded and no code or pickle of a folder is run: weights come from safetensors only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from schemas.errors import HeadraceError, InputError, UsageError
from schemas.storage import storage
from trainer.evaluation import loading
from trainer.evaluation.progress import Progress

if TYPE_CHECKING:
    import torch

    from trainer.config import RunConfig

ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "<|eot_id|>")
"""Names of an end-of-text token, where no dataset or configuration says which it is."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answer:
    """What a model says of a text's last tokens, [k] each: log-probabilities in nats, and whether each
    is the most probable token."""

    log_probs: npt.NDArray[np.float64]
    greedy: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LanguageModel:
    """A model ready to read: weights in fp32, on the GPU if there is one.

    ``facts`` say where it came from (see `loading.Loaded`); ``eos``: id of its end of text, if known;
    ``documents``: whether it was trained on documents that did not see what came before them.
    """

    model: Any
    tokenizer: Any  # tokenizers.Tokenizer
    facts: dict[str, Any] = field(default_factory=dict)
    batch: int = 64
    eos: int | None = None
    documents: bool = False

    @property
    def context(self) -> int:
        """Tokens that the model reads at once."""
        return int(self.model.config.max_position_embeddings)

    @property
    def vocabulary(self) -> int:
        """Tokens that the model tells apart."""
        return int(self.model.config.vocab_size)

    def encode(self, text: str) -> list[int]:
        """Return a text's tokens, none added; a special token's name in it is spelled out."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def answers(self, rows: Sequence[tuple[Ids, int]], label: str = "sequences") -> list[Answer]:
        """Return what the model says of the last k tokens of each sequence, for rows (tokens, k).

        UsageError for a row of more than ``context`` + 1 tokens, or of no token before its last k.
        """
        found: list[Answer | None] = [None] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))  # little padding
        progress = Progress(label, len(rows))
        for chosen in _batches(order, [len(rows[i][0]) for i in order], self.batch * self.context):
            for i, answer in zip(chosen, self._answers([rows[i] for i in chosen]), strict=True):
                found[i] = answer
            progress.add(len(chosen))
        return [answer for answer in found if answer is not None]

    def _answers(self, rows: Sequence[tuple[Ids, int]]) -> Iterator[Answer]:
        import torch

        longest = max(len(tokens) for tokens, _ in rows) - 1
        if longest > self.context:
            raise UsageError(f"a sequence of {longest + 1} tokens; this model reads {self.context}")
        ids = np.zeros((len(rows), longest), np.int64)
        targets = np.full((len(rows), longest), -1, np.int64)
        for row, (tokens, k) in enumerate(rows):
            if not 0 < k < len(tokens):
                raise UsageError(f"the last {k} of {len(tokens)} tokens: each needs one before it")
            ids[row, : len(tokens) - 1] = tokens[:-1]
            targets[row, len(tokens) - 1 - k : len(tokens) - 1] = tokens[-k:]
        with torch.inference_mode():
            # Attention is causal: padding at the end is idle.
            states = self.model.hidden(torch.from_numpy(ids).to(self.model.device))
            wanted = torch.from_numpy(targets).to(states.device)
            logs, best = self._of_states(states[wanted >= 0], wanted[wanted >= 0])
        start = 0
        for _, k in rows:
            yield Answer(logs[start : start + k], best[start : start + k])
            start += k

    def _of_states(
        self, states: torch.Tensor, targets: torch.Tensor
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        from trainer.objectives.linear_cross_entropy import ELEMENTS

        logs, best = np.empty(len(targets)), np.empty(len(targets), bool)
        size = max(1, ELEMENTS // self.vocabulary)
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            found = self.model.lm_head(states[part]).float().log_softmax(-1)
            picked = found.gather(-1, targets[part, None]).squeeze(-1)
            logs[part] = picked.double().cpu().numpy()
            best[part] = (found.argmax(-1) == targets[part]).cpu().numpy()
        if not np.isfinite(logs).all():
            raise InputError(
                f"{self.facts.get('place', 'the model')}: its log-probabilities are not finite numbers, "
                "so no score of them means anything; give weights that are finite in fp32"
            )
        return logs, best


def load(
    place: str | Path, batch: int = 64, step: int | None = None
) -> LanguageModel | loading.Loaded:
    """Load a run or a folder of `transformers`, with whichever kind of model it has.

    ``step``: of a run's checkpoint, the latest if None; UsageError for one that is not there. InputError
    if the place is neither, or lacks a part; the message says what was looked for.
    """
    from trainer.models.decoder_model import CLASSES

    root = storage(place)
    if root.exists(loading.RUN):
        if loading.read_run(place)["config"]["model"].get("name") == "decoder":
            return of_run(place, batch, step)
        return loading.load(place, batch, step)
    if step is not None:
        raise UsageError(
            f"--step {step}: {place} is not a run of `trainer launch` (it has no {loading.RUN}), and only "
            "a run has checkpoints of steps: give its output directory, or leave --step out"
        )
    if root.is_local and root.exists("config.json") and _model_type(root.url) in CLASSES:
        return of_folder(Path(root.url), batch)
    return loading.load(place, batch)


def load_language(place: str | Path, batch: int = 64, step: int | None = None) -> LanguageModel:
    """Load as `load`. InputError if it is no language model."""
    found = load(place, batch, step)
    if not isinstance(found, LanguageModel):
        raise InputError(f"{place} has an image-text model: give a language model's run or folder")
    return found


def of_run(place: str | Path, batch: int = 64, step: int | None = None) -> LanguageModel:
    """Load a run directory's checkpoint of a step, the latest if None."""
    from trainer import data_tokenizer
    from trainer.config import RunConfig, part
    from trainer.engine.checkpoint import at_step, latest, read_weights
    from trainer.engine.checkpoint_place import checkpoints
    from trainer.protocols import Parts

    root = storage(place)
    run = loading.read_run(place)
    config = RunConfig.model_validate(run["config"])
    folder = checkpoints(config, root)
    checkpoint = latest(folder) if step is None else at_step(folder, step)
    if checkpoint is None:
        raise InputError(f"{place} has no checkpoint yet; let the run go on until it has saved one")
    tokenizer = data_tokenizer.parse(root.read_bytes(data_tokenizer.FILE), root.url)
    tokenizer.encode_special_tokens = True
    module, settings = part("model", config.model)
    with loading.quiet():
        model = module.build(settings, config, Parts(tokenizer=tokenizer))
    try:
        model.load_state_dict(read_weights(folder, checkpoint), strict=True)
    except RuntimeError as error:
        raise InputError(
            f"{place}: {checkpoint} is a checkpoint of another model than that of {loading.RUN}: "
            f"{str(error).splitlines()[-1].strip()[:300]}; bring the {loading.RUN} of its run back"
        ) from None
    facts = {
        "kind": "run",
        "place": str(place),
        "checkpoint": checkpoint,
        "data": run.get("data"),
        "seed": run.get("seed"),
    }
    apart = bool(config.data.get("document_mask", True))
    eos = _eos_of_data(config, tokenizer)
    return LanguageModel(loading.ready(model), tokenizer, facts, batch, eos, apart)


def of_folder(folder: Path, batch: int = 64) -> LanguageModel:
    """Load a Llama or GPT-2 saved by `transformers`, with its tokenizer."""
    from transformers import AutoTokenizer

    from trainer import data_tokenizer
    from trainer.models.decoder_model import from_folder

    with loading.quiet():
        model: Any = from_folder(str(folder), {})
        hugging = loading.pretrained(AutoTokenizer, folder, "a tokenizer")
    backend = getattr(hugging, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"{folder}: its tokenizer is not one of `tokenizers`; add its {data_tokenizer.FILE}"
        )
    tokenizer = data_tokenizer.parse(backend.to_str().encode(), str(folder))
    tokenizer.encode_special_tokens = True
    facts = {"kind": "transformers", "place": str(folder)}
    eos = hugging.eos_token_id
    return LanguageModel(loading.ready(model), tokenizer, facts, batch, eos)


def vocabulary(config: RunConfig) -> int | None:
    """Return how many tokens a run's model tells apart, if its directory or settings say so."""
    from trainer import data_tokenizer

    try:
        data = storage(config.output).read_bytes(data_tokenizer.FILE)
        return int(data_tokenizer.parse(data, config.output).get_vocab_size())
    except (OSError, HeadraceError):
        found = config.model.get("shape", {}).get("vocab_size")
        return found if isinstance(found, int) else None


# -- helpers -------------------------------------------------------------------------------


def _eos_of_data(config: RunConfig, tokenizer: Any) -> int | None:
    """The end of text as the data's manifest has it; by its name if the data is not at hand."""
    from schemas.dataset import open_dataset
    from trainer import data_tokenizer

    for path in data_tokenizer.locations(config.data):
        try:
            eos = open_dataset(path).manifest.config.get("tokens", {}).get("eos")
        except HeadraceError:
            continue
        return None if eos is None else int(eos)
    found = (tokenizer.token_to_id(name) for name in ENDS)
    return next((number for number in found if number is not None), None)


def _model_type(folder: str) -> str | None:
    import json

    try:
        found = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found.get("model_type") if isinstance(found, dict) else None


def _batches(order: list[int], lengths: list[int], tokens: int) -> Iterator[list[int]]:
    """Rows in their order, so many that the longest times their number is at most ``tokens``."""
    batch: list[int] = []
    longest = 0
    for row, length in zip(order, lengths, strict=True):
        longest = max(longest, length)
        if batch and longest * (len(batch) + 1) > tokens:
            yield batch
            batch, longest = [], length
        batch.append(row)
    if batch:
        yield batch
