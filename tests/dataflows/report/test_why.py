from __future__ import annotations

import random

import pytest

from dataflows.cli import main
from dataflows.report import lookup
from dataflows.report.source import open_run
from dataflows.report.why import trace
from schemas.dataset import open_dataset
from schemas.ids import SALT_DRAW, id_array, image_id, uniform
from tests.dataflows.report import hostile as captions
from tests.dataflows.report.build import Builder
from tests.dataflows.report.conftest import Make


@pytest.mark.parametrize("mode", ["image", "text"])
def test_the_verdict_of_every_text_is_what_became_of_it(make: Make, mode: str) -> None:
    builder = make(plain=24, mode=mode)
    run = open_run(builder.root.url)
    curated = set(builder.table("curated")["pair_id"].to_pylist())
    reasons: dict[str, int] = {}
    texts = 0
    for image in builder.table("records")["image_id"].to_pylist():
        for text in trace(run, image).texts:
            texts += 1
            assert (text.verdict == "kept") == (
                text.pair in curated and text.steps[-1][0] != "pool"
            )
            if text.verdict != "kept":
                reason = text.verdict.removeprefix("not kept: ").split(" ")[0]
                reasons[reason] = reasons.get(reason, 0) + 1
    recorded: dict[str, int] = {}
    for stage in ("pool", "matches", "matched", "curated"):
        for row in builder.open(stage).manifest.counts:
            if row["unit"] == "text" and row["reason"] not in ("", "exploded"):
                recorded[row["reason"]] = recorded.get(row["reason"], 0) + row["count"]
    assert reasons == recorded
    assert texts == len(curated) + sum(recorded.values())


def test_the_numbers_are_those_of_the_datasets(
    hostile: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = hostile.table("matched").to_pylist()
    row = next(r for r in rows if r["image_texts"] == 1 and r["keep_probability"] < 1)
    assert main(["why", hostile.root.url, row["pair_id"].hex()]) == 0
    told = capsys.readouterr().out
    u = uniform(5, 0, id_array([row["pair_id"]]), SALT_DRAW)[0]
    assert f"keep probability {row['keep_probability']:.6g}" in told
    assert f"u = {u:.6f} of the pair" in told and "seed 5, epoch 0" in told
    balance = {(b["metadata"], b["entry"]): b for b in hostile.table("balance").to_pylist()}
    for entry in row["entries"]:
        known = balance[row["metadata"], entry]
        assert f"'{known['text']}' (entry {entry}): count {known['count']:,}, t " in told
        assert f"probability {known['probability']:.6g}" in told
    kept = row["pair_id"] in hostile.table("curated")["pair_id"].to_pylist()
    assert ("=> kept" in told) == kept == (u < row["keep_probability"])


@pytest.mark.parametrize(
    ("number", "reason", "detail"),
    [(14, "nul_in_text", "NUL at character 10"), (15, "text_too_long", "limit max_text_bytes=")],
)
def test_dead_letters_are_explained(
    few: Builder, capsys: pytest.CaptureFixture[str], number: int, reason: str, detail: str
) -> None:
    assert main(["why", few.root.url, captions.URL.format(number)]) == 0
    told = capsys.readouterr().out
    assert f"not kept: {reason} (pool)" in told and detail in told
    assert "records, shard 0, row" in told and "record " in told


def test_languages_and_matches_are_explained(
    few: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, words in (
        (0, ("identified as 'el'", "language_without_metadata")),
        (3, ("identified as 'en'", "no_entry_matched")),
        (4, ("empty_text (pool)",)),
    ):
        assert main(["why", few.root.url, f"https://example.org/other/{number}.jpg"]) == 0
        told = capsys.readouterr().out
        assert all(word in told for word in words)


def test_lists_of_the_user_are_explained(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    plain = "https://example.org/plain/{}.jpg"
    builder = make(plain=12, evaluation=[plain.format(1)], invalid=[plain.format(3)])
    for number, reason in ((1, "evaluation_set_url (pool)"), (3, "not_in_valid_list (matched)")):
        assert main(["why", builder.root.url, plain.format(number)]) == 0
        assert f"=> not kept: {reason}" in capsys.readouterr().out


def test_a_pair_that_reached_no_pool_is_found_by_its_id(few: Builder) -> None:
    from dataflows.report.why_records import image_of_lost_pair
    from schemas.ids import pair_id

    image = image_id(url=captions.URL.format(15))
    run = open_run(few.root.url)
    assert image_of_lost_pair(run, pair_id(image, captions.TOO_LONG)) == image
    assert image_of_lost_pair(run, b"\0" * 16) is None


def test_what_it_prints_cannot_move_the_terminal(
    few: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(16):
        assert main(["why", few.root.url, captions.URL.format(number)]) == 0
    told = capsys.readouterr().out
    assert not set(told) & set("\x1b\x07\x9b\u202e\u2066\x00\ufeff")
    assert "\\x1b[31m" in told and "\\u202e" in told
    assert max(map(len, told.splitlines())) < 700


def test_partial_runs_say_where_they_end(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    url = captions.URL.format(0)
    for stages, end in (
        (("records", "pool"), "in the pool; this output goes no further"),
        (("records", "metadata", "pool", "automata", "matches"), "matched; this output goes no"),
    ):
        builder = make(stages[-1], plain=2, stages=stages)
        assert main(["why", builder.root.url, url]) == 0
        assert end in capsys.readouterr().out


def test_an_unknown_id_and_a_run_without_a_pool(
    few: Builder, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    for unknown in ("0" * 32, "0" * 64, "https://example.org/nowhere"):
        assert main(["why", few.root.url, unknown]) == 3
        assert "is nowhere in" in capsys.readouterr().err
    builder = make(plain=2, stages=("metadata",))
    assert main(["why", builder.root.url, "0" * 32]) == 3
    assert "has no pool" in capsys.readouterr().err


def test_records_from_elsewhere_can_be_named(
    make: Make, few: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    builder = make(plain=2)
    elsewhere = f"{builder.root.url}-elsewhere"
    shutil.move(builder.root.at("records").url, elsewhere)
    url = captions.URL.format(14)
    assert main(["why", builder.root.url, url]) == 3
    assert "--with records=LOCATION" in capsys.readouterr().err
    assert main(["why", builder.root.url, url, "--with", f"records={elsewhere}"]) == 0
    assert "nul_in_text" in capsys.readouterr().out
    wrong = few.root.at("records").url
    assert main(["why", builder.root.url, url, "--with", f"records={wrong}"]) == 3
    assert "were made from records =" in capsys.readouterr().err
    assert main(["why", builder.root.url, url, "--with", "records"]) == 2


def test_bisection_over_many_shards_finds_every_image(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = make(plain=48, shard_bytes=1500)
    pool = open_dataset(builder.root.at("pool"))
    assert len(pool.shards()) > 8
    monkeypatch.setattr(lookup, "FOOTERS", 1)
    run = open_run(builder.root.url)
    table = builder.table("pool")
    everything = table["image_id"].to_pylist()
    for image in set(everything):
        rows = lookup.rows_of_image(run, "pool", image)
        assert rows is not None and rows.num_rows == everything.count(image)
        for row in rows.to_pylist():
            again = pool.take(row["_shard"], [row["_row"]], ["pair_id"])
            assert again["pair_id"][0].as_py() == row["pair_id"]
    source = random.Random(7)
    for _ in range(50):
        rows = lookup.rows_of_image(run, "pool", source.randbytes(16))
        assert rows is not None and rows.num_rows == 0
