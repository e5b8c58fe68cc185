"""Rows that failed come back with other limits; and what became of any row can be asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars
import pyarrow as pa
import pytest

from curation.guard import dead_letters
from dataflows.cli import main
from dataflows.pipelines.metaclip2 import replay
from schemas.dataset import open_dataset
from schemas.ids import image_id, pair_id
from schemas.manifest import Manifest
from schemas.table_schemas import MATCHES

CAPTIONS = (
    "The dog and the cat sleep in the house",
    "A red bicycle leans against the garden wall",
    "A man with a horse near the river",
    "El perro blanco corre por la calle con la mujer",
    "Una casa grande y bonita cerca del mar",
    "猫がソファの上で寝ている写真です",
    "แมวนอนอยู่บนเก้าอี้ในบ้าน",
    "A bird on the branch of an old tree",
)
HOST = "http://host.example"
LONG = "the dog in the garden " + "and the horse " * 8000
NUL = "the dog\0 in the garden of the house"


def url(number: int) -> str:
    return f"{HOST}/{number}.jpg"


@dataclass(frozen=True)
class Input:
    """A file of captions, some of which no pool takes, and the settings of its run."""

    file: Path
    metadata: Path

    def words(self, output: Path, *more: str) -> list[str]:
        settings = (f"input={self.file}", f"metadata={self.metadata}", "p=0.02", "buckets=3")
        return ["metaclip2", *settings, f"output={output}", *more]

    def run(self, output: Path, *more: str) -> Path:
        assert main(["run", *self.words(output, *more)]) == 0
        return output


@pytest.fixture(scope="module")
def captions(small_metadata: Path, tmp_path_factory: pytest.TempPathFactory) -> Input:
    # Each text has a number of its own at first, then none: so heads and tails come to be.
    rows = [(number, f"{CAPTIONS[number % 8]} {number // 8}") for number in range(64)]
    rows += [(100 + number, CAPTIONS[number % 8]) for number in range(160)]
    rows += [(0, LONG), (0, NUL), (3, f"{CAPTIONS[3]} 0")]
    rows += [(900, NUL), (901, "qzxv wvbk"), (902, "Кошка спит на диване в доме"), (903, "  ")]
    file = tmp_path_factory.mktemp("captions") / "captions.jsonl"
    lines = (json.dumps({"url": url(number), "text": text}) for number, text in rows)
    file.write_text("\n".join(lines), encoding="utf-8")
    return Input(file, small_metadata)


@pytest.fixture(scope="module")
def finished(captions: Input, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with dead letters. Not to be changed."""
    return captions.run(tmp_path_factory.mktemp("finished") / "out")


def frame(place: Path) -> polars.DataFrame:
    return polars.read_parquet(place / "data" / "*.parquet")


def head(place: Path) -> Manifest:
    return open_dataset(place).manifest


def ledger(place: Path) -> dict[str, int]:
    return {
        " ".join(filter(None, (row["unit"], row["kind"], row["reason"]))): row["count"]
        for row in head(place).counts
    }


BEFORE = {
    "record in": 231,
    "record out": 231,
    "text created exploded": 231,
    "text out": 226,
    "text rejected empty_text": 1,
    "text rejected nul_in_text": 2,
    "text rejected text_too_long": 1,
    "text merged duplicate_pair": 1,
}


