"""The bottom-k sample, and the what-if estimates against full passes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.id_sets import run_starts
from curation.metaclip2.counts import LanguageCounts, by_language, count
from curation.metaclip2.draw import draw, image_texts, with_probability
from curation.metaclip2.probabilities import Probabilities
from curation.metaclip2.sample import MAX_K, merge, sample
from curation.metaclip2.thresholds import find_thresholds
from curation.metaclip2.whatif import estimate, to_table
from schemas.errors import IntegrityError, UsageError
from schemas.ids import ID_TYPE
from schemas.table_schemas import SAMPLE
from tests.curation.metaclip2 import plain

SIZES = {"en": 400, "de": 90, "th": 20}


def totals_of(matches: pa.Table) -> dict[str, int]:
    return {r["values"]: r["counts"] for r in matches["metadata"].value_counts().to_pylist()}


@settings(deadline=None)
@given(st.integers(0, 5), st.lists(st.integers(0, 200), max_size=4), st.integers(1, 60))
def test_a_sample_of_samples_is_the_sample_of_the_whole(seed: int, cuts: list[int], k: int) -> None:
    matches = plain.random_matches(seed, 60, SIZES)
    texts = image_texts(matches)
    whole = sample(matches, texts, k=k)
    edges = [0, *sorted(min(c, matches.num_rows) for c in cuts), matches.num_rows]
    parts = [sample(matches.slice(a, b - a), texts[a:b], k=k) for a, b in pairwise(edges)]
    assert merge(parts[::-1], k=k).equals(whole)
    assert merge([merge(parts[:2], k=k), *parts[2:]], k=k).equals(whole)


def test_a_sample_holds_the_k_smallest_ranks_of_each_language() -> None:
    matches = plain.random_matches(3, 400, SIZES)
    whole = sample(matches, image_texts(matches))
    assert whole.num_rows == matches.num_rows
    assert whole.schema.equals(SAMPLE.arrow, check_metadata=True)
    assert whole["rank"].to_numpy().max() > 2**52
    few = sample(matches, image_texts(matches), k=20)
    rows = whole.to_pylist()
    expected = []
    for key in sorted(SIZES):
        own = sorted((r for r in rows if r["metadata"] == key), key=lambda r: r["rank"])
        expected.extend(own[:20])
    assert few.to_pylist() == expected
    by_pair = {r["pair_id"]: r for r in matches.to_pylist()}
    assert all(by_pair[r["pair_id"]]["entries"] == r["entries"] for r in rows)


def test_samples_have_a_largest_size() -> None:
    for k in (0, MAX_K + 1):
        with pytest.raises(UsageError, match=f"k={k}"):
            merge([], k=k)
    assert merge([]).equals(SAMPLE.empty())


class Population:
    """A matched pool whose ids are dealt anew for each seed; all else stays."""

    def __init__(self, images: int) -> None:
        self.matches = plain.random_matches(99, images, SIZES)
        self.counts: dict[str, LanguageCounts] = by_language(count(self.matches))
        self.totals = totals_of(self.matches)
        self.image = np.repeat(
            np.arange(images),
            np.diff(run_starts(self.matches["image_id"]), append=self.matches.num_rows),
        )

    def with_ids(self, seed: int) -> pa.Table:
        rng = np.random.default_rng(seed)
        images = rng.bytes(16 * (int(self.image[-1]) + 1))
        words = np.frombuffer(images, np.uint8).reshape(-1, 16)[self.image]
        columns = {"image_id": words.tobytes(), "pair_id": rng.bytes(16 * len(words))}
        table = self.matches
        for name, raw in columns.items():
            place = table.schema.get_field_index(name)
            ids = pa.FixedSizeBinaryArray.from_buffers(
                ID_TYPE, len(words), [None, pa.py_buffer(raw)]
            )
            table = table.set_column(place, table.schema.field(place), ids)
        return table


@pytest.fixture(scope="module")
def population() -> Population:
    return Population(3000)


@pytest.mark.parametrize("mode", ["image", "text"])
@pytest.mark.parametrize("k", [300, MAX_K])
def test_the_interval_covers_full_passes(population: Population, mode: str, k: int) -> None:
    """Sampling and draw are repeated with new ids; about 95 % of the drawn sets fall inside."""
    trials, p = 200, 0.1
    found = find_thresholds(population.counts, SIZES, p=p)
    probabilities = Probabilities.of_counts(population.counts, found)
    inside = dict.fromkeys((*SIZES, "total", "share"), 0)
    for seed in range(trials):
        matched = with_probability(population.with_ids(seed), probabilities, mode=mode).table
        (guess,) = estimate(
            population.counts, SIZES, sample(matched, k=k), population.totals, p=[p], mode=mode
        )
        drawn = draw(matched, seed, 0, mode)
        sizes = {key: n["texts"] for key, n in drawn.stats["languages"].items()}
        for key, language in guess.languages.items():
            inside[key] += language.low <= sizes[key] <= language.high
            assert language.sampled == min(k, population.totals[key])
        inside["total"] += guess.low <= drawn.table.num_rows <= guess.high
        english = guess.languages["en"]
        share = sizes["en"] / drawn.table.num_rows
        inside["share"] += english.share_low <= share <= english.share_high
    rates = {key: n / trials for key, n in inside.items()}
    # 4 sigma of 200 trials below 95 %; mode "image" is conservative, as it says.
    assert min(rates.values()) > 0.95 - 4 * (0.95 * 0.05 / trials) ** 0.5, rates
    if mode == "text":
        assert sum(rates.values()) / len(rates) < 0.985, rates


@pytest.mark.parametrize("mode", ["image", "text"])
@pytest.mark.parametrize("setting", [{"p": 0.02}, {"p": 0.3}, {"t_en": 1}, {"t_en": 25}])
@pytest.mark.parametrize("threshold", ["language", "shared"])
def test_a_complete_sample_gives_the_expected_size_of_a_full_pass(
    population: Population, mode: str, setting: dict, threshold: str
) -> None:
    matches = population.with_ids(0)
    full = sample(matches, image_texts(matches))
    lists = {key: [value] for key, value in setting.items()}
    (guess,) = estimate(
        population.counts, SIZES, full, population.totals, mode=mode, threshold=threshold, **lists
    )
    found = find_thresholds(population.counts, SIZES, threshold=threshold, **setting)
    stats = with_probability(
        matches, Probabilities.of_counts(population.counts, found), mode=mode
    ).stats
    assert guess.expected == pytest.approx(stats["total"]["expected"])
    variance = ((guess.high - guess.low) / 2 / 1.959964) ** 2
    if guess.high < guess.texts:
        # Only the draw is uncertain: exactly so in mode text, an upper bound in mode image.
        expected = stats["total"]["variance"]
        if mode == "text":
            assert variance == pytest.approx(expected, rel=1e-4)
        else:
            assert expected < variance < 1.3 * expected
    for key, language in guess.languages.items():
        assert language.expected == pytest.approx(stats["languages"][key]["expected"])
        assert language.share == pytest.approx(language.expected / guess.expected)
        assert language.t == found.languages[key].t


def test_several_settings_come_in_order_and_as_a_table(population: Population) -> None:
    matches = population.with_ids(0)
    few = sample(matches, image_texts(matches), k=50)
    found = estimate(
        population.counts, SIZES, few, population.totals, p=[0.3, 0.02], t_en=[40], mode="text"
    )
    assert [e.p for e in found[:2]] == [0.3, 0.02]
    assert found[2].t_en == 40
    assert found[0].expected > found[1].expected
    rows = to_table(found).to_pylist()
    assert [r["language"] for r in rows] == [None, "de", "en", "th"] * 3
    assert rows[0]["expected"] == found[0].expected
    assert rows[1]["low"] < rows[1]["expected"] < rows[1]["high"]
    assert sum(r["share"] for r in rows[1:4]) == pytest.approx(1)


def test_what_does_not_belong_together_is_refused(population: Population) -> None:
    matches = population.with_ids(0)
    full = sample(matches, image_texts(matches))
    counts, totals = population.counts, population.totals
    ask = {"p": [0.1], "mode": "text"}
    with pytest.raises(IntegrityError, match="'th' has 0 texts in the sample"):
        estimate(counts, SIZES, full.filter(pc.not_equal(full["metadata"], "th")), totals, **ask)
    with pytest.raises(IntegrityError, match=r"'en' has .* and 5 matched texts"):
        estimate(counts, SIZES, full, {**totals, "en": 5}, **ask)
    with pytest.raises(IntegrityError, match="but no counts"):
        estimate({"en": counts["en"], "de": counts["de"]}, SIZES, full, totals, **ask)
    with pytest.raises(UsageError, match="at least one p"):
        estimate(counts, SIZES, full, totals, mode="text")
    with pytest.raises(UsageError, match="mode=pair"):
        estimate(counts, SIZES, full, totals, p=[0.1], mode="pair")
