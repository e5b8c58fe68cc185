"""Token data as samples: against sequences made in plain Python, over epochs, ranks, threads, restarts."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.packing import IGNORED
from schemas.dataset import Dataset
from tests.trainer.packing import making, plain
from trainer.engine.feed import feed, step_positions
from trainer.engine.sizes import Sizes
from trainer.packing.documents import documents
from trainer.protocols import Parts, Source
from trainer.sources.tokens import Settings, Tokens, build

LENGTHS = [int(n) for n in np.random.default_rng(1).integers(0, 40, 150)] + [0, 1, 200, 33, 32, 31]
PACKINGS = ("concatenate", "best_fit")
T = 32


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Validation rows among the train rows; all tokens differ."""
    place = tmp_path_factory.mktemp("tokens") / "mixed"
    return making.made(place, making.texts(LENGTHS, validation=5, first=1))


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Validation rows in shards of their own, 2 bytes a token."""
    texts = sorted(making.texts(LENGTHS[:90], validation=4), key=lambda d: d.split)
    return making.made(
        tmp_path_factory.mktemp("tokens") / "apart", texts, width=2, vocabulary=1 << 16
    )


def source(dataset: Dataset, seed: int = 3, **change: Any) -> Tokens:
    given_ = {"path": dataset.storage.url, "sequence_length": T, "window": 2, **change}
    return Tokens(Settings(**given_), seed)


def lists(batch: dict[str, torch.Tensor]) -> list[plain.Sequence]:
    assert [str(t.dtype) for t in batch.values()] == [*["torch.int64"] * 3, "torch.int32"]
    columns = {name: tensor.tolist() for name, tensor in batch.items()}
    return [
        plain.Sequence(**dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    ]


def order_of(of: Tokens, found: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """(shard, row) of each document, as places name them first."""
    return list(dict.fromkeys((p["shard"], p["row"]) for place in found for p in place["parts"]))


def tokens_of(dataset: Dataset, width: int = 4) -> dict[tuple[int, int], list[int]]:
    rows = [(s, r) for s, shard in enumerate(dataset.shards()) for r in range(shard.rows)]
    return dict(zip(rows, (tokens for _, tokens in plain.corpus(dataset, width)), strict=True))


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("window", [1, 2, 100])
def test_concatenated_sequences_are_those_of_the_plain_stream(
    dataset: Dataset, mask: bool, window: int
) -> None:
    """The order of the documents is the source's; all else is made anew, for two epochs."""
    of = source(dataset, document_mask=mask, window=window)
    tokens, orders = tokens_of(dataset), []
    for epoch in (0, 1):
        at = np.arange(of.samples(epoch), of.samples(epoch + 1))
        order = order_of(of, of.places(at))
        wanted = plain.concatenated([tokens[place] for place in order], T, mask)
        assert lists(of.batch(at)) == wanted and len(wanted) == len(at) > 60
        orders.append(order)
    assert orders[0] != orders[1] and len(set(orders[0]) & set(orders[1])) > 100


@pytest.mark.parametrize("mask", [True, False])
def test_best_fit_sequences_are_whole_documents_or_chunks(dataset: Dataset, mask: bool) -> None:
    of = source(dataset, packing="best_fit", document_mask=mask)
    at = np.arange(of.samples(1))
    tokens = tokens_of(dataset)
    for place, got in zip(of.places(at), lists(of.batch(at)), strict=True):
        parts, after = [], None
        for part in place["parts"]:
            whole = tokens[part["shard"], part["row"]]
            end = min(part["start"] + T, len(whole))
            assert part["start"] % T == 0
            parts.append(whole[part["start"] : end])
            after = whole[end] if end < len(whole) else None
            assert part["tokens"] == len(parts[-1]) + (after is not None)
        wanted = plain.sequence(parts, after, T, mask)
        padding = got.segments.count(-1)
        assert got.position_ids[: T - padding] == wanted.position_ids
        assert (got.input_ids, got.labels, got.segments) == (
            wanted.input_ids,
            wanted.labels,
            wanted.segments,
        )


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("kind", ["dataset", "apart"])
def test_an_epoch_has_every_token_once(
    kind: str, split: str, packing: str, request: pytest.FixtureRequest
) -> None:
    """As an input, but for the end that concatenating leaves out, less than a sequence; a label is
    counted once, but for those that begin a document."""
    data = request.getfixturevalue(kind)
    of = source(data, packing=packing, split=split)
    wanted = {
        t for s, ts in plain.corpus(data, 4 if kind == "dataset" else 2) if s == split for t in ts
    }
    begin = {ts[0] for s, ts in plain.corpus(data, 4 if kind == "dataset" else 2) if ts}
    for epoch in range(3):
        batch = of.batch(np.arange(of.samples(epoch), of.samples(epoch + 1)))
        inputs = batch["input_ids"][batch["segments"] >= 0].tolist()
        labels = batch["labels"][batch["labels"] != IGNORED].tolist()
        left = wanted - set(inputs)
        assert len(set(inputs)) == len(inputs) and len(set(labels)) == len(labels)
        assert set(inputs) <= wanted and set(labels) <= wanted - begin
        assert len(left) <= (T if packing == "concatenate" else 0)
        if packing == "best_fit":
            assert set(labels) == wanted - begin


