"""Near duplicates: recall and precision on real texts with edits, and independence of any order."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.text import near
from curation.text.near import NearOptions
from kernels.minhash import words_of
from kernels.minhash.words import grams
from schemas.errors import UsageError
from schemas.ids import id128, id_array
from schemas.text_schemas import CANDIDATES, DUPLICATES
from tests.support import Missing, give_up, shared_folder


def documents(texts: list[str], validation: set[int] = frozenset()) -> pa.Table:  # type: ignore[assignment]
    """Documents of texts; those at the places in ``validation`` are of that split."""
    count = len(texts)
    return pa.table(
        {
            "doc_id": id_array([id128(b"document", text.encode()) for text in texts]),
            "split": ["validation" if i in validation else "train" for i in range(count)],
            "file": pa.array([i % 3 for i in range(count)], pa.int32()),
            "position": pa.array(range(count), pa.int64()),
            "text": pa.array(texts, pa.string()),
        }
    )


def split_of(table: pa.Table) -> Callable[[pa.Array], np.ndarray]:
    """What ``clusters`` asks: which ids are of the validation split."""
    held = table.filter(pa.compute.equal(table["split"], "validation"))["doc_id"].to_pylist()
    known = set(held)
    return lambda ids: np.array([i in known for i in ids.to_pylist()], bool)


def duplicates(table: pa.Table, options: NearOptions | None = None) -> dict[int, int]:
    """Position of each document that goes: that of the one for which it goes."""
    options = options or NearOptions()
    found = near.pairs(near.buckets(near.signatures(table, options)), options)
    rows = near.clusters(found, split_of(table)).to_pylist()
    place = {i: n for n, i in reversed(list(enumerate(table["doc_id"].to_pylist())))}
    return {row["position"]: place[row["kept"]] for row in rows}


def shingle_set(text: str) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[a:b]) for a, b in grams(words, 5)}


def jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b)


@pytest.fixture(scope="module")
def articles() -> list[str]:
    try:
        path = shared_folder("data", "HEADRACE_DATA") / "wikipedia-vital/summaries_en.jsonl.gz"
    except Missing as missing:
        give_up("data", str(missing))
        raise
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["extract"] for line in lines]
    return [text for text in texts if len(text.split()) >= 60][:1500]


def edited(text: str, edits: int, draw: random.Random) -> str:
    """A text with so many words replaced, dropped or doubled, and its case and spaces changed."""
    words = text.split()
    for _ in range(edits):
        at = draw.randrange(len(words))
        words[at : at + 1] = draw.choice([[f"new{draw.randrange(999)}"], [], [words[at]] * 2])
    return "  ".join(words).upper() if draw.random() < 0.3 else " ".join(words)


def test_planted_duplicates_are_found_as_often_as_the_s_curve_says(articles: list[str]) -> None:
    draw = random.Random(5)
    copies = [edited(text, draw.randrange(12), draw) for text in articles[:900]]
    table = documents(articles + copies)
    options = NearOptions()
    found = near.pairs(near.buckets(near.signatures(table, options)), options)
    assert found.schema.equals(CANDIDATES.arrow, check_metadata=True)
    pairs = {frozenset((r["position"], r["other_position"])) for r in found.to_pylist()}
    held = list(map(shingle_set, articles + copies))
    planted = [(i, len(articles) + i) for i in range(900)]
    truth = np.array([jaccard(held[a], held[b]) for a, b in planted])
    hits = np.array([frozenset(pair) in pairs for pair in planted])
    for low, high in ((0.4, 0.6), (0.6, 0.75), (0.75, 0.9), (0.9, 1.01)):
        inside = (truth >= low) & (truth < high)
        chance = np.array([options.chance(s) for s in truth[inside]])
        spread = np.sqrt((chance * (1 - chance)).sum()) / inside.sum()
        assert inside.sum() > 60
        # A pair of which one is a candidate of a third text too may be joined through it.
        assert abs(hits[inside].mean() - chance.mean()) < 4 * spread + 0.01, (low, high)
    # Precision: what is joined and was not planted is similar all the same.
    others = [tuple(pair) for pair in pairs - {frozenset(pair) for pair in planted}]
    unlike = [pair for pair in others if jaccard(held[pair[0]], held[pair[1]]) < 0.4]
    assert len(unlike) <= 0.01 * len(pairs)


def test_one_of_each_cluster_stays(articles: list[str]) -> None:
    draw = random.Random(8)
    texts = articles[:200] + [edited(text, 1, draw) for text in articles[:100] * 2]
    gone = duplicates(documents(texts))
    apart = {frozenset(cluster) for cluster in ((i, 200 + i, 300 + i) for i in range(100))}
    rest = [cluster - set(gone) for cluster in apart]
    assert sum(len(cluster) == 1 for cluster in rest) >= 95
    assert all(kept not in gone for kept in gone.values())


SHARED = "the same long beginning of each of these documents that comes to thirty words or so when "
SHARED += "one counts them all with care which nobody would do but a machine in a test of it "


def test_the_validation_document_stays_then_the_smallest_id() -> None:
    texts = [f"{SHARED * 5} end {i}" for i in range(6)]
    ids = [id128(b"document", text.encode()) for text in texts]
    smallest = min(range(6), key=lambda i: ids[i])
    assert set(duplicates(documents(texts)).values()) == {smallest}
    held = {i for i in range(6) if i != smallest}
    best = min(held, key=lambda i: ids[i])
    gone = duplicates(documents(texts, held))
    assert set(gone.values()) == {best}
    assert set(gone) == set(range(6)) - {best}


def test_short_and_empty_texts() -> None:
    texts = ["Yes, sir!", "yes sir", "no sir", "", "...", "  ", "yes sir yes"]
    ids = [id128(b"document", text.encode()) for text in texts[:2]]
    first = ids.index(min(ids))
    assert duplicates(documents(texts)) == {1 - first: first}


def test_rows_say_how_they_were_found() -> None:
    table = documents(["a b c d e f", "A b c d e f", "A b c d e f"])
    options = NearOptions()
    rows = near.buckets(near.signatures(table, options))
    pairs = near.pairs(rows, options)
    content = [int.from_bytes(i[:8], "little") for i in rows["doc_id"].to_pylist()]
    same = rows.set_column(0, "bucket", pa.array(content, pa.uint64()))
    exact = near.pairs(same, options, how="exact")
    assert [(r["position"], r["other_position"]) for r in exact.to_pylist()] == [(2, 1)]
    found = near.clusters(pa.concat_tables([pairs, exact]), split_of(table))
    assert found.schema.equals(DUPLICATES.arrow, check_metadata=True)
    how = {r["position"]: r["how"] for r in found.to_pylist()}
    assert len(how) == 2
    assert how.pop(2) == "exact"
    assert list(how.values()) == ["near"]


PARTS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(PARTS.map(" ".join), min_size=1, max_size=24),
    st.randoms(use_true_random=False),
    st.sampled_from([0.0, 0.6]),
)
def test_the_result_does_not_depend_on_order_or_shards(
    texts: list[str], draw: random.Random, threshold: float
) -> None:
    options = NearOptions(words=2, bands=4, rows=2, threshold=threshold)
    table = documents(texts, {i for i in range(len(texts)) if draw.random() < 0.3})
    split = table["split"].to_pylist()
    for i, text in enumerate(texts):  # equal texts are of one split
        split[i] = split[texts.index(text)]
    table = table.set_column(1, "split", pa.array(split))

    def run(order: list[int], shards: int) -> pa.Table:
        shuffled = table.take(pa.array(order))
        size = 1 + len(order) // shards
        parts = [shuffled.slice(i, size) for i in range(0, len(order), size)]
        rows = pa.concat_tables(near.buckets(near.signatures(part, options)) for part in parts)
        places = list(range(rows.num_rows)) * 2  # every row comes twice
        draw.shuffle(places)
        rows = rows.take(pa.array(places))
        shard = rows["bucket"].to_numpy() % np.uint64(shards)
        found = [near.pairs(rows.filter(pa.array(shard == n)), options) for n in range(shards)]
        draw.shuffle(found)
        return near.clusters(pa.concat_tables(found), split_of(table))

    order = list(range(len(texts)))
    first = run(order, 1)
    for shards in (2, 5):
        draw.shuffle(order)
        assert run(order, shards).equals(first)


def test_a_threshold_parts_what_only_shares_a_band() -> None:
    rng = random.Random(2)
    common = [f"c{i}" for i in range(60)]
    texts = []
    for _ in range(40):
        own = [f"o{rng.randrange(10**9)}" for _ in range(30)]
        texts.append(" ".join(common + own))
    texts += [texts[0] + " more", texts[1] + " more"]
    loose = duplicates(documents(texts), NearOptions(bands=56, rows=2))
    strict = duplicates(documents(texts), NearOptions(bands=56, rows=2, threshold=0.8))
    assert len(loose) == 41
    assert {frozenset(pair) for pair in strict.items()} == {
        frozenset((0, 40)),
        frozenset((1, 41)),
    }


def test_a_full_bucket_has_as_many_pairs_as_documents() -> None:
    count = 20_000
    ids = id_array([id128(b"document", str(i).encode()) for i in range(count)])
    table = pa.table(
        {
            "bucket": pa.array(np.full(count, 7, np.uint64)),
            "doc_id": ids,
            "file": pa.array(np.zeros(count, np.int32)),
            "position": pa.array(np.arange(count)),
            "validation": pa.array(np.zeros(count, bool)),
        }
    )
    found = near.pairs(table, NearOptions())
    assert found.num_rows == count - 1
    assert set(found["other"].to_pylist()) == {min(ids.to_pylist())}


def test_no_rows_make_no_rows() -> None:
    options = NearOptions()
    signed = near.signatures(documents([]), options)
    found = near.pairs(near.buckets(signed), options)
    assert near.clusters(found, lambda ids: np.zeros(len(ids), bool)).num_rows == 0


def test_settings_that_cannot_be_are_refused() -> None:
    for text, options in (
        ("near.words=0", {"words": 0}),
        ("near.bands=300", {"bands": 300}),
        ("near.threshold=1.5", {"threshold": 1.5}),
        ("8192 slots", {"bands": 128, "rows": 64}),
    ):
        with pytest.raises(UsageError, match=text):
            NearOptions(**options)  # type: ignore[arg-type]
    assert NearOptions.from_json(NearOptions(bands=3).to_json()) == NearOptions(bands=3)
    assert NearOptions().chance(0.72) == pytest.approx(0.645, abs=0.01)
