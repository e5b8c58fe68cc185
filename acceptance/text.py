"""What was promised of text to tokens, and of the trainer of language models."""

from __future__ import annotations

from acceptance.clip import bench, program, tests
from acceptance.metaclip2 import INSTALL, REQUIRE, check
from acceptance.registry import Command, Limit, Line, System

PEERS = Command(("make", ".venv/.peers"))
RUN = "text/llama"

MODEL = (
    Line(
        "1.text",
        "one command from raw texts to a trained Llama, a sample and the table of bits per byte, in 15 "
        "minutes; the Llama is below the 5-gram model and xz",
        (
            Command(("make", "text"), timeout=1800),
            check("trained_text", RUN),
        ),
        (
            Limit("seconds", "<=", 900),
            Limit("faults", "==", 0),
            Limit("over_best", "<", 1.0),
        ),
        needs=("1.install",),
    ),
    Line(
        "2.export-text",
        "the saved model loads with AutoModelForCausalLM and gives the run's logits",
        (
            Command(("{trainer}", "export", RUN, "--to", "{work}/text-hf")),
            check("exported_text", RUN, "{work}/text-hf"),
        ),
        (Limit("faults", "==", 0),),
        needs=("1.text",),
    ),
    Line(
        "2.harness",
        "lm-evaluation-harness with local task files agrees with `trainer eval` to 1e-3",
        (program("tests.trainer.evaluation.harness_agreement", RUN),),
        (
            Limit("largest_difference", "<=", 1e-3),
            Limit("numbers", ">=", 8),
            Limit("accuracies_between_0_and_1", ">=", 1),
        ),
        needs=("1.text",),
    ),
    tests(
        "6.objective",
        "a new objective, added as CONTRIBUTING.md says, trains without a change to the engine",
        "tests/trainer/extension",
    ),
)

SAFETY = (
    Line(
        "4.two-hosts-text",
        "two hosts by hostfile, a rank killed: all end, the same command and --max-restarts continue",
        (program("tests.trainer.launching.two_hosts", "language"),),
        (
            Limit("killed.seconds", "<=", 30),
            Limit("killed.exit_code", "==", 7),
            Limit("killed.names_rank", "==", True),
            Limit("killed.names_log", "==", True),
            Limit("continued.losses_apart", "==", 0),
            Limit("restarted.losses_apart", "==", 0),
        ),
        needs=("1.install",),
    ),
    Line(
        "4.slurm",
        "a job on Debian's Slurm of two nodes, a rank killed, continued and restarted",
        (program("tests.trainer.launching.slurm_job", "language"),),
        (
            Limit("continued.exit_code", "==", 0),
            Limit("continued.losses_apart", "==", 0),
            Limit("restarted.exit_code", "==", 0),
            Limit("restarted.losses_apart", "==", 0),
        ),
        needs=("1.install",),
    ),
    Line(
        "4.signals",
        "SIGTERM on one rank: all save the same step within 60 s; SIGKILL: all end within 30 s; restarts",
        (program("tests.trainer.launching.stop_and_kill"),),
        (
            Limit("stop.exit_code", "==", 143),
            Limit("stop.seconds", "<=", 60),
            Limit("stop.same_step", "==", True),
            Limit("kill.exit_code", "==", 7),
            Limit("kill.seconds", "<=", 30),
            Limit("kill.names_rank_and_log", "==", True),
            Limit("restart.exit_code", "==", 0),
            Limit("restart.restarts", "==", 1),
            Limit("faults", "==", []),
        ),
        needs=("1.install",),
    ),
    tests(
        "4.faults",
        "not finite or a spike, on one rank, at every stage: decided together, weights and moments the same",
        "tests/trainer/engine/test_fault_ranks.py",
        "tests/trainer/engine/test_faults.py",
        "tests/trainer/engine/test_saving.py",
        "tests/trainer/engine/test_branch.py",
    ),
    tests(
        "4.interruptions-text",
        "200 interruptions with other ranks and loaders: no token lost or repeated, equal global batches",
        "tests/trainer/sources",
        "tests/trainer/packing",
    ),
    Line(
        "4.bad-input-text",
        "bad texts, tokenizers and data are refused or become dead letters, by name and with the fix",
        (program("tests.dataflows.tokens_bad_input"),),
        (Limit("faults", "==", []), Limit("cases", ">=", 24)),
        needs=("1.install",),
    ),
    Line(
        "4.bad-input-training",
        "what training refuses; after a full disk or a damaged checkpoint the last good one is usable",
        (program("tests.trainer.bad_input", timeout=1200),),
        (Limit("faults", "==", []), Limit("skipped", "==", []), Limit("cases", ">=", 30)),
        needs=("1.install",),
    ),
)