def test_best_fit_cuts_no_document_that_fits_and_says_how_much_it_pads(dataset: Dataset) -> None:
    tokens = tokens_of(dataset)

    def cut(of: Tokens) -> int:
        """Documents of at most T tokens that lie in two sequences."""
        places = of.places(np.arange(of.samples(1)))
        parts = [(p["shard"], p["row"]) for place in places for p in place["parts"] if p["start"]]
        return sum(len(tokens[part]) <= T for part in parts)

    fit = source(dataset, packing="best_fit", window=100)
    batch = fit.batch(np.arange(fit.samples(1)))
    padding = int((batch["segments"] == -1).sum())
    assert cut(fit) == 0 and cut(source(dataset)) > 40
    assert f"({padding / batch['segments'].numel():.2%} padding" in fit.summary(10)[0]
    assert padding < 0.05 * batch["segments"].numel()


@pytest.mark.parametrize("packing", PACKINGS)
def test_samples_are_a_function_of_their_position_and_the_seed(
    dataset: Dataset, packing: str
) -> None:
    of = source(dataset, packing=packing)
    assert isinstance(of, Source) and of.digest == dataset.manifest.digest
    count = of.samples(2.5)
    whole = lists(of.batch(np.arange(count)))
    at = np.random.default_rng(2).permutation(count)
    again = lists(source(dataset, packing=packing).batch(at))
    assert [whole[k] for k in at] == again
    assert lists(of.batch(np.array([], np.int64))) == []
    other = lists(source(dataset, seed=4, packing=packing).batch(np.arange(count)))
    assert sum(a == b for a, b in zip(whole, other, strict=True)) < count / 4


