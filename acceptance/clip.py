"""What was promised of fetching images and of training a CLIP on them."""

from __future__ import annotations

from acceptance.metaclip2 import INSTALL, REQUIRE, check
from acceptance.registry import Command, Limit, Line, System


def program(module: str, *words: str, timeout: int = 600) -> Command:
    """A module of the tests that prints its values."""
    return Command(("{python}", "-m", module, *words), timeout)


def tests(name: str, promise: str, *paths: str, needs: str = "1.install") -> Line:
    """Tests of which none may be skipped either."""
    command = check("tests", *paths, timeout=1200)
    return Line(name, promise, (command,), (Limit("faults", "==", 0),), needs=(needs,))


def bench(name: str, promise: str, *limits: Limit) -> Line:
    """A benchmark at its full size; peers that no extra can name are installed first."""
    commands = (
        Command(("make", ".venv/.peers")),
        program(f"tests.benchmarks.bench_{name}", timeout=1800),
    )
    return Line(f"6.bench-{name}", promise, commands, limits, needs=("1.install",))


MODEL = (
    Line(
        "1.clip",
        "the demo ends with a model above chance on what it never saw, and both reports",
        (check("trained_demo", "demo"),),
        (Limit("faults", "==", 0),),
        needs=("1.demo",),
    ),
    Line(
        "2.kill-and-continue",
        "2 ranks at ZeRO 1 and 3, killed by SIGKILL three times in mid-epoch, continued with 1 and 4: the "
        "order of samples, what is restored, and what follows",
        (program("tests.trainer.kill_and_continue", timeout=1200),),
        (
            Limit("faults", "==", []),
            *(
                limit
                for zero in ("zero1", "zero3")
                for limit in (
                    Limit(f"{zero}.kills", "==", 3),
                    Limit(f"{zero}.restores", "==", 5),
                    Limit(f"{zero}.same_ranks_identical", "==", True),
                    Limit(f"{zero}.loss_1_ranks", "<=", 1e-5),
                    Limit(f"{zero}.loss_4_ranks", "<=", 1e-5),
                    Limit(f"{zero}.weights_1_ranks", "<=", 1e-5),
                    Limit(f"{zero}.weights_4_ranks", "<=", 1e-5),
                )
            ),
        ),
        needs=("1.install",),
    ),
    tests(
        "2.interruptions",
        "200 interruptions with other ranks and loaders: no sample lost or repeated, equal global batches",
        "tests/trainer/engine/test_feed.py",
    ),
    tests(
        "2.ranks",
        "1, 2 and 4 ranks and all ZeRO stages: loss to 1e-6, each gradient to 1e-5 of one process",
        "tests/trainer/engine/test_ranks.py",
        "tests/trainer/engine/test_two_ranks.py",
        "tests/trainer/checkpoints/test_restore_matrix.py",
    ),
    Line(
        "3.two-hosts",
        "two hosts by hostfile; one rank killed ends all within 30 s, non-zero, with its log named",
        (program("tests.trainer.launching.two_hosts"),),
        (
            Limit("killed.seconds", "<=", 30),
            Limit("killed.exit_code", "==", 7),
            Limit("killed.processes_left", "==", 0),
            Limit("killed.names_rank", "==", True),
            Limit("killed.names_log", "==", True),
            Limit("continued.exit_code", "==", 0),
        ),
        needs=("1.install",),
    ),
    tests(
        "4.fetch",
        "every misbehaviour gives its reason; a killed fetch asks for no committed unit again",
        "tests/curation/fetch",
        *(f"tests/dataflows/test_fetch{name}.py" for name in ("", "_units", "_valid")),
    ),
    Line(
        "5.export",
        "the export loads with transformers alone; features equal to 1e-5",
        (
            Command(("{trainer}", "export", "demo/clip", "--to", "{work}/export")),
            check("exported", "demo/clip", "{work}/export"),
        ),
        (Limit("faults", "==", 0),),
        needs=("1.clip",),
    ),
)

CLAIM = (
    Line(
        "5.claim",
        "the claim's record is of these sources, and the README shows it",
        (
            Command(
                (
                    *("{python}", "-m", "acceptance.records", "check"),
                    *("metaclip2", "trainer/claims/records"),
                ),
            ),
            Command(("{trainer}", "claims", "report", "--check")),
        ),
        (Limit("settings.seeds", ">=", 5),),
        needs=("1.demo",),
    ),
    Line(
        "5.claim-slice",
        "one run of it again, against the record",
        (
            Command(
                (
                    *("{trainer}", "claims", "run", "metaclip2", "--slice", "row5-0"),
                    *("--work", "{work}/claims"),
                ),
                timeout=1800,
            ),
        ),
        (Limit("largest_difference", "<=", 0.03),),
        needs=("5.claim",),
    ),
)

BENCHMARKS = (
    bench(
        "reading",
        "undecoded rows into batches, equal windows, bytes checksummed: at least 2 times litData and 5 "
        "times `datasets` streaming, cold and warm",
        *(
            limit
            for case in ("images_warm", "texts_warm", "texts_cold")
            for limit in (
                Limit(f"{case}.litdata.median", ">=", 2.0),
                Limit(f"{case}.datasets.median", ">=", 5.0),
            )
        ),
        Limit(
            "images_cold.litdata.median",
            ">=",
            2.0,
            missed="litData checks no bytes and reads 4.4 GB/s; SHA-256 of the same files alone, on both "
            "cores, runs at 2.9 GB/s (`checksum` of the benchmark), once a process and shard",
        ),
        Limit("images_cold.datasets.median", ">=", 5.0),
    ),
    bench(
        "decoding",
        "JPEG to 256 px at 40 dB of Pillow's: at least 1.5 times a core against img2dataset's path and "
        "`datasets`' decoding",
        *(
            limit
            for case in ("640x480", "1600x1200")
            for limit in (
                Limit(f"{case}.img2dataset.median", ">=", 1.5),
                Limit(f"{case}.datasets.median", ">=", 1.5),
                Limit(f"{case}.psnr", ">=", 40.0),
            )
        ),
    ),
    bench(
        "loop",
        "at most 1.05 times a bare PyTorch loop; at most 5 ms outside forward, backward and step",
        Limit("loop.ratio.median", "<=", 1.05),
        Limit("loop.host_ms", "<=", 5.0),
    ),
    bench(
        "fetch",
        "at least 0.8 times the client's own bare rate at the same concurrency",
        Limit("fetch.ratio.median", ">=", 0.8),
        Limit(
            "fetch_kept.ratio.median",
            ">=",
            0.8,
            missed="with decoding, the server, the client and the decoder's process share two cores",
        ),
    ),
)

SCREENSHOTS = (
    Line(
        "7.screenshots-training",
        "screenshots of the training report at 390 and 1280 pixels",
        (check("screenshots", "demo/clip/report.html", "{work}", "training"),),
        (Limit("faults", "==", 0),),
        needs=("1.clip", "1.install"),
    ),
)

CLIP = System(
    "clip",
    (*INSTALL[:4], *MODEL, *CLAIM, *BENCHMARKS, *SCREENSHOTS),
    require=REQUIRE,
)