PROOFS = (
    Line(
        "5.pairs",
        "saved under each of stages 0 to 3 on 1, 2 and 4 ranks, continued under each, fp32 and bf16",
        (program("tests.trainer.checkpoints.every_pair", timeout=1800),),
        (
            Limit("faults", "==", []),
            Limit("pairs", "==", 288),
            Limit("mismatched_hashes", "==", 0),
            Limit("first_loss_apart.fp32", "<=", 1e-6),
            Limit("first_loss_apart.bf16", "<=", 2e-3),
        ),
        needs=("1.install",),
    ),
    Line(
        "5.parity",
        "ranks, stages, accumulation, checkpointing, compile, chunks and packing agree with plain PyTorch",
        (
            Command(
                (
                    *("{trainer}", "parity", "llama-tiny", "data.path=text/tokens"),
                    *("data.sequence_length=64", "--json", "{work}/parity.json"),
                ),
                timeout=1200,
            ),
            check("parity_table", "{work}/parity.json"),
        ),
        (
            Limit("faults", "==", 0),
            Limit("largest.loss", "<=", 1e-6),
            Limit("largest.gradient", "<=", 1e-5),
            Limit("largest.adamw", "<=", 1e-5),
        ),
        needs=("1.text",),
    ),
    Line(
        "5.plan",
        "planned activations and temporaries within 10 % of tracked ones, three models; published runs",
        (
            program("tests.trainer.launching.plan_table", timeout=1800),
            Command(("{trainer}", "plan", "--published")),
        ),
        (Limit("largest_error", "<=", 0.1), Limit("cases", ">=", 12)),
        needs=("1.install",),
    ),
    Line(
        "3.smollm2",
        "SmolLM2-135M continues from its weights under ZeRO-3 on 2 ranks, and distils from live and kept "
        "logits, equal when k is the vocabulary",
        (PEERS, program("tests.trainer.smollm2", timeout=1800)),
        (
            Limit("faults", "==", []),
            Limit("first_loss_difference", "<=", 1e-5),
            Limit("loss_fell", "==", True),
            Limit("live_cached_difference", "<=", 1e-5),
        ),
        needs=("1.install",),
    ),
)

BENCHMARKS = (
    bench(
        "tokenise",
        "at least 0.85 times `tokenizers` in a bare batch loop, reading and committing included",
        Limit("tokens.ratio_median", ">=", 0.85),
    ),
    bench(
        "minhash",
        "signatures at least 10 times datasketch and 2 times rensa; error at most 1.1 times datasketch's",
        *(
            Limit(f"signatures, {name}.ratio.{peer}.median", ">=", bound)
            for name in ("summaries", "pages", "articles")
            for peer, bound in (("datasketch", 10), ("rensa", 2))
        ),
        Limit("error, all.ratio", "<=", 1.1),
    ),
    bench(
        "tokens",
        "shuffled batches: at least 2 times litData and 0.7 times a raw memmap",
        Limit(
            "reading.ours/litdata_blocks.median",
            ">=",
            2.0,
            missed="1.9 to 2.3 here: a batch of ours also has positions and segments, 28 bytes a token "
            "written where litData writes 16; one core is then busy with that and the calls around it",
        ),
        Limit("reading.ours/memmap.median", ">=", 0.7),
        Limit("reading.ours/memmap_once.median", ">=", 0.7),
    ),
    bench(
        "language_loop",
        "at most 1.05 times a bare DeepSpeed loop of the same 30M-parameter model, 5 ms a micro-step outside "
        "it, no wait for the device within one",
        Limit("language_loop.ratio.median", "<=", 1.05),
        Limit("language_loop.host_ms", "<=", 5.0),
        Limit("language_loop.syncs_per_micro_step", "==", 0),
    ),
)

TEXT = System(
    "text",
    (*INSTALL[1:4], *MODEL, *SAFETY, *PROOFS, *BENCHMARKS),
    require=REQUIRE,
)
