"""The jobs as a runner sees them: coders of every edge, size, and Dataflow's own checks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2 as proto

from dataflows.engine.stage import JobContext, Stage
from dataflows.pipelines.fetch.recipe import Config as FetchConfig
from dataflows.pipelines.fetch.recipe import graph as fetch_graph
from dataflows.pipelines.metaclip2.recipe import Config, graph
from dataflows.transforms.coder import ArrowTableCoder
from dataflows.transforms.sink import Sink
from dataflows.transforms.units import RecordResult
from schemas.dataset import Dataset, open_dataset
from schemas.storage import storage
from tests import support

PICKLED = "beam:coder:pickled_python:v1"
LIMIT = 10 * 2**20

# Edges inside Beam's own transforms; no table of ours passes them.
OF_BEAM = ("/Spread/", "Result/Merge", "Units/Impulse")


def config_of(baseline: Path, **more: Any) -> Config:
    metadata = open_dataset(baseline / "automata").manifest
    assert metadata.parents[0]["name"] == "metadata"
    return Config(input="generated", output=str(baseline), p=0.06, buckets=3, **more)


def stages(baseline: Path) -> tuple[Stage, ...]:
    """Those of a run, those that fetching adds to one, and those of fetching."""
    plain = graph(config_of(baseline)).stages
    valid = graph(config_of(baseline, valid=str(baseline / "curated"), paired=True)).stages
    names = {stage.name for stage in plain}
    more = [s for s in valid if "valid" in s.inputs or s.name not in names]
    pictures = FetchConfig(
        input=str(baseline / "matched"), output=str(baseline), contact="curator@example.org"
    )
    found = (*plain, *more, *fetch_graph(pictures).stages)
    return tuple(stage for stage in found if stage.name != "metadata")


def dataset_of(name: str, baseline: Path, metadata: Path) -> Dataset:
    """The input of that name, or one that does in its place where only the wiring is looked at."""
    if name == "metadata":
        return open_dataset(metadata)
    if name == "valid":
        found = open_dataset(baseline / "records")
        manifest = replace(found.manifest, stats={"placed": 1})
        return Dataset(found.storage, manifest)
    stands_in = {"valid_images": "curated", "counts-before": "counts"}
    stands_in |= {"urls-000": "matched", "hosts": "matched", "units": "matched"}
    return open_dataset(baseline / stands_in.get(name, name))


def build(stage: Stage, baseline: Path, metadata: Path, pipeline: beam.Pipeline) -> None:
    output = storage(str(baseline))
    context = JobContext(
        stage,
        "key",
        output.at(stage.name),
        output.at(f"{stage.name}.dead_letters"),
        {name: dataset_of(name, baseline, metadata) for name in stage.inputs},
        workers=2,
    )
    sink = Sink(context.storage, context.dead_letters, stage.schema, "key")
    module, _, function = stage.job.partition(":")
    job = getattr(import_module(module), function)(context, sink)
    _ = pipeline | stage.name >> job | "Result" >> RecordResult(sink)


def pickled_by_another_coder(components: proto.Components, coder_id: str) -> bool:
    """Whether any part of a coder pickles values, our table coder (itself sent pickled) apart."""
    coder = components.coders[coder_id]
    if coder.spec.urn == PICKLED:
        decoded = beam.coders.Coder.from_runner_api(
            coder, beam.pipeline_context.PipelineContext(components)
        )
        return not isinstance(decoded, ArrowTableCoder)
    return any(pickled_by_another_coder(components, c) for c in coder.component_coder_ids)


def test_every_edge_of_ours_carries_bytes_or_tables_by_the_arrow_coder(
    baseline: Path, small_metadata: Path
) -> None:
    tables = 0
    for stage in stages(baseline):
        pipeline = beam.Pipeline()
        build(stage, baseline, small_metadata, pipeline)
        found = pipeline.to_runner_api()
        for edge in found.components.pcollections.values():
            if any(part in edge.unique_name for part in OF_BEAM):
                continue
            assert not pickled_by_another_coder(found.components, edge.coder_id), (
                f"{stage.name}: edge {edge.unique_name} pickles its elements"
            )
        tables += sum(
            b"ArrowTableCoder" in coder.spec.payload for coder in found.components.coders.values()
        )
        assert found.ByteSize() < LIMIT
    # The check above has something to look at: pool, counts, sample, units, and pictures' ways.
    assert tables >= 6


def test_the_check_of_edges_notices_a_pickled_table() -> None:
    pipeline = beam.Pipeline()
    _ = pipeline | beam.Create([1]) | "Untyped" >> beam.Map(lambda _: None)
    found = pipeline.to_runner_api()
    edges = [e for e in found.components.pcollections.values() if "Untyped" in e.unique_name]
    assert edges
    assert all(pickled_by_another_coder(found.components, e.coder_id) for e in edges)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An emulated gs:// bucket."""
    port = support.free_port()
    log = (tmp_path / "gcs.log").open("wb")
    command = "from gcp_storage_emulator.server import create_server as c; import sys, time; "
    command += f"s = c('localhost', {port}, in_memory=True, default_bucket='bucket'); s.start(); "
    command += "time.sleep(600)"
    server = subprocess.Popen([sys.executable, "-c", command], stdout=log, stderr=log)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{port}")
    time.sleep(3)
    yield "bucket"
    server.kill()
    server.wait()
    log.close()


def dataflow_flags(*more: str) -> list[str]:
    return [
        *("--runner=DataflowRunner", "--project=some-project", "--region=europe-west4"),
        *("--temp_location=gs://bucket/tmp", "--staging_location=gs://bucket/staging"),
        *(
            "--sdk_container_image=registry.invalid/headrace-worker:1",
            "--no_auth",
            "--experiments=",
        ),
        *more,
    ]


@pytest.mark.slow
def test_dataflow_accepts_every_job_in_a_dry_run(
    baseline: Path, small_metadata: Path, bucket: str
) -> None:
    for stage in {stage.name: stage for stage in stages(baseline)}.values():
        options = PipelineOptions(dataflow_flags(f"--job_name={stage.name}", "--dry_run=True"))
        pipeline = beam.Pipeline(options=options)
        build(stage, baseline, small_metadata, pipeline)
        pipeline.run()


@pytest.mark.slow
def test_dataflow_writes_the_job_description_of_a_template(
    baseline: Path, small_metadata: Path, bucket: str, tmp_path: Path
) -> None:
    stage = next(s for s in stages(baseline) if s.name == "pool")
    template = tmp_path / "pool.json"
    options = PipelineOptions(dataflow_flags("--job_name=pool", f"--template_location={template}"))
    pipeline = beam.Pipeline(options=options)
    build(stage, baseline, small_metadata, pipeline)
    pipeline.run()
    described = json.loads(template.read_text())
    assert described["name"] == "pool"
    assert described["environment"]["sdkPipelineOptions"]
    assert template.stat().st_size < LIMIT
