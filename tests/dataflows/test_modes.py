"""Every mode of the recipe against the paper's algorithm in plain Python, on a small run."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars
import pyarrow as pa
import pytest

from dataflows.cli import main
from schemas.commit import commit
from schemas.dataset import open_dataset
from schemas.ledger import Ledger
from schemas.manifest import Manifest
from schemas.storage import storage
from schemas.table_schemas import VALID
from schemas.writer import ShardWriter
from tests.dataflows import plain
from tests.dataflows.plain import Pair

pytestmark = pytest.mark.slow

POOL = ("input=generated", "pool.records=1200", "pool.unit=500", "buckets=3")
P = 0.3
"""Large, so that thresholds are above 1 in a pool of 1,200 records."""


def rows(place: Path, *columns: str) -> list[dict[str, Any]]:
    tables = open_dataset(place).tables(columns=list(columns) or None)
    return [row for table in tables for row in table.to_pylist()]


@dataclass(frozen=True)
class World:
    """A finished run, its metadata as lists, and its records."""

    run: Path
    place: Path
    metadata: Mapping[str, Sequence[str]]
    records: list[dict[str, Any]]

    @property
    def sizes(self) -> dict[str, int]:
        return {key: len(entries) for key, entries in self.metadata.items()}

    def again(self, output: Path, *words: str) -> Path:
        """A copy of the run, brought to other settings."""
        shutil.copytree(self.run, output)
        return go(output, f"metadata={self.place}", *POOL, *words, "--replace")


def go(output: Path, *words: str) -> Path:
    given = {word.partition("=")[0] for word in words}
    p = () if given & {"p", "t_en"} else (f"p={P}",)
    assert main(["run", "metaclip2", f"output={output}", *p, *words]) == 0
    return output


@pytest.fixture(scope="module")
def world(small_metadata: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    run = go(tmp_path_factory.mktemp("modes") / "base", f"metadata={small_metadata}", *POOL)
    frame = polars.read_parquet(small_metadata / "data" / "*.parquet").sort("metadata", "entry")
    metadata = {str(key): part["text"].to_list() for (key,), part in frame.group_by("metadata")}
    records = rows(run / "records", "image_id", "url", "texts")
    return World(run, small_metadata, metadata, records)


@pytest.fixture(scope="module")
def pairs(world: World) -> list[Pair]:
    return plain.pairs_of(world.records, plain.repaired(world.metadata))


def check(
    run: Path,
    pairs: Sequence[Pair],
    sizes: Mapping[str, int],
    *,
    mode: str = "image",
    epoch: int = 0,
    reference: str = "en",
    **threshold: Any,
) -> None:
    """Counts, thresholds, probabilities and draw of ``run`` are those of the plain algorithm."""
    counts = plain.count(pairs)
    found = Counter(
        {(r["metadata"], r["entry"]): r["count"] for r in rows(run / "counts", *COUNTS)}
    )
    assert found == {(key, e): c for key, own in counts.items() for e, c in own.items()}
    if not threshold:
        threshold = {"p": P}
    p, t = plain.thresholds(counts, sizes, reference=reference, **threshold)
    stats = open_dataset(run / "balance").manifest.stats
    assert stats["p"] == pytest.approx(p, abs=1e-15)
    assert {key: row["t"] for key, row in stats["languages"].items()} == t
    images = plain.by_image(pairs)
    expected = {pair.pair: plain.keep(pair, counts, t) for pair in pairs}
    matched = {row["pair_id"]: row for row in rows(run / "matched")}
    assert matched.keys() == expected.keys()
    for pair in pairs:
        row = matched[pair.pair]
        assert (row["text"], row["metadata"]) == (pair.text, pair.key)
        assert row["entries"] == list(pair.entries)
        assert row["image_texts"] == len(images[pair.image])
        assert row["keep_probability"] == pytest.approx(expected[pair.pair], abs=1e-12)
    curated = {row["pair_id"] for row in rows(run / "curated", "pair_id")}
    assert curated == plain.draw(pairs, expected, seed=0, epoch=epoch, mode=mode)
    assert open_dataset(run / "curated").manifest.config["mode"] == mode
    total = open_dataset(run / "matched").manifest.stats["total"]
    assert abs(len(curated) - total["expected"]) <= 4 * total["variance"] ** 0.5


COUNTS = ("metadata", "entry", "count")


@pytest.mark.spec("metaclip2", 14)
@pytest.mark.spec("metaclip2", 18)
def test_image_mode(world: World, pairs: list[Pair]) -> None:
    t = open_dataset(world.run / "balance").manifest.stats["languages"]
    assert t["en"]["t"] > 1  # there is something to balance
    check(world.run, pairs, world.sizes)


def test_text_mode(world: World, pairs: list[Pair], tmp_path: Path) -> None:
    check(world.again(tmp_path / "out", "mode=text"), pairs, world.sizes, mode="text")


@pytest.mark.spec("metaclip2", 20)
@pytest.mark.parametrize(("mode", "kept"), [("image", 1), ("text", 3)])
def test_of_three_texts_of_an_image_one_or_all_are_kept(
    world: World, tmp_path: Path, mode: str, kept: int
) -> None:
    """A threshold that thins nothing leaves only the mode to decide."""
    things = ("dog", "cat", "horse", "tree", "house", "river", "mountain", "bicycle", "garden")
    lines = [
        {
            "url": f"http://host.example/{number}.jpg",
            "alt": f"This is a photo of the old {thing} in the morning.",
            "title": f"We saw the {thing} when we went to the village.",
            "data-image-title": f"There was a {thing} at the end of the road, and nobody else.",
        }
        for number, thing in enumerate(things)
    ]
    source = tmp_path / "three.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    words = [f"input={source}", "columns.text=alt,title,data-image-title"]
    run = go(tmp_path / "out", *words, f"metadata={world.place}", "t_en=1000", f"mode={mode}")
    assert {row["image_texts"] for row in rows(run / "matched", "image_texts")} == {3}
    per_image = Counter(row["image_id"] for row in rows(run / "curated", "image_id"))
    assert len(per_image) == len(things)
    assert set(per_image.values()) == {kept}
    for stage in ("matched", "curated"):
        assert open_dataset(run / stage).manifest.config["mode"] == mode


def test_another_epoch_draws_other_heads_and_the_same_tail(
    world: World, pairs: list[Pair], tmp_path: Path
) -> None:
    run = world.again(tmp_path / "out", "mode=text", "epoch=1")
    check(run, pairs, world.sizes, mode="text", epoch=1)
    before = {r["pair_id"]: r["keep_probability"] for r in rows(run / "matched")}
    tail = {pair for pair, probability in before.items() if probability == 1}
    one = {r["pair_id"] for r in rows(run / "curated")}
    two = {r["pair_id"] for r in rows(world.again(tmp_path / "two", "mode=text") / "curated")}
    assert tail and tail <= one & two
    assert one != two


def test_a_shared_threshold_is_the_english_one(
    world: World, pairs: list[Pair], tmp_path: Path
) -> None:
    run = world.again(tmp_path / "out", "threshold=shared")
    assert len({row["t"] for row in balance_of(run).values()}) == 1
    check(run, pairs, world.sizes, p=P, shared=True)


def balance_of(run: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = open_dataset(run / "balance").manifest.stats["languages"]
    return found


def test_p_follows_from_an_english_threshold(
    world: World, pairs: list[Pair], tmp_path: Path
) -> None:
    run = world.again(tmp_path / "out", "t_en=9")
    assert balance_of(run)["en"]["t"] == 9
    check(run, pairs, world.sizes, t_en=9)


def test_a_threshold_above_every_count_thins_nothing_and_says_so(
    world: World, pairs: list[Pair], tmp_path: Path
) -> None:
    run = world.again(tmp_path / "out", "t_en=100000", "mode=text")
    check(run, pairs, world.sizes, t_en=100_000, mode="text")
    assert len(rows(run / "curated", "pair_id")) == len(pairs)
    warnings = open_dataset(run / "balance").manifest.warnings
    assert any("t_en=100000 is above every count of 'en'" in text for text in warnings)


def test_without_isolation_one_list_serves_every_text(world: World, tmp_path: Path) -> None:
    union = sorted({entry for entries in world.metadata.values() for entry in entries})
    pairs = plain.pairs_of(world.records, plain.repaired({"all": union}), isolation=False)
    run = world.again(tmp_path / "out", "isolation=off")
    languages = {row["language"] for row in rows(run / "matched", "language")}
    assert {"en", "es", "ja", "th", "de"} <= languages  # texts without a list of their own, too
    check(run, pairs, {"all": len(union)}, reference="all")


@pytest.mark.spec("metaclip2", 13)
def test_the_released_code_matches_otherwise(world: World, tmp_path: Path) -> None:
    found = plain.pairs_of(world.records, plain.official(world.metadata))
    run = world.again(tmp_path / "out", "match=official")
    check(run, found, world.sizes)


def write_valid(place: Path, ids: list[bytes]) -> Path:
    """A committed list of image ids."""
    root = storage(place)
    table = pa.table({"image_id": pa.array(ids, pa.binary(16))})
    with ShardWriter(root, VALID) as writer:
        writer.write(table)
        shards = writer.close()
    ledger = Ledger()
    ledger.add("image", "created", "derived", len(ids))
    ledger.add("image", "out", "", len(ids))
    commit(root, Manifest({"name": "valid", "version": 1}, counts=ledger.rows()), shards)
    return place


@pytest.mark.spec("metaclip2", 21)
def test_images_that_are_not_valid_count_nowhere(
    world: World, pairs: list[Pair], tmp_path: Path
) -> None:
    images = sorted({record["image_id"] for record in world.records})
    fetched = images[::2]
    ids = [*fetched, *fetched[:7], b"\xff" * 16]  # repeats, and an image of another pool
    valid = write_valid(tmp_path / "valid", sorted(ids))
    run = world.again(tmp_path / "out", f"valid={valid}")
    kept = set(fetched)
    check(run, [pair for pair in pairs if pair.image in kept], world.sizes)
    counts = open_dataset(run / "matched").manifest.ledger
    assert counts.count("text", "rejected", "not_in_valid_list") == sum(
        pair.image not in kept for pair in pairs
    )


def test_an_empty_list_of_valid_images_leaves_nothing_and_says_so(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    valid = write_valid(tmp_path / "valid", [])
    run = world.again(tmp_path / "out", f"valid={valid}")
    assert rows(run / "curated") == []
    assert "No text matched any entry of en, es, ja, th" in capsys.readouterr().err


def test_evaluation_images_count_nowhere(world: World, pairs: list[Pair], tmp_path: Path) -> None:
    by_url = {record["url"]: record["image_id"] for record in world.records}
    held_out = sorted(by_url)[::3]
    lines = [{"url": url.replace("http://", "https://") + "#x", "text": "x"} for url in held_out]
    lines.append({"url": "http://elsewhere.example/1.png", "text": "x"})
    source = tmp_path / "evaluation.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    made = tmp_path / "evaluation"
    assert main(["run", "ingest", f"input={source}", f"output={made}"]) == 0
    run = world.again(tmp_path / "out", f"evaluation={made / 'records'}")
    gone = {by_url[url] for url in held_out}
    check(run, [pair for pair in pairs if pair.image not in gone], world.sizes)
    ledger = open_dataset(run / "pool").manifest.ledger
    assert ledger.count("record", "rejected", "evaluation_set_url") == sum(
        record["url"] in set(held_out) for record in world.records
    )


def test_a_score_keeps_records_out_before_they_are_counted(world: World, tmp_path: Path) -> None:
    """Missing scores do not pass: a filter that was not asked has not agreed."""
    scores = [0.9, 0.5, 0.49, None, float("nan"), 1.0]
    some = [record for record in world.records if record["texts"][0]["text"]][:600]
    lines = [
        {
            "url": record["url"],
            "text": record["texts"][0]["text"],
            "nsfw_free": scores[number % len(scores)],
        }
        for number, record in enumerate(some)
    ]
    source = tmp_path / "scored.parquet"
    polars.DataFrame(lines).write_parquet(source)
    words = [f"input={source}", f"metadata={world.place}", "columns.score=nsfw_free"]
    run = go(tmp_path / "out", *words, "min_score=0.5")
    passing = [
        {"image_id": record["image_id"], "texts": record["texts"][:1]}
        for number, record in enumerate(some)
        if (scores[number % len(scores)] or 0) >= 0.5
    ]
    check(run, plain.pairs_of(passing, plain.repaired(world.metadata)), world.sizes)
    ledger = open_dataset(run / "pool").manifest.ledger
    assert ledger.count("record", "rejected", "below_score") == 600 - len(passing)


def test_a_limit_takes_the_first_records_of_each_input(world: World, tmp_path: Path) -> None:
    records = world.run / "records"
    assert len(open_dataset(records).shards()) > 1
    words = [f"input={records},{records}", f"metadata={world.place}", "--limit", "700"]
    run = go(tmp_path, *words)
    ordered = rows(records, "image_id", "url", "texts", "file", "position")
    first = ordered[:700]
    check(run, plain.pairs_of(first, plain.repaired(world.metadata)), world.sizes)
    assert open_dataset(run / "pool").manifest.ledger.count("record", "in") == 1400
    assert {row["source"] for row in rows(run / "pool", "source")} == {0}
