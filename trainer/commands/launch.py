"""`trainer launch RECIPE`: train, in one process, several, or on several hosts."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from schemas.errors import UsageError

if TYPE_CHECKING:
    from trainer.config import RunConfig
    from trainer.launching.job import Layout

HELP = "train a recipe: one process, several ranks, several hosts; the same command continues"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", metavar="RECIPE", help="what to train (trainer plan lists them)")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the recipe")
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings, under the words")
    parser.add_argument(
        "--ranks",
        type=int,
        metavar="N",
        help="processes of the whole run (default: 1, or every slot of the hosts)",
    )
    parser.add_argument(
        "--hostfile", metavar="FILE", help="hosts, one `host slots=N` a line, reached by ssh"
    )
    parser.add_argument(
        "--rsh",
        metavar="COMMAND",
        help="remote shell in place of ssh; the host is appended, or put where {host} stands",
    )
    parser.add_argument(
        "--slurm", action="store_true", help="the hosts of the Slurm allocation, reached by srun"
    )
    parser.add_argument(
        "--hosts",
        type=int,
        metavar="N",
        help="hosts that are started one by one (with --host-index)",
    )
    parser.add_argument(
        "--host-index", type=int, metavar="I", help="which of them this is, from 0 (with --hosts)"
    )
    parser.add_argument(
        "--master", metavar="HOST[:PORT]", help="the first of them, as the others reach it"
    )
    parser.add_argument("--port", type=int, help="where ranks meet (default: a free port)")
    parser.add_argument(
        "--max-restarts",
        type=int,
        default=0,
        metavar="N",
        help="start a failed run again up to N times, from its last checkpoint (default 0)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would run, and start nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    from trainer.config import load

    config = load(args.recipe, args.settings, args.config)
    layout = _layout(args)
    _check(args, config, layout)
    if args.dry_run:
        from trainer.launching.shown import dry_run

        for line in dry_run(config, layout, _batch_words(args) if args.slurm else None):
            print(line)
        return 0
    if layout.alone:
        from trainer.engine.run import train
        from trainer.launching.place import place_of

        return train(config, place_of(os.environ))
    from trainer.launching.job import launch

    return launch(config, layout, args.max_restarts)


def _layout(args: argparse.Namespace) -> Layout:
    from trainer.launching import job, slurm
    from trainer.launching.hosts import read_hostfile, spread
    from trainer.launching.remote import SSH

    if args.ranks is not None and args.ranks < 1:
        raise UsageError(f"--ranks {args.ranks}: give 1 or more")
    if args.max_restarts < 0:
        raise UsageError(f"--max-restarts {args.max_restarts}: give 0 or more")
    if args.port is not None and not 0 < args.port < 65536:
        raise UsageError(f"--port {args.port}: give 1 to 65535")
    single = [flag for flag in ("host_index", "master") if getattr(args, flag) is not None]
    ways = [flag for flag in ("hostfile", "slurm") if getattr(args, flag)]
    ways += ["host-index"] if single else []
    if len(ways) > 1:
        raise UsageError(f"--{ways[0]} and --{ways[1]}: give one of them")
    if args.hosts is not None and (args.hostfile or (args.slurm and slurm.in_allocation())):
        which = "the hostfile" if args.hostfile else "the Slurm allocation"
        raise UsageError(f"--hosts {args.hosts}: {which} says which hosts there are; leave it out")
    if args.rsh and not args.hostfile:
        raise UsageError("--rsh needs --hostfile: it says how the hosts of that file are reached")
    if args.hostfile:
        hosts = tuple(spread(read_hostfile(args.hostfile), args.ranks))
        return job.Layout(hosts, args.rsh or SSH, port=args.port)
    if args.slurm:
        if args.dry_run and not slurm.in_allocation():
            count = args.hosts or 1
            names = {f"<host {i}>": -(-(args.ranks or count) // count) for i in range(count)}
            return job.Layout(tuple(spread(names, args.ranks)), slurm.SRUN, port=args.port)
        hosts = tuple(spread(slurm.allocated_hosts(args.ranks), args.ranks))
        return job.Layout(hosts, slurm.SRUN, port=args.port)
    if single or args.hosts is not None:
        if args.hosts is None or len(single) < 2:
            raise UsageError("--hosts, --host-index and --master go together: give all three")
        if args.hosts < 1:
            raise UsageError(f"--hosts {args.hosts}: give 1 or more")
        return job.one_of_several(
            args.ranks or args.hosts, args.hosts, args.host_index, args.master, args.port
        )
    return job.local_layout(args.ranks or 1, args.port)


def _check(args: argparse.Namespace, config: RunConfig, layout: Layout) -> None:
    """What can be known to fail before a process is started."""
    from trainer.engine.directory import output_of
    from trainer.launching.compilers import check_compilers
    from trainer.launching.outline import check_batch
    from trainer.launching.place import is_rank

    output_of(config)
    check_compilers(config.deepspeed)
    if is_rank(os.environ) and not layout.alone:
        raise UsageError(
            f"RANK={os.environ['RANK']} is set, so another launcher started this process: leave"
            " --ranks, --hostfile, --slurm and --hosts to it, or unset RANK and WORLD_SIZE"
        )
    if args.max_restarts and layout.alone:
        raise UsageError(
            "--max-restarts needs several ranks: one process is not watched by another"
        )
    if not is_rank(os.environ):  # the engine checks the batch of ranks that others start
        check_batch(config, layout.ranks)


def _batch_words(args: argparse.Namespace) -> list[str]:
    """The words that the batch file passes on."""
    words = [args.recipe, *args.settings]
    for flag in ("config", "ranks", "port"):
        if getattr(args, flag) is not None:
            words += [f"--{flag}", str(getattr(args, flag))]
    if args.max_restarts:
        words += ["--max-restarts", str(args.max_restarts)]
    return words
