"""From a job's result to committed datasets: conservation, dead letters first, then the stage's head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataflows.engine.plan import PlanLine
from dataflows.engine.sources import code_digest, library_versions
from dataflows.engine.stage import Graph, JobContext
from dataflows.transforms.results import UnitResult
from schemas.commit import commit, retire, withdraw
from schemas.errors import ConflictError, IntegrityError
from schemas.manifest import Manifest
from schemas.redact import without_secrets
from schemas.table_schemas import SCHEMAS


def commit_stage(
    graph: Graph,
    context: JobContext,
    result: UnitResult,
    digests: Mapping[str, str],
    line: PlanLine,
    run: dict[str, Any],
) -> Manifest:
    """Check that rows balance and commit. Raises IntegrityError, or ConflictError for a second writer."""
    stage = context.stage
    _check_shuffle(stage.name, result)
    parents = [{"name": name, "digest": digests[name]} for name in stage.inputs]
    warnings = [*stage.warnings, *(w for w in result.warnings if w not in stage.warnings)]
    manifest = Manifest(
        schema={"name": stage.schema, "version": SCHEMAS[stage.schema].version},
        totals={},
        counts=result.ledger.rows(),
        parents=parents,
        recipe={"name": graph.recipe, "stage": stage.name},
        config=dict(stage.config),
        seed=stage.seed,
        code=code_digest(stage.module),
        libraries=library_versions(stage.libraries),
        stage_key=context.key,
        inputs=[{**pin, "path": without_secrets(str(pin["path"]))} for pin in stage.pinned],
        stats=result.stats,
        blobs=result.blobs,
        warnings=warnings,
        licence=_licences(context),
        run=run,
    )
    head = line.head.digest if line.head is not None else None
    _refuse_early(context, result, head)
    _commit_dead_letters(manifest, context, result)
    return commit(
        context.storage,
        manifest,
        result.shards,
        parents=_expected_in(context),
        supersede=head,
    )


def _refuse_early(context: JobContext, result: UnitResult, head: str | None) -> None:
    """What the commit would refuse is refused before the dead letters of the head in place change."""
    result.ledger.check(parents=_expected_in(context))
    refuse_second(context, result, head)


def refuse_second(context: JobContext, result: UnitResult | None, head: str | None) -> None:
    """ConflictError if a run with another key committed since ``head`` was seen; its rows are withdrawn."""
    now = Manifest.load(context.storage) if context.storage.exists("manifest.json") else None
    if now is not None and now.digest != head and now.stage_key != context.key:
        run = now.run
        withdraw(context.storage, result.shards if result is not None else [], now)
        raise ConflictError(
            f"{context.storage.url} was committed meanwhile by another run: {now.digest}, on "
            f"{run.get('host', '?')} at {run.get('committed', '?')} with another configuration. Choose "
            "another output=, or add --replace to supersede it"
        )


def _check_shuffle(name: str, result: UnitResult) -> None:
    if result.sent != result.received:
        raise IntegrityError(
            f"{name}: {result.sent[0]:,} rows went into the shuffle and {result.received[0]:,} came out "
            "(or other ids); nothing was committed. Run the same command again"
        )


def _expected_in(context: JobContext) -> dict[str, int]:
    """What the input manifests say must have come in, by unit."""
    limit = context.config.get("limit")
    expected: dict[str, int] = {}
    for name in context.stage.conserved:
        manifest = context.inputs[name].manifest
        unit = SCHEMAS[manifest.schema["name"]].unit
        rows = manifest.totals["rows"]
        expected[unit] = expected.get(unit, 0) + (rows if limit is None else min(rows, limit))
    return expected


def _licences(context: JobContext) -> list[str]:
    """The stage's own and those of every input, each once, in order."""
    found = list(context.stage.licences)
    for name in context.stage.inputs:
        found.extend(x for x in context.inputs[name].manifest.licence if x not in found)
    return found


def _commit_dead_letters(manifest: Manifest, context: JobContext, result: UnitResult) -> None:
    """Bad rows are a dataset beside the stage's; an older one that no longer holds goes."""
    store = context.dead_letters
    before = Manifest.load(store).digest if store.exists("manifest.json") else None
    if not result.dead:
        if before is not None:
            retire(store, before)
        return
    letters = Manifest(
        schema={"name": "dead_letters", "version": SCHEMAS["dead_letters"].version},
        totals={},
        parents=manifest.parents,
        recipe={**manifest.recipe, "stage": f"{context.stage.name}.dead_letters"},
        config=manifest.config,
        seed=manifest.seed,
        code=manifest.code,
        libraries=manifest.libraries,
        stage_key=manifest.stage_key,
        licence=manifest.licence,
        run=manifest.run,
    )
    commit(store, letters, result.dead, supersede=before)
