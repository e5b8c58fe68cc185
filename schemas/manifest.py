"""The manifest: a small JSON head that is the dataset (fields: ``schemas/README.md``)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import InputError, IntegrityError
from schemas.ids import HASH_NAME
from schemas.ledger import Ledger
from schemas.storage import Storage
from schemas.table_schemas import SCHEMAS, SchemaSpec

KEY = "manifest.json"
"""Key of the head below a dataset's root; its creation is the commit."""

FORMAT = 1
"""Version of the manifest format that this code writes and reads."""

COVERED = (
    "schema",
    "totals",
    "counts",
    "parents",
    "config",
    "seed",
    "hash",
    "inputs",
    "stats",
    "blobs",
    "shards",
)
"""Fields the digest covers (parents by digest, inputs by size and checksum, shards by digest)."""

UNCOVERED = ("recipe", "code", "libraries", "stage_key", "warnings", "licence", "run")
"""Fields outside the digest; edits of them are detected all the same."""


@dataclass
class Manifest:
    """Head of a committed dataset.

    ``digest`` and ``checks`` are filled by ``sealed``; ``run`` says who wrote it, where and when.
    """

    schema: dict[str, Any]
    totals: dict[str, int] = field(default_factory=dict)
    counts: list[dict[str, Any]] = field(default_factory=list)
    parents: list[dict[str, str]] = field(default_factory=list)
    recipe: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    hash: str = HASH_NAME
    code: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    stage_key: str = ""
    inputs: list[dict[str, Any]] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    licence: list[str] = field(default_factory=list)
    shards: dict[str, str] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    checks: dict[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> SchemaSpec:
        """The schema; InputError if this version of the project does not know it."""
        return known_schema(self.schema, "this manifest")

    @property
    def ledger(self) -> Ledger:
        """The conservation ledger."""
        return Ledger.from_json(self.counts)

    @property
    def rows(self) -> int:
        """Rows of the dataset."""
        return int(self.totals.get("rows", 0))

    def sealed(self) -> Manifest:
        """Return a copy with digest and per-field checks computed."""
        copy = dataclasses.replace(self)
        copy.checks = {name: _check(name, getattr(self, name)) for name in COVERED + UNCOVERED}
        copy.digest = _digest(copy.checks)
        return copy

    def to_json(self) -> bytes:
        """Return canonical JSON (sorted keys, UTF-8, one trailing newline)."""
        body = {"format": FORMAT, **dataclasses.asdict(self)}
        return _canonical(body, indent=1) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """Parse and check a head read from ``where``.

        InputError: a newer format or schema. IntegrityError: not JSON, truncated, or edited
        (the message names the fields that disagree).
        """
        body = _parse(data, where)
        found = body.pop("format", None)
        if not isinstance(found, int):
            raise IntegrityError(
                f"{where} has no format number, so it is not a manifest or was edited by hand; "
                "restore it or build the dataset anew"
            )
        if found > FORMAT:
            raise InputError(
                f"{where} has manifest format {found}, this version of Headrace knows up to "
                f"{FORMAT}; upgrade Headrace to read it"
            )
        known_schema(body.get("schema"), where)
        names = {f.name for f in dataclasses.fields(cls)}
        if set(body) != names:
            odd = sorted(set(body) ^ names)
            raise IntegrityError(
                f"{where} was edited by hand: fields {', '.join(odd)} are missing or unknown; "
                "restore it or build the dataset anew"
            )
        manifest = cls(**body)
        manifest._verify(where)
        return manifest

    @classmethod
    def load(cls, storage: Storage) -> Manifest:
        """Read a dataset's head; InputError if there is none."""
        try:
            data = storage.read_bytes(KEY)
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{storage.url} is not a committed dataset: it has no {KEY}; give the directory "
                "of a dataset (one stage of a run), or run the command that builds it to its end"
            ) from None
        return cls.from_json(data, storage.path(KEY))

    def _verify(self, where: str) -> None:
        checks = {n: _check(n, getattr(self, n), where) for n in COVERED + UNCOVERED}
        recorded = self.checks if isinstance(self.checks, dict) else {}
        wrong = [name for name in checks if checks[name] != recorded.get(name)]
        if not wrong and _digest(checks) == self.digest:
            return
        what = f"field {', '.join(wrong)}" if wrong else "the digest"
        raise IntegrityError(
            f"{where} was edited by hand or damaged: {what} does not agree with the digest "
            f"{self.digest} (recomputed {_digest(checks)}); restore the original or build the "
            "dataset anew"
        )


def known_schema(schema: Any, where: str) -> SchemaSpec:
    """Return the spec of {name, version}; InputError for an unknown name or a newer version."""
    name = schema.get("name") if isinstance(schema, dict) else None
    version = schema.get("version") if isinstance(schema, dict) else None
    if not isinstance(name, str) or not isinstance(version, int):
        raise IntegrityError(f"{where} names no schema and version; restore it or build it anew")
    spec = SCHEMAS.get(name)
    if spec is None:
        raise InputError(
            f"{where} has schema {name!r} v{version}, which this version of Headrace does not "
            f"know; known: {', '.join(SCHEMAS)}. Upgrade Headrace to read it"
        )
    if version > spec.version:
        raise InputError(
            f"{where} has schema {name} v{version}, this version of Headrace knows up to "
            f"v{spec.version}; upgrade Headrace to read it"
        )
    return spec


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{where} is not valid JSON ({error}; {len(data)} bytes): it is truncated or damaged; "
            "restore it or build the dataset anew"
        ) from None
    if not isinstance(body, dict):
        raise IntegrityError(
            f"{where} holds a {type(body).__name__}, not an object; restore it or build it anew"
        )
    return body


def _canonical(value: Any, indent: int | None = None) -> bytes:
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, indent=indent, separators=separators,
        allow_nan=False,
    )  # fmt: skip
    return text.encode("utf-8", "surrogatepass")


def _identity(name: str, value: Any) -> Any:
    """The part of a covered field that names its content, without paths."""
    if name == "parents":
        return [parent["digest"] for parent in value]
    if name == "inputs":
        return [[item["bytes"], item["checksum"]] for item in value]
    if name == "shards":
        return value.get("digest")
    return value


def _check(name: str, value: Any, where: str = "the manifest") -> str:
    try:
        identity = _identity(name, value)
        whole = _canonical([identity, value if identity is not value else None])
        covered = _canonical(identity)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise IntegrityError(
            f"{where}: field {name!r} cannot be stored as JSON or was edited by hand "
            f"({type(error).__name__}: {error}); numbers must be finite"
        ) from None
    return f"{_short(covered)}:{_short(whole)}"


def _digest(checks: dict[str, str]) -> str:
    covered = {name: checks[name].partition(":")[0] for name in COVERED}
    return hashlib.sha256(_canonical({"format": FORMAT, "fields": covered})).hexdigest()


def _short(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def finite(value: float) -> float | None:
    """Return a number a manifest can hold: None instead of NaN and infinities."""
    return value if math.isfinite(value) else None
