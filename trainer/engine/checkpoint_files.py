"""A checkpoint at rest: shards of tensors and the manifest that names them; no DeepSpeed here.

``step-00000100/manifest.json`` is the checkpoint; its exclusive create is the commit. Shards are
cut from the model's own order and a size bound, so they are the same bytes for every ZeRO stage
and number of ranks that saved the same state. A directory without a manifest is what a killed
save left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schemas.errors import ConflictError, InputError, IntegrityError
from schemas.storage import Storage

if TYPE_CHECKING:
    import torch

KEY = "manifest.json"
LATEST = "latest"
FORMAT = 1
MASTERS = "masters"
"""The fp32 weights. Other kinds of tensors are the optimizer's moments, by torch's names."""
FORWARD = "forward"
"""The weights that the forward uses; hashed, not stored: they are the masters, rounded."""
BUFFERS = "buffers"
SHARD_BYTES = 256 << 20
"""Bound of a shard; a larger tensor is a shard of its own."""

_HOW = ("ranks", "zero")
"""Facts of how a state was saved: outside the digest."""


@dataclass(frozen=True)
class Shard:
    """Tensors of one kind that are one file: ``masters-00000``."""

    kind: str
    number: int
    names: tuple[str, ...]


@dataclass
class Manifest:
    """Head of a checkpoint. ``tensors``: {parameter: {shape, step, and SHA-256 by kind}}."""

    facts: dict[str, Any]
    precision: str
    tensors: dict[str, dict[str, Any]]
    buffers: dict[str, dict[str, Any]]
    tied: dict[str, str]
    files: list[dict[str, Any]] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    check: str = ""

    def sealed(self) -> Manifest:
        """Return a copy with hashes of each kind, digest and check."""
        copy = dataclasses.replace(self, hashes=self._hashes())
        copy.digest = copy._digest()
        copy.check = copy._check()
        return copy

    def to_json(self) -> bytes:
        """Return canonical JSON."""
        return _canonical({"format": FORMAT, **dataclasses.asdict(self)}, 1) + b"\n"

    def kinds(self) -> list[str]:
        """Return the kinds of tensors that the files hold."""
        return list(dict.fromkeys(item["kind"] for item in self.files))

    @classmethod
    def load(cls, folder: Storage, name: str) -> Manifest:
        """Read and check the head of a checkpoint.

        Errors: InputError if there is none or it is of a newer format, IntegrityError if damaged.
        """
        where = folder.path(f"{name}/{KEY}")
        try:
            data = folder.read_bytes(f"{name}/{KEY}")
        except (FileNotFoundError, NotADirectoryError):
            known = ", ".join(committed(folder)) or "none"
            raise InputError(
                f"{folder.path(name)} is not a checkpoint: it has no {KEY} (a save that was cut "
                f"short leaves none); checkpoints here: {known}"
            ) from None
        try:
            body = json.loads(data)
            version = body.pop("format")
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            raise _damaged(folder, name, f"{where} ({len(data)} bytes) is no manifest") from None
        if not isinstance(version, int) or version > FORMAT:
            raise InputError(
                f"{where} has checkpoint format {version}, this version of Headrace knows up to "
                f"{FORMAT}: upgrade Headrace to read it"
            )
        if set(body) != {item.name for item in dataclasses.fields(cls)}:
            raise _damaged(folder, name, f"{where} lacks fields or has unknown ones")
        found = cls(**body)
        if found.check != found._check():
            raise _damaged(folder, name, f"{where} was edited or damaged: its check disagrees")
        return found

    def _hashes(self) -> dict[str, str]:
        lines: dict[str, list[str]] = {}
        for name in sorted(self.tensors):
            for kind, value in self.tensors[name].items():
                if kind not in ("shape", "step"):
                    lines.setdefault(kind, []).append(f"{name} {value}")
        return {kind: _sha("\n".join(text).encode()) for kind, text in sorted(lines.items())}

    def _digest(self) -> str:
        facts = {key: value for key, value in self.facts.items() if key not in _HOW}
        state = [facts, self.precision, self.tensors, self.buffers, self.tied, self.files]
        return _sha(_canonical(state))

    def _check(self) -> str:
        return _sha(_canonical({**dataclasses.asdict(self), "check": ""}))


def plan_shards(sizes: Mapping[str, Mapping[str, int]]) -> list[Shard]:
    """Cut {kind: {tensor: bytes}} into shards of at most `SHARD_BYTES`, in the order given."""
    shards: list[Shard] = []
    for kind, tensors in sizes.items():
        group: list[str] = []
        size = number = 0
        for name, nbytes in tensors.items():
            if group and size + nbytes > SHARD_BYTES:
                shards.append(Shard(kind, number, tuple(group)))
                group, size, number = [], 0, number + 1
            group.append(name)
            size += nbytes
        if group:
            shards.append(Shard(kind, number, tuple(group)))
    return shards


def write_shard(
    folder: Storage, name: str, shard: Shard, tensors: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """Write a shard, durably; return its entry of the manifest. Errors: StorageError."""
    from safetensors.torch import save

    data = save({key: value.contiguous().cpu() for key, value in tensors.items()})
    digest = _sha(data)
    # The digest in the name: a save of the same state finds its files and replaces nothing.
    file = f"{shard.kind}-{shard.number:05d}-{digest[:16]}.safetensors"
    folder.create(f"{name}/{file}", data)
    entry = {"file": file, "kind": shard.kind, "bytes": len(data), "sha256": digest}
    return {**entry, "names": list(shard.names)}


def read_shard(folder: Storage, name: str, entry: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Read a shard and check its bytes. Errors: IntegrityError, StorageError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    file = folder.path(f"{name}/{entry['file']}")
    try:
        data = folder.read_bytes(f"{name}/{entry['file']}")
    except FileNotFoundError:
        raise _damaged(folder, name, f"{file} is missing") from None
    if len(data) != entry["bytes"]:
        what = f"{file} has {len(data)} bytes, the manifest says {entry['bytes']}"
        raise _damaged(folder, name, what)
    if (found := _sha(data)) != entry["sha256"]:
        what = f"{file} has SHA-256 {found}, the manifest says {entry['sha256']}"
        raise _damaged(folder, name, what)
    try:
        return dict(load(data))
    except SafetensorError as error:
        raise _damaged(folder, name, f"{file} is no safetensors file ({error})") from None


def read_kind(folder: Storage, name: str, manifest: Manifest, kind: str) -> dict[str, torch.Tensor]:
    """Read all tensors of a kind."""
    found: dict[str, torch.Tensor] = {}
    for entry in manifest.files:
        if entry["kind"] == kind:
            found.update(read_shard(folder, name, entry))
    return found


def commit(folder: Storage, name: str, manifest: Manifest) -> None:
    """Make the checkpoint exist, then the one that a run continues from.

    Errors: ConflictError when a checkpoint of another state has the name.
    """
    if not folder.create(f"{name}/{KEY}", manifest.to_json()):
        found = Manifest.load(folder, name)
        if found.digest != manifest.digest:
            raise ConflictError(
                f"{folder.path(name)} is a checkpoint of another state ({found.digest}, this run "
                f"has {manifest.digest}): another run writes here; give each its own output"
            )
    folder.replace(LATEST, name.encode() + b"\n")
    _keep(folder, name, manifest)


def discard(folder: Storage, name: str) -> None:
    """Delete what a save that failed has written; a checkpoint of that name stays whole."""
    if folder.exists(f"{name}/{KEY}"):
        _keep(folder, name, Manifest.load(folder, name))
    else:
        remove(folder, name)


def pointed(folder: Storage) -> str | None:
    """Return the checkpoint that ``latest`` names, if it is one."""
    try:
        name = folder.read_bytes(LATEST).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return None
    return name if name and folder.exists(f"{name}/{KEY}") else None


def committed(folder: Storage) -> list[str]:
    """Return the names of all checkpoints, oldest first."""
    return sorted(n for n, keys in _directories(folder).items() if f"{n}/{KEY}" in keys)


def remove(folder: Storage, name: str) -> None:
    """Delete a checkpoint, or what a killed save left: the manifest first."""
    keys = folder.list(name)
    for key in sorted(keys, key=lambda key: key != f"{name}/{KEY}"):
        folder.delete(key)
    _drop_empty(folder, f"{name}/.headrace/tmp", f"{name}/.headrace", name)


def sweep(folder: Storage, name: str) -> None:
    """Delete what killed saves left, and a checkpoint `name` that ``latest`` never named."""
    for found, keys in _directories(folder).items():
        unnamed = found == name and name != pointed(folder)
        if f"{found}/{KEY}" not in keys or unnamed:
            remove(folder, found)
        elif any(key.startswith(f"{found}/.headrace/") for key in keys):
            _keep(folder, found, Manifest.load(folder, found))
    folder.clean_temporary()


def tensor_sha(value: torch.Tensor) -> str:
    """Return the SHA-256 of a tensor's elements, little-endian."""
    import torch

    flat = value.detach().contiguous().cpu().view(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()


def _keep(folder: Storage, name: str, manifest: Manifest) -> None:
    """Delete what the manifest does not name."""
    keep = {KEY, *(item["file"] for item in manifest.files)}
    for key in folder.list(name):
        if key.removeprefix(f"{name}/") not in keep:
            folder.delete(key)
    _drop_empty(folder, f"{name}/.headrace/tmp", f"{name}/.headrace")


def _directories(folder: Storage) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key in folder.list():
        name, slash, _ = key.partition("/")
        if slash and not name.startswith("."):
            found.setdefault(name, set()).add(key)
    return found


def _drop_empty(folder: Storage, *keys: str) -> None:
    for key in keys:
        if (path := folder.local_path(key)) is not None:
            with contextlib.suppress(OSError):
                path.rmdir()


def _damaged(folder: Storage, name: str, what: str) -> IntegrityError:
    return IntegrityError(
        f"{what}; restore it from a copy, or delete {folder.path(name)} and run the same command "
        "again: it continues from the newest other checkpoint"
    )


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _canonical(value: Any, indent: int | None = None) -> bytes:
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, indent=indent, separators=separators
    ).encode()


def rounds(shards: Sequence[Any], ranks: int) -> Iterator[Sequence[Any]]:
    """Yield shards in rounds of one for each rank: rank r has number r of a round."""
    for start in range(0, len(shards), ranks):
        yield shards[start : start + ranks]
