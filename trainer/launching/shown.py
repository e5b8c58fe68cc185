"""What `--dry-run` prints: the batch, DeepSpeed's configuration, the ranks, Slurm's batch file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from trainer.config import RunConfig
from trainer.launching.job import Layout
from trainer.launching.outline import sizes_of
from trainer.launching.slurm import batch_file


def dry_run(config: RunConfig, layout: Layout, slurm: Sequence[str] | None) -> Iterator[str]:
    """Lines for people. ``slurm``: words of the command that a batch file would run."""
    from trainer.engine.deepspeed import resolved

    of = sizes_of(config, layout.ranks)
    yield "batch:"
    yield from of.table()
    yield "\nDeepSpeed's configuration:"
    yield json.dumps(resolved(config, of), indent=2)
    yield "\nranks (the run's settings, as JSON, are their standard input):"
    yield from layout.commands()
    if layout.rsh is not None:
        from trainer.launching.remote import agent_command

        yield "\nhosts, each started from here with:"
        for host in layout.hosts:
            yield "  " + agent_command(layout.rsh, host.name)
    if slurm is not None:
        yield "\nbatch file:"
        yield batch_file(slurm, len(layout.hosts)).rstrip()
