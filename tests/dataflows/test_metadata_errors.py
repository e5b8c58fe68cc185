"""The metadata recipe: what it refuses, how it fails, what its edges carry."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.metadata import ngrams
from dataflows.cli import main
from dataflows.pipelines.metadata import ngrams as job
from dataflows.pipelines.metadata.recipe import Config, graph
from dataflows.transforms.results import UnitResult
from dataflows.transforms.sink import Sink
from schemas.errors import InputError, UsageError
from schemas.storage import storage
from tests.dataflows.test_job_graphs import OF_BEAM, pickled_by_another_coder
from tests.dataflows.test_job_graphs import build as build_job
from tests.dataflows.test_metadata_pipeline import DUMPS, FIXTURES, HOURS, MAKE

ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"languages": "fra"}, UsageError, "languages=fra: not the code of a Wikipedia; did you mean"),
    ({"wordnets": "none"}, UsageError, "nothing to build from: give wikipedia=, pageviews= or"),
    ({"wikipedia": "/nowhere/enwiki.xml"}, InputError, "/nowhere/enwiki.xml: no such file"),
    ({"pageviews": "/nowhere/*.gz"}, InputError, "matches no file"),
    ({"wikipedia": DUMPS[0], "languages": "fr"}, UsageError, r"wikipedia= holds none of them \(it"),
    (
        {"wikipedia": str(FIXTURES / "frwiktionary-20240501-pages-articles.xml")},
        InputError,
        "'frwiktionary', not of a Wikipedia",
    ),
    ({"wordnets": str(FIXTURES)}, InputError, "the directory holds no file to read"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "error", "message"), ERRORS)
def test_what_cannot_be_built_is_said_before_anything_runs(
    settings: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        graph(Config(output=str(tmp_path), **settings))
    assert not any(tmp_path.iterdir())


def test_a_burmese_dump_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    page = [("မြန်မာ", 0, None, "မြန်မာနိုင်ငံ")]
    path = tmp_path / "mywiki-20240501-pages-articles.xml"
    path.write_bytes(b"".join(MAKE["dump"]("mywiki", "my", page)))
    with pytest.raises(UsageError, match=r"'my'.*tokenizers\.my=MODULE:FUNCTION.*languages="):
        graph(Config(output=str(tmp_path / "out"), wikipedia=[str(path)]))
    other = Config(output=str(tmp_path / "out"), wikipedia=[str(path), DUMPS[0]], languages=["en"])
    assert [len(stage.pinned) for stage in graph(other).stages] == [1, 0]


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (lambda data: data[:-30], 3, "truncated or corrupt: fetch it again"),
        (
            lambda data: data.replace(b"frwiki", b"dewiki"),
            3,
            "the name says fr, the dump's own header de",
        ),
        (lambda data: b"<!DOCTYPE x>" + data, 3, "declares a document type"),
    ],
)
def test_a_damaged_dump_ends_the_run_with_its_name(
    damage: Callable[[bytes], bytes],
    code: int,
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    name = "frwiki-20240501-pages-articles.xml"
    (tmp_path / name).write_bytes(damage((FIXTURES / name).read_bytes()))
    words = [f"wikipedia={tmp_path / name}", "wordnets=none", f"output={tmp_path / 'out'}"]
    assert main(["run", "metadata", "buckets=1", *words]) == code
    printed = capfd.readouterr().err
    assert message in printed and name in printed and "Traceback" not in printed
    assert not (tmp_path / "out" / "metadata" / "manifest.json").exists()


def test_every_edge_carries_bytes_or_tables_by_the_arrow_coder(tmp_path: Path) -> None:
    given = {"output": str(tmp_path), "languages": "fr", "buckets": 1}
    given |= {"wikipedia": ",".join(DUMPS), "pageviews": HOURS}
    assert main(["run", "metadata", *(f"{k}={v}" for k, v in given.items())]) == 0
    tables = 0
    for stage in graph(Config(**given)).stages:
        pipeline = beam.Pipeline()
        build_job(stage, tmp_path, tmp_path / "metadata", pipeline)
        found = pipeline.to_runner_api()
        for edge in found.components.pcollections.values():
            if not any(part in edge.unique_name for part in OF_BEAM):
                pickled = pickled_by_another_coder(found.components, edge.coder_id)
                assert not pickled, f"{stage.name}: edge {edge.unique_name} pickles its elements"
        coders = found.components.coders.values()
        tables += any(b"ArrowTableCoder" in coder.spec.payload for coder in coders)
    assert tables == 3


def test_fragments_in_any_order_and_delivered_twice_change_nothing(tmp_path: Path) -> None:
    texts = pa.array(["a b a c", "b a, c c", "d a b"])
    counts = ngrams.count(texts)
    counts = counts.add_column(0, "wiki", pa.array(["fr"] * counts.num_rows))
    expected = ngrams.with_scores(counts).sort_by("text").sort_by("kind").to_pylist()
    first = job._token(counts, 0)
    parts = job.split(counts, ngrams.buckets(counts["wiki"].combine_chunks(), first, 3))
    fragments: dict[str, list[pa.Table]] = {}
    for element in parts:
        for target, table in job._First(3).process(element):
            fragments.setdefault(target, []).append(table)
    place = storage(str(tmp_path / "ngrams"))
    sink = Sink(place, storage(str(tmp_path / "dead")), "ngrams", "key")
    found = []
    for bucket, tables in fragments.items():
        encoded = next(job._Score(sink).process((bucket, [*reversed(tables), tables[0]])))
        for shard in UnitResult.from_bytes(encoded).shards:
            found += pq.read_table(place.path(shard.file)).to_pylist()
    assert len(fragments) > 1 and max(map(len, fragments.values())) > 1
    key = operator.itemgetter("kind", "text")
    assert sorted(found, key=key) == sorted(expected, key=key)
