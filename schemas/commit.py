"""Commit: one exclusive create of the head, after all shards are durable (DESIGN section 3)."""

from __future__ import annotations

import dataclasses
import datetime
import getpass
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.errors import ConflictError, InputError, IntegrityError
from schemas.ledger import Ledger
from schemas.manifest import KEY, Manifest
from schemas.shard_list import read_shard_list, write_shard_list
from schemas.storage import Storage
from schemas.table_schemas import SchemaSpec
from schemas.writer import Shard, write_empty

CARD = "README.md"
"""Key of the dataset card."""

ATTEMPTS = ".headrace/attempts"
"""Below it, one directory for each stage key with the unit logs of runs in progress."""

_SUPERSEDED = ".headrace/superseded"
_RETIRED = f"{_SUPERSEDED}/retired"


def commit(
    storage: Storage,
    manifest: Manifest,
    shards: Sequence[Shard],
    *,
    supersede: str | None = None,
    parents: Mapping[str, int] | None = None,
    card: str | bytes | None = None,
) -> Manifest:
    """Make the dataset exist, or find that it does; return its head.

    ``manifest`` needs no totals, shards or digest. ``parents`` gives rows per unit that the input
    manifests record, compared with the ledger's ``in``. ``card`` is the text of README.md (by
    default ``schemas.card.render(manifest)``). An equal dataset committed before is success.

    IntegrityError: the ledger does not balance, or shards contradict it. ConflictError: another
    dataset is committed here; ``supersede=<its digest>`` replaces exactly that one and keeps its
    head under ``.headrace/superseded/``.
    """
    spec = manifest.spec
    shards = [s for s in shards if s.rows] or [write_empty(storage, spec)]
    _check_shards(storage, shards)
    _check_ledger(spec, manifest, shards, parents)
    manifest = dataclasses.replace(manifest)
    manifest.schema = {"name": spec.name, "version": spec.version}
    manifest.totals = {
        "rows": sum(s.rows for s in shards),
        "bytes": sum(s.bytes for s in shards),
        "shards": len(shards),
    }
    manifest.run = {**_who(), **manifest.run, "generation": _first_generation(storage)}
    manifest.shards = write_shard_list(storage, shards)
    manifest = manifest.sealed()
    found = _existing(storage)
    if found is None and not storage.create(KEY, manifest.to_json()):
        found = Manifest.load(storage)
    if found is not None and found.digest != manifest.digest:
        if supersede is None or supersede != found.digest:
            withdraw(storage, shards, found)
            raise _conflict(storage, manifest, found)
        _replace_head(storage, manifest, found, shards)
        found = None
    committed = found or manifest
    tidy(storage, committed, card)
    return committed


def retire(storage: Storage, digest: str) -> None:
    """Withdraw the head ``digest``, its shards and its card; the head is archived first.

    The head goes last, so a run that is killed meanwhile can call it again.
    """
    head = Manifest.load(storage)
    if head.digest != digest:
        raise ConflictError(f"{storage.url} holds {head.digest} by now, not {digest}; run it again")
    storage.create(f"{_SUPERSEDED}/{digest}.json", head.to_json())
    storage.replace(_RETIRED, str(int(head.run.get("generation", 0)) + 1).encode())
    for key in (CARD, *storage.list("data"), KEY):
        storage.delete(key)


def tidy(storage: Storage, manifest: Manifest, card: str | bytes | None = None) -> None:
    """Finish a commit: write the card, remove strangers from ``data/`` and finished attempts.

    Idempotent; a run that was killed after its commit calls it again (see ``is_tidy``).
    """
    from schemas.card import render

    if Manifest.load(storage).digest != manifest.digest:
        return  # superseded meanwhile: its successor tidies
    text = render(manifest, name=storage.name) if card is None else card
    storage.replace(CARD, text.encode() if isinstance(text, str) else text)
    keep = {shard.file for shard in read_shard_list(storage, manifest)}
    for key in storage.list("data"):
        if key not in keep:
            storage.delete(key)
    if manifest.stage_key:
        for key in storage.list(f"{ATTEMPTS}/{manifest.stage_key}"):
            storage.delete(key)
    storage.clean_temporary()
    storage.create(_tidy_key(manifest), b"")


def is_tidy(storage: Storage, manifest: Manifest) -> bool:
    """Whether ``tidy`` ran to its end after this head was committed."""
    return storage.exists(_tidy_key(manifest))


def _tidy_key(manifest: Manifest) -> str:
    return f".headrace/tidy-{manifest.run.get('generation', 0)}-{manifest.digest}"


def _who() -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "user": user, "pid": os.getpid(), "committed": now}