@pytest.mark.slow
def test_a_replay_equals_a_run_with_those_limits(
    captions: Input, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = captions.run(tmp_path / "out")
    pool = out / "pool"
    assert ledger(pool) == BEFORE
    letters = frame(out / "pool.dead_letters")
    assert sorted(letters["reason"]) == ["nul_in_text", "nul_in_text", "text_too_long"]
    old, old_letters = head(pool).digest, head(out / "pool.dead_letters").digest

    assert main(["replay", str(pool), "max_text_bytes=200000"]) == 0
    assert "226 rows before, 227 now, 2 dead letters left" in capsys.readouterr().err
    new = head(pool)
    parents = {(p["name"], p["digest"]) for p in new.parents}
    assert {("pool", old), ("pool.dead_letters", old_letters)} <= parents
    assert ledger(pool) == {
        **{key: count for key, count in BEFORE.items() if key != "text rejected text_too_long"},
        "text out": 227,
    }
    assert sorted(frame(out / "pool.dead_letters")["reason"]) == ["nul_in_text", "nul_in_text"]
    assert main(["verify", str(out)]) == 0

    # Once more changes nothing, so nothing becomes due for it.
    assert main(["replay", str(pool), "max_text_bytes=200000"]) == 0
    assert head(pool).digest == new.digest
    capsys.readouterr()

    assert main(["plan", *captions.words(out)]) == 0
    plan = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines())
    assert (plan["pool"], plan["automata"]) == ("finished", "finished")
    assert plan["matches"] == "due"
    assert {plan[s] for s in ("counts", "sample", "balance", "matched", "curated")} == {"waits"}
    assert main(["run", *captions.words(out)]) == 4
    assert "input pool changed" in capsys.readouterr().err

    captions.run(out, "--replace")
    fresh = captions.run(tmp_path / "fresh", "max_text_bytes=200000")
    for stage in ("pool", "matches", "counts", "sample", "balance", "matched", "curated"):
        assert frame(out / stage).equals(frame(fresh / stage)), stage
        rest = [shard.digest for shard in open_dataset(fresh / stage).shards()]
        assert [shard.digest for shard in open_dataset(out / stage).shards()] == rest
    assert head(pool).stats == head(fresh / "pool").stats
    assert ledger(pool) == ledger(fresh / "pool")
    # The report tells the whole story, with no false alarm about what the pool was made from.
    capsys.readouterr()
    assert main(["report", str(out)]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "redone" not in page
    assert "which is not what" not in page


def test_what_cannot_be_replayed_says_so(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, settings, code, said in (
        ("matches", (), 3, "no row failed"),
        ("curated", (), 3, "no row failed"),
        ("", (), 3, "not a committed dataset"),
        ("pool", ("max_txt_bytes=1",), 2, "known: max_text_bytes, min_score"),
        ("pool", ("max_text_bytes",), 2, "key=value"),
    ):
        assert main(["replay", str(finished / place), *settings]) == code
        assert said in capsys.readouterr().err


def test_texts_on_which_matching_failed_come_back_in_their_place(finished: Path) -> None:
    """The rows of `matches`, made by a replay from letters of the pool's rows."""
    matches = open_dataset(finished / "matches")
    pool = pa.concat_tables(open_dataset(finished / "pool").tables()).combine_chunks()
    count = pool.num_rows
    letters = dead_letters(
        pool,
        range(count),
        stage="matches",
        reasons=["step_failed"] * count,
        errors=["ValueError: x"] * count,
    )
    replayed = replay.matches(matches, letters, {})
    assert replayed.merge is not None
    merged = replayed.merge(MATCHES.validate(replayed.outcome.table)).table
    assert merged.equals(pa.concat_tables(matches.tables()).combine_chunks())
    assert replayed.before.count("text", "rejected", "step_failed") == count
    replayed.outcome.ledger.check(out={"text": merged.num_rows})


Why = Callable[..., str]


@pytest.fixture
def why(finished: Path, capsys: pytest.CaptureFixture[str]) -> Why:
    """``why(id or URL)``: what the command says of the finished run."""

    def ask(identity: str | bytes, expect: int = 0) -> str:
        word = identity.hex() if isinstance(identity, bytes) else identity
        capsys.readouterr()
        assert main(["why", str(finished), word]) == expect
        said = capsys.readouterr()
        return said.err if expect else said.out

    return ask


def test_why_a_pair_was_kept_or_not_drawn(finished: Path, why: Why) -> None:
    matched = frame(finished / "matched")
    kept = set(frame(finished / "curated")["pair_id"])
    heads = matched.filter(polars.col("keep_probability") < 1)
    verdicts = {"kept": 0, "not_drawn": 0}
    balance = frame(finished / "balance")
    for verdict in verdicts:
        row = next(r for r in heads.to_dicts() if (r["pair_id"] in kept) == (verdict == "kept"))
        said = why(row["pair_id"])
        assert row["text"] in said
        assert f"{row['keep_probability']:.6g}" in said
        assert ("=> kept" if verdict == "kept" else "not kept: not_drawn") in said
        for entry in row["entries"]:
            known = balance.row(
                by_predicate=(polars.col("metadata") == row["metadata"])
                & (polars.col("entry") == entry),
                named=True,
            )
            assert f"{known['text']!r} (entry {entry}): count {known['count']}" in said


@pytest.mark.parametrize(
    ("number", "reason", "said"),
    [
        (900, "nul_in_text", "NUL at character 7"),
        (901, "no_entry_matched", "identified as"),
        (902, "language_without_metadata", "identified as 'bg'"),
        (903, "empty_text", "only white space"),
        (0, "text_too_long", "limit max_text_bytes=100000"),
        (0, "nul_in_text", "NUL at character 7"),
        (3, "duplicate_pair", "source 0, shard 0, row 3"),
    ],
)
def test_why_a_text_is_not_there(why: Why, number: int, reason: str, said: str) -> None:
    told = why(url(number))
    assert f"not kept: {reason}" in told
    assert said in told
    assert why(image_id(url=url(number))) == told  # the image id tells the same as the URL


def test_why_of_an_image_with_several_texts_tells_all(why: Why) -> None:
    told = why(url(0))
    assert "3 texts" in told
    assert told.count("=> ") == 3
    assert f'"{CAPTIONS[0]} 0"' in told


def test_why_of_a_pair_that_reached_no_pool(why: Why) -> None:
    told = why(pair_id(image_id(url=url(901)), "qzxv wvbk"))
    assert "not kept: no_entry_matched" in told
    told = why(pair_id(image_id(url=url(0)), LONG.strip()))
    assert "not kept: text_too_long" in told


def test_why_of_what_is_nowhere(why: Why, tmp_path: Path) -> None:
    assert "is nowhere in" in why(f"{HOST}/nowhere.jpg", 3)
    assert "is nowhere in" in why(b"\x01" * 16, 3)
    assert main(["why", str(tmp_path / "absent"), url(0)]) == 3


def test_why_after_a_replay_tells_the_limit_of_the_replay(
    captions: Input, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = captions.run(tmp_path / "out")
    assert main(["replay", str(out / "pool"), "max_text_bytes=200000"]) == 0
    captions.run(out, "--replace")
    capsys.readouterr()
    assert main(["why", str(out), url(0)]) == 0
    told = capsys.readouterr().out
    assert "text_too_long" not in told
    assert told.count("=> ") == 3