@settings(
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(PACKINGS),
    st.lists(
        st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([0, 1, 3]), st.integers(1, 9)),
        min_size=1,
        max_size=5,
    ),
)
def test_interruptions_ranks_and_loaders_change_no_global_batch(
    dataset: Dataset, apart: Dataset, packing: str, runs: list[tuple[int, int, int]]
) -> None:
    """Each run has other ranks and loader threads, goes on from where the last one was stopped, and
    opens the data anew; the batches are those of one uninterrupted loop."""
    mix = [{"path": d.storage.url, "weight": w} for d, w in ((dataset, 0.7), (apart, 0.3))]
    change: dict[str, Any] = {"path": None, "mix": mix, "packing": packing}
    size, step = 8, 0
    plain_ = source(dataset, **change)
    for ranks, loaders, steps in runs:
        per_rank = size // ranks
        micro = max(1, per_rank // 2)
        of = Sizes(size, ranks, per_rank, micro, per_rank // micro, step + steps)
        each = [
            list(feed(source(dataset, **change), of, rank, loaders, step)) for rank in range(ranks)
        ]
        for feeds in zip(*each, strict=True):
            got = [s for one in feeds for batch in one.batches for s in lists(batch)]
            assert got == lists(plain_.batch(step_positions(step, size)))
            step += 1


def test_many_threads_get_what_one_gets(dataset: Dataset) -> None:
    of = source(dataset)
    chunks = np.split(np.arange(480), 60)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(of.batch, chunks))
    alone = source(dataset)
    for chunk, batch in zip(chunks, found, strict=True):
        assert lists(batch) == lists(alone.batch(chunk))


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_mixture_gives_each_source_its_share_and_counts_its_epochs(
    dataset: Dataset, apart: Dataset, packing: str
) -> None:
    mix = [{"path": d.storage.url, "weight": w} for d, w in ((dataset, 3), (apart, 1))]
    schedule = [{"tokens": 20 * T - 5, "weights": [0, 1]}, {"tokens": 30 * T, "weights": [1, 1]}]
    of = source(dataset, path=None, mix=mix, packing=packing, schedule=schedule)
    places = of.places(np.arange(300))
    names = [place["dataset"] for place in places]
    assert Counter(names[:20]) == {dataset.storage.url: 15, apart.storage.url: 5}
    assert set(names[20:30]) == {apart.storage.url}
    assert Counter(names[30:]) == {dataset.storage.url: 135, apart.storage.url: 135}
    batch = lists(of.batch(np.arange(300)))
    for number, one in enumerate((dataset, apart)):
        alone = source(one, packing=packing)
        mine = [k for k, name in enumerate(names) if name == one.storage.url]
        assert [batch[k] for k in mine] == lists(alone.batch(np.arange(len(mine))))
        assert of.passes(300)[number] == len(mine) / alone.samples(1)
        ordinal = [places[k]["epoch"] * alone.samples(1) + places[k]["sequence"] for k in mine]
        assert ordinal == list(range(len(mine)))
    assert of.samples(2) == 2 * sum(source(d, packing=packing).samples(1) for d in (dataset, apart))
    assert of.digest not in (dataset.manifest.digest, apart.manifest.digest)


def test_places_name_the_documents_whose_tokens_are_there(dataset: Dataset) -> None:
    of = source(dataset)
    at = np.array([5, 70, 171])
    inputs = of.batch(at)["input_ids"].tolist()
    for place, ids, position in zip(of.places(at), inputs, at.tolist(), strict=True):
        assert place["position"] == position
        assert place["epoch"] == position // of.samples(1)
        found: list[int] = []
        for i, part in enumerate(place["parts"]):
            row = dataset.take(part["shard"], [part["row"]]).to_pylist()[0]
            tokens = np.frombuffer(row["tokens"], "<u4")[part["start"] :][: part["tokens"]]
            found += tokens.tolist()
            assert place["ids"]["doc_id"][i] == row["doc_id"].hex()
            assert place["ids"]["source"][i] == row["source"]
            assert part["file"] == dataset.shards()[part["shard"]].file
            starts = np.cumsum([0, *dataset.row_group_rows(part["shard"])])
            assert starts[part["group"]] <= part["row"] < starts[part["group"] + 1]
        assert found[:T] == ids and len(found) == T + 1
    json.dumps(of.places(at))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_documents_of_a_split_come_whole_and_in_order(apart: Dataset, split: str) -> None:
    found = list(documents(apart, split))
    wanted = [tokens for s, tokens in plain.corpus(apart, 2) if s == split and tokens]
    assert [d.tokens.tolist() for d in found] == wanted
    texts = {t.doc_id: t.source for t in making.texts(LENGTHS[:90], validation=4)}
    assert all(texts[d.doc_id] == d.source for d in found)


def test_a_loop_reads_each_row_group_once_and_the_next_window_ahead(dataset: Dataset) -> None:
    of = source(dataset, window=2)
    read: list[int] = []
    groups = of._origins[0].groups
    inner = groups._read

    def counted(number: int) -> Any:
        read.append(number)
        return inner(number)

    groups._read = counted  # type: ignore[method-assign]
    for k in range(of.samples(1)):
        of.batch(np.array([k]))
    groups._reader.shutdown()
    counts = Counter(read)
    assert set(counts) == set(np.flatnonzero(of._origins[0].lengths.tokens[:, 0]).tolist())
    assert sum(counts.values()) == len(counts) + 2  # the next epoch's first window


def test_the_run_builds_it_with_its_model_and_tokenizer(dataset: Dataset) -> None:
    from tokenizers import Tokenizer

    config: Any = SimpleNamespace(seed=3)
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=T, vocab_size=1 << 20))
    tokenizer = Tokenizer.from_str(making.TOKENIZER.decode())
    chosen = Settings(path=dataset.storage.url, sequence_length=T, window=2)
    made = build(chosen, config, Parts(tokenizer, model))
    assert made.sequence == T and made.document_mask
    pairs = itertools.product([made, source(dataset)], [np.arange(9)])
    first, second = (lists(one.batch(at)) for one, at in pairs)
    assert first == second


def test_where_prints_a_line_for_each_part_with_the_ids_of_its_document(dataset: Dataset) -> None:
    from trainer.commands.where import _line

    place = next(p for p in source(dataset).places(np.arange(40)) if len(p["parts"]) > 2)
    first, *lines = _line({**place, "rank": 1}).splitlines()
    assert first.split() == [
        *[str(place["position"]), "rank", "1", "epoch", "0"],
        *["sequence", str(place["sequence"])],
    ]
    assert len(lines) == len(place["parts"])
    for i, (line, part) in enumerate(zip(lines, place["parts"], strict=True)):
        wanted = [f"{key} {part[key]}" for key in ("shard", "row", "start", "tokens")]
        assert all(f"  {words}" in line for words in wanted)
        assert f'doc_id="{place["ids"]["doc_id"][i]}"' in line
