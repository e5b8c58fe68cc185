"""The draw: its distribution, its determinism, its modes; seeds are fixed."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from curation.id_sets import IdSet
from curation.metaclip2.counts import by_language, count
from curation.metaclip2.draw import draw, image_texts, keep_valid, whole_images, with_probability
from curation.metaclip2.probabilities import Probabilities
from curation.metaclip2.thresholds import find_thresholds
from schemas.errors import IntegrityError, UsageError
from schemas.ids import ID_TYPE, image_id
from schemas.table_schemas import CURATED, MATCHED, MATCHES
from tests.curation.metaclip2 import plain

SIZES = {"en": 400, "de": 90, "th": 20}
PROBABILITY = [0.3, 0.05, 0.5, 1.0]


def probabilities() -> Probabilities:
    return Probabilities({"en": (np.arange(4, dtype=np.uint32), np.array(PROBABILITY))})


def same_entries(n: int, entries: list[int]) -> pa.Table:
    """MATCHES of n one-text images with the same entries and random ids."""
    ids = pa.FixedSizeBinaryArray.from_buffers(
        ID_TYPE, n, [None, pa.py_buffer(np.random.default_rng(5).bytes(16 * n))]
    )
    constant = {"key": "", "text": "", "source": 0, "shard": 0, "row": 0}
    constant |= {"language": "en", "metadata": "en"}
    columns = {"pair_id": ids, "image_id": ids, "entries": pa.array([entries] * n)}
    columns |= {name: pa.repeat(value, n) for name, value in constant.items()}
    return MATCHES.validate(pa.table(columns))


def balanced(matches: pa.Table, mode: str, p: float = 0.1) -> pa.Table:
    counts = by_language(count(matches))
    found = Probabilities.of_counts(counts, find_thresholds(counts, SIZES, p=p))
    return with_probability(matches, found, mode=mode).table


def pairs(table: pa.Table) -> set[bytes]:
    return set(table["pair_id"].to_pylist())


@pytest.mark.spec("metaclip2", 16)
@pytest.mark.parametrize("entries", [[0], [1], [0, 1, 2], [0, 2]])
@pytest.mark.parametrize("mode", ["image", "text"])
def test_the_keep_rate_is_that_of_the_closed_form(entries: list[int], mode: str) -> None:
    n = 100_000
    matched = with_probability(same_entries(n, entries), probabilities(), mode=mode).table
    kept = draw(matched, 11, 0, mode).table.num_rows
    expected = plain.keep([PROBABILITY[e] for e in entries])
    assert set(matched["keep_probability"].to_pylist()) == {expected}
    assert abs(kept - n * expected) < 4 * math.sqrt(n * expected * (1 - expected))


@pytest.mark.spec("metaclip2", 16)
def test_a_text_with_one_tail_entry_is_always_kept() -> None:
    matched = with_probability(same_entries(100_000, [1, 3]), probabilities(), mode="text").table
    for epoch in range(3):
        assert draw(matched, 11, epoch, "image").table.num_rows == 100_000


@pytest.mark.spec("metaclip2", 17)
def test_the_loop_form_and_the_closed_form_agree_in_distribution() -> None:
    n, rng = 100_000, random.Random(17)
    sets = [[0], [1], [0, 1], [0, 2], [0, 1, 2]]
    statistic = 0.0
    for entries in sets:
        values = [PROBABILITY[e] for e in entries]
        loop = sum(plain.loop_form(values, rng) for _ in range(n))
        matched = with_probability(same_entries(n, entries), probabilities(), mode="text").table
        closed = draw(matched, 17, 0, "text").table.num_rows
        rate = (loop + closed) / (2 * n)
        for kept in (loop, closed):
            statistic += (kept - n * rate) ** 2 / (n * rate * (1 - rate))
    # Chi-square with one degree of freedom for each set; 20.515 is its 99.9 % point for five.
    assert statistic < 20.515


@pytest.mark.spec("metaclip2", 18)
@pytest.mark.parametrize("mode", ["image", "text"])
def test_the_expected_size_is_that_of_draws(mode: str) -> None:
    matches = plain.random_matches(18, 3000, SIZES)
    counts = by_language(count(matches))
    found = Probabilities.of_counts(counts, find_thresholds(counts, SIZES, p=0.1))
    outcome = with_probability(matches, found, mode=mode)
    expected = by_hand(outcome.table.to_pylist(), mode)
    draws = [draw(outcome.table, 18, epoch, mode) for epoch in range(30)]
    for key, (size, variance) in expected.items():
        stats = outcome.stats["languages"].get(key) or outcome.stats["total"]
        assert stats["expected"] == pytest.approx(size, rel=1e-12)
        assert stats["variance"] == pytest.approx(variance, rel=1e-9)
        sizes = [
            d.table.num_rows if key == "total" else d.stats["languages"][key]["texts"]
            for d in draws
        ]
        assert all(abs(n - size) < 4 * math.sqrt(variance) for n in sizes)
        assert abs(np.mean(sizes) - size) < 4 * math.sqrt(variance / len(sizes))
        # The sample variance of 30 draws is within a factor of 3 of the true one.
        assert variance / 3 < np.var(sizes, ddof=1) < variance * 3


def by_hand(rows: list[dict], mode: str) -> dict[str, tuple[float, float]]:
    """{language or "total": (expected size, variance)}: a Bernoulli draw for each image or text."""
    groups: dict[str, Counter] = {}
    for i, row in enumerate(rows):
        value = row["keep_probability"] / (row["image_texts"] if mode == "image" else 1)
        group = row["image_id"] if mode == "image" else i
        for key in (row["metadata"], "total"):
            groups.setdefault(key, Counter())[group] += value
    return {
        key: (sum(q.values()), sum(v * (1 - v) for v in q.values())) for key, q in groups.items()
    }


@pytest.mark.spec("metaclip2", 19)
@pytest.mark.parametrize("mode", ["image", "text"])
def test_a_draw_depends_on_seed_and_ids_only(mode: str) -> None:
    matched = balanced(plain.random_matches(19, 800, SIZES), mode)
    whole = draw(matched, 3, 0, mode).table
    for step in (1, 10, 333):
        tables = [matched.slice(i, step) for i in range(0, matched.num_rows, step)]
        parts = [draw(part, 3, 0, mode).table for part in whole_images(tables)]
        assert pa.concat_tables(parts).combine_chunks().equals(whole.combine_chunks())
    shuffled = plain.random_matches(19, 800, SIZES)
    order = np.random.default_rng(0).permutation(shuffled.num_rows)
    again = balanced(shuffled.take(pa.array(order)), mode)
    assert again.equals(matched)


@pytest.mark.spec("metaclip2", 19)
def test_another_seed_or_epoch_draws_other_heads_and_the_same_tails() -> None:
    matched = balanced(plain.random_matches(19, 2000, SIZES), "text")
    tails = pairs(matched.filter(pa.array(matched["keep_probability"].to_numpy() == 1)))
    first = pairs(draw(matched, 3, 0, "text").table)
    assert len(tails) > 50
    for seed, epoch in ((4, 0), (3, 1)):
        other = pairs(draw(matched, seed, epoch, "text").table)
        assert tails <= first & other
        assert len(first - other) > 100
        assert len(other - first) > 100


@pytest.mark.spec("metaclip2", 20)
def test_an_image_yields_at_most_one_pair_in_mode_image_and_up_to_all_in_mode_text() -> None:
    rows = [("one", f"text {i}", "en", [3]) for i in range(3)]
    rows += [("two", "text", "en", [3])]
    matched = with_probability(plain.matches(rows), probabilities(), mode="image").table
    three, one = image_id(key="one"), image_id(key="two")
    assert dict(
        zip(matched["image_id"].to_pylist(), matched["image_texts"].to_pylist(), strict=True)
    ) == {
        three: 3,
        one: 1,
    }
    picked = Counter()
    for epoch in range(300):
        found = draw(matched, 20, epoch, "image")
        assert Counter(found.table["image_id"].to_pylist()) == {three: 1, one: 1}
        found.ledger.check(parents={"text": 4}, out={"text": 2})
        assert found.ledger.count("text", "sampled_out", "image_has_another_text") == 2
        picked.update(found.table["text"].to_pylist())
    assert all(70 < picked[f"text {i}"] < 130 for i in range(3))
    every = draw(matched, 20, 0, "text")
    assert Counter(every.table["image_id"].to_pylist()) == {three: 3, one: 1}
    assert every.table.schema.equals(CURATED.arrow, check_metadata=True)
    assert every.table["image"].null_count == 4


def test_the_pick_is_of_ascending_pair_ids_and_is_then_drawn() -> None:
    matched = balanced(plain.random_matches(1, 500, SIZES, texts=4), "image")
    found = draw(matched, 9, 2, "image")
    rows = matched.to_pylist()
    images: dict[bytes, list[dict]] = {}
    for row in rows:
        images.setdefault(row["image_id"], []).append(row)
    from schemas.ids import SALT_DRAW, SALT_PICK, uniform

    expected = set()
    for image, texts in images.items():
        texts.sort(key=lambda row: row["pair_id"])
        u = uniform(9, 2, pa.array([image], ID_TYPE), SALT_PICK)[0]
        row = texts[int(u * len(texts))]
        u = uniform(9, 2, pa.array([row["pair_id"]], ID_TYPE), SALT_DRAW)[0]
        if u < row["keep_probability"]:
            expected.add(row["pair_id"])
    assert pairs(found.table) == expected
    found.ledger.check(parents={"text": len(rows)}, out={"text": len(expected)})
    not_picked = found.ledger.count("text", "sampled_out", "image_has_another_text")
    assert not_picked == len(rows) - len(images)


@pytest.mark.spec("metaclip2", 21)
def test_an_image_outside_the_valid_list_affects_neither_counts_nor_draw() -> None:
    matches = plain.random_matches(21, 600, SIZES)
    images = sorted(set(matches["image_id"].to_pylist()))
    valid = set(random.Random(21).sample(images, 400))
    found = keep_valid(matches, IdSet(pa.array(sorted(valid), ID_TYPE)))
    found.ledger.check(parents={"text": matches.num_rows})
    alone = matches.filter(pa.array([i in valid for i in matches["image_id"].to_pylist()]))
    assert found.table.equals(alone)
    assert count(found.table).equals(count(alone))
    assert found.ledger.count("text", "rejected", "not_in_valid_list") == (
        matches.num_rows - alone.num_rows
    )
    curated = draw(balanced(found.table, "image"), 1, 0, "image").table
    assert set(curated["image_id"].to_pylist()) <= valid
    assert not count(found.table).equals(count(matches))


def test_a_table_that_cuts_an_image_is_refused() -> None:
    rows = [("one", f"text {i}", "en", [3]) for i in range(3)]
    matched = with_probability(plain.matches(rows), probabilities(), mode="image").table
    with pytest.raises(IntegrityError, match="has 3 matched texts, but 2 lie together"):
        draw(matched.slice(0, 2), 1, 0, "image")
    assert draw(matched.slice(0, 2), 1, 0, "text").table.num_rows == 2


def test_empty_tables_and_unknown_modes() -> None:
    empty = with_probability(MATCHES.empty(), probabilities(), mode="image")
    assert empty.table.schema.equals(MATCHED.arrow, check_metadata=True)
    assert empty.stats["total"] == {"texts": 0, "expected": 0.0, "variance": 0.0}
    for mode in ("image", "text"):
        assert draw(empty.table, 1, 0, mode).table.num_rows == 0
    assert image_texts(MATCHES.empty()).tolist() == []
    assert list(whole_images([MATCHES.empty()])) == []
    for call in (
        lambda: draw(empty.table, 1, 0, "pair"),
        lambda: with_probability(MATCHES.empty(), probabilities(), mode="pair"),
    ):
        with pytest.raises(UsageError, match="mode=pair"):
            call()
