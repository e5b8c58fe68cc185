"""A model's weights one at a time, by name: drawn from a seed, or read from a folder of `safetensors`.

So a model can be built without any weight (`without_weights`), and each rank then makes one after the
other and keeps its part. Imports torch; import it only where a model is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from schemas.errors import InputError
from schemas.ids import id128

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
"""Files of a checkpoint: of one file, and the list of several."""


class Origin(Protocol):
    """Where a model's first weights come from."""

    def __call__(self, name: str) -> torch.Tensor:
        """Return a parameter in fp32 on the CPU: the same at each call, on each rank."""


@contextmanager
def without_weights() -> Iterator[None]:
    """Parameters of modules that are made in here lie on the meta device; buffers are real.

    Not for several threads at once: `torch.nn.Module` itself is changed meanwhile.
    """
    register = nn.Module.register_parameter

    def hollow(module: nn.Module, name: str, value: nn.Parameter | None) -> None:
        if value is not None and not value.is_meta:
            value = nn.Parameter(value.detach().to("meta"), value.requires_grad)
        register(module, name, value)

    nn.Module.register_parameter = hollow  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def fill(model: Any) -> None:
    """Give all parameters that are not on the meta device the weights of ``model.origin``."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_meta:
                parameter.copy_(model.origin(name))


class Drawn:
    """New weights. Each depends on the seed and its name only, so on no rank and no order.

    Embeddings have a spread of 0.02, matrices one of d^-0.5, those that write into the residual stream one of
    (2 L d)^-0.5 (GPT-2's scaling by depth); norms are 1, biases 0.
    """

    def __init__(self, model: Any, seed: int) -> None:
        """``model``: of `transformers`, for its configuration and the shapes of its parameters."""
        self._spread = float(model.config.hidden_size) ** -0.5
        self._residual = self._spread * (2 * model.config.num_hidden_layers) ** -0.5
        self._shapes = {name: p.shape for name, p in model.named_parameters()}
        self._seed = seed

    def __call__(self, name: str) -> torch.Tensor:
        """Draw a parameter."""
        shape = self._shapes[name]
        if name.endswith(".bias"):
            return torch.zeros(shape)
        if len(shape) < 2:
            return torch.ones(shape)
        spread = self._residual if name.endswith(_INTO_RESIDUAL) else self._spread
        spread = 0.02 if name.endswith(_EMBEDDINGS) else spread
        generator = torch.Generator().manual_seed(_number(self._seed, name))
        return torch.empty(shape).normal_(0, spread, generator=generator)


class Stored:
    """Weights of a checkpoint of `transformers`: one file of `safetensors`, or several with an index.

    Files are mapped, so what is not asked for is not in memory.
    """

    def __init__(self, folder: str, model: Any) -> None:
        """Compare the names and shapes in a folder with those of ``model``.

        A shared parameter may have any of its names; names may lack the prefix of the model's body, or
        have it besides. InputError for files that are missing or damaged, and for weights that are
        missing or of another shape.
        """
        self._folder = Path(folder).expanduser()
        self._files: dict[str, Any] = {}
        try:
            held = self._names()
            self._place = self._placed(held, model)
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"{folder}: cannot be loaded: {str(error).splitlines()[0]}") from None

    def __call__(self, name: str) -> torch.Tensor:
        """Read a parameter."""
        file, key = self._place[name]
        try:
            found: torch.Tensor = self._open(file).get_tensor(key)
            return found.to(torch.float32)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{self._folder / file}: {key} cannot be read: {error}") from None

    def _names(self) -> dict[str, str]:
        """File of each tensor of the checkpoint."""
        if not (index := self._folder / INDEX).exists():
            return dict.fromkeys(self._open(WHOLE).keys(), WHOLE)
        found = json.loads(index.read_text(encoding="utf-8"))
        files = found.get("weight_map") if isinstance(found, dict) else None
        if not isinstance(files, dict):
            raise ValueError(f"{INDEX} has no weight_map")
        for name, file in files.items():
            if not isinstance(file, str) or Path(file).name != file:
                raise ValueError(
                    f"{INDEX} says that {name} lies in {file!r}, no file of the folder"
                )
        return files

    def _open(self, file: str) -> Any:
        if file not in self._files:
            if not (self._folder / file).exists():
                raise FileNotFoundError(f"there is no {file}")
            self._files[file] = safe_open(str(self._folder / file), framework="pt")
        return self._files[file]

    def _placed(self, held: Mapping[str, str], model: Any) -> dict[str, tuple[str, str]]:
        prefix = f"{model.base_model_prefix}."
        found, missing = {}, []
        for name, names in _aliases(model).items():
            tries = [*names, *(n.removeprefix(prefix) for n in names), *(prefix + n for n in names)]
            key = next((n for n in tries if n in held), None)
            if key is None:
                missing.append(name)
                continue
            wanted = list(model.get_parameter(name).shape)
            part = self._open(held[key]).get_slice(key)
            if (shape := list(part.get_shape())) != wanted:
                raise ValueError(f"{key} has shape {shape}, config.json says {wanted}")
            if part.get_dtype() not in _FLOATS:
                raise ValueError(
                    f"{key} is {part.get_dtype()}; give weights in {', '.join(_FLOATS)}"
                )
            found[name] = held[key], key
        if missing:
            raise InputError(
                f"{self._folder} lacks {len(missing)} weights of a {model.config.model_type} model "
                f"({missing[0]}, ...): give a whole checkpoint with its language-model head"
            )
        return found


def _aliases(model: Any) -> dict[str, Sequence[str]]:
    """All names of each parameter, by the first."""
    first: dict[int, str] = {}
    found: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found.setdefault(first.setdefault(id(parameter), name), []).append(name)
    return dict(found)


_FLOATS = ("F32", "BF16", "F16", "F64")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "wpe.weight", "lm_head.weight")
_INTO_RESIDUAL = ("o_proj.weight", "down_proj.weight", "c_proj.weight")


def _number(seed: int, name: str) -> int:
    return int.from_bytes(id128(b"weights", str(seed).encode(), name.encode())[:7], "little")
