"""The n-gram model against one written with dictionaries, from the formula."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from trainer.evaluation.ngram import NGram


class Plain:
    """Interpolated absolute discounting, one probability at a time."""

    def __init__(self, documents: list[list[int]], vocabulary: int, order: int) -> None:
        self.vocabulary, self.order = vocabulary, order
        self.counts: list[dict[tuple[int, ...], Counter[int]]] = []
        self.discounts = []
        for m in range(order):
            counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
            for document in documents:
                marked = [-1] * (order - 1) + document
                for i in range(order - 1, len(marked)):
                    counts[tuple(marked[i - m : i])][marked[i]] += 1
            every = Counter(c for of in counts.values() for c in of.values())
            self.discounts.append(every[1] / (every[1] + 2 * every[2]) if every[1] else 0.5)
            self.counts.append(counts)

    def probability(self, before: tuple[int, ...], token: int) -> float:
        shorter = self.probability(before[1:], token) if before else 1 / self.vocabulary
        counts, discount = self.counts[len(before)].get(before), self.discounts[len(before)]
        if not counts:
            return shorter
        total = sum(counts.values())
        return max(counts[token] - discount, 0) / total + discount * len(counts) / total * shorter

    def log_probs(self, document: list[int]) -> list[float]:
        marked = [-1] * (self.order - 1) + document
        size = self.order - 1
        return [
            math.log(self.probability(tuple(marked[i - size : i]), marked[i]))
            for i in range(size, len(marked))
        ]


def documents(seed: int, count: int) -> list[list[int]]:
    """Second-order chains over 12 tokens: contexts repeat and some are never seen."""
    random = np.random.default_rng(seed)
    table = np.random.default_rng(0).integers(0, 12, (12, 3))
    found = []
    for _ in range(count):
        tokens = [int(random.integers(12))]
        for _ in range(int(random.integers(0, 40))):
            tokens.append(int(table[tokens[-1], random.integers(3)]))
        found.append(tokens)
    return found


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_it_is_the_formula(order: int) -> None:
    training = documents(1, 60)
    plain = Plain(training, 14, order)
    model = NGram([np.array(d, np.uint16) for d in training], 14, order)
    for held in [*documents(2, 25), [13, 13, 0], [5]]:  # 12 and 13 were never seen
        found = model.log_probs(np.array(held, np.uint16))
        np.testing.assert_allclose(found, plain.log_probs(held), rtol=1e-12)


def test_probabilities_sum_to_one() -> None:
    model = NGram([np.array(d) for d in documents(1, 60)], 14, 5)
    for before in ([], [3], [3, 1, 1], documents(2, 3)[2][:7], [13, 13, 13, 13]):
        every = [model.log_probs(np.array([*before, token]))[-1] for token in range(14)]
        assert np.exp(every).sum() == pytest.approx(1, abs=1e-12)


def test_large_ids_and_wide_tokens() -> None:
    """Keys of pairs do not overflow: ids near 2^17 in 5-grams."""
    training = [np.array([131_070, 131_071, 5, 131_070], np.uint32)] * 2
    model = NGram(training, 131_072)
    plain = Plain([one.tolist() for one in training], 131_072, 5)
    np.testing.assert_allclose(model.log_probs(training[0]), plain.log_probs(training[0].tolist()))