def _check_shards(storage: Storage, shards: Sequence[Shard]) -> None:
    seen: set[str] = set()
    for shard in shards:
        if shard.digest in seen:
            raise IntegrityError(
                f"{storage.url}: two shards have the same content ({shard.file}), so readers of "
                "data/ would see their rows once; rows were doubled, or the rows need an id"
            )
        seen.add(shard.digest)


def _check_ledger(
    spec: SchemaSpec,
    manifest: Manifest,
    shards: Sequence[Shard],
    parents: Mapping[str, int] | None,
) -> None:
    rows = sum(s.rows for s in shards)
    ledger: Ledger = manifest.ledger
    if spec.name == "dead_letters":
        # Their rows are "rejected" in the ledger of the stage's own dataset.
        ledger.check(parents=parents)
        return
    ids: dict[str, int] = {}
    if spec.id_column and all(s.id_sum for s in shards):
        ids[spec.unit] = sum(int(s.id_sum, 16) for s in shards) % (1 << 128)
    ledger.check(parents=parents, out={spec.unit: rows}, out_id_sum=ids)


def _first_generation(storage: Storage) -> int:
    """Heads count up over the life of a place, so that no claim of a successor repeats."""
    try:
        return int(storage.read_bytes(_RETIRED))
    except FileNotFoundError:
        return 0


def _existing(storage: Storage) -> Manifest | None:
    if not storage.exists(KEY):
        return None
    return Manifest.load(storage)


def withdraw(storage: Storage, shards: Sequence[Shard], winner: Manifest) -> None:
    """Remove the loser's shards, which readers of ``data/`` would take for the winner's."""
    keep = {shard.file for shard in read_shard_list(storage, winner)}
    for shard in shards:
        if shard.file not in keep:
            storage.delete(shard.file)


def _conflict(storage: Storage, ours: Manifest, theirs: Manifest) -> ConflictError:
    run = theirs.run
    recipe = " ".join(str(v) for v in theirs.recipe.values()) or "unknown recipe"
    keys = sorted(set(ours.config) | set(theirs.config))
    missing = object()
    differ = [
        f"{k} is {theirs.config.get(k, 'unset')!r} there, {ours.config.get(k, 'unset')!r} here"
        for k in keys
        if ours.config.get(k, missing) != theirs.config.get(k, missing)
    ]
    if ours.seed != theirs.seed:
        differ.append(f"seed is {theirs.seed} there, {ours.seed} here")
    if [p["digest"] for p in ours.parents] != [p["digest"] for p in theirs.parents]:
        differ.append("the input datasets differ")
    return ConflictError(
        f"{storage.url} holds another dataset already: digest {theirs.digest}, {recipe}, "
        f"committed {run.get('committed', 'at an unknown time')} by {run.get('user', '?')} on "
        f"{run.get('host', '?')} (ours: {ours.digest}). "
        + (f"Differences: {'; '.join(differ)}. " if differ else "The configuration is the same. ")
        + "Choose another output, or replace it on purpose with supersede="
        + theirs.digest
    )


def _replace_head(
    storage: Storage, ours: Manifest, theirs: Manifest, shards: Sequence[Shard]
) -> None:
    """Replace exactly the head ``theirs``: claim its succession exclusively, archive, overwrite.

    The claim is one exclusive create, so of two that supersede the same head one wins. A claimant
    that died is continued by whoever brings the same digest.
    """
    generation = int(theirs.run.get("generation", 0)) + 1
    ours.run = {**ours.run, "generation": generation, "supersedes": theirs.digest}
    sealed = ours.sealed()
    ours.checks = sealed.checks
    storage.create(f"{_SUPERSEDED}/{theirs.digest}.json", theirs.to_json())
    claim = f"{_SUPERSEDED}/generation-{generation}"
    if not storage.create(claim, ours.digest.encode()):
        winner = storage.read_bytes(claim).decode()
        if winner != ours.digest:
            now = Manifest.load(storage)
            if now.digest == winner:  # else its shards are not known yet; its clean-up takes ours
                withdraw(storage, shards, now)
            raise ConflictError(
                f"{storage.url}: head {theirs.digest} is being superseded by {winner}, not by ours "
                f"({ours.digest}); run the command again once that writer is done"
            )
    now = Manifest.load(storage)
    if now.digest not in (theirs.digest, ours.digest):
        raise InputError(f"{storage.url}: the head changed to {now.digest} meanwhile; run it again")
    for shard in shards:
        if not storage.exists(shard.file):
            raise InputError(
                f"{storage.path(shard.file)} was removed by another commit's clean-up before the "
                "head could name it; run the command again"
            )
    storage.replace(KEY, ours.to_json())
