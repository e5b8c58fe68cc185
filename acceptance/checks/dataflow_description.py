"""`dataflow_description WORK`: Dataflow's own checks and the job descriptions of every stage.

No cloud: the bucket is an emulator in this process. Stage by stage, the job is first dry-run, then
described as a template (which stages the graph into the bucket), then run in process, so that the
next stage has its inputs. Prints the size of the largest staged graph.
"""

from __future__ import annotations

import json
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from acceptance.checks.common import finish
from tests.schemas.servers import BUCKET

SETTINGS = {
    "input": ["generated"],
    "metadata": "builtin",
    "p": 0.06,
    "output": f"gs://{BUCKET}/out",
    "pool": {"records": 2000, "unit": 500},
}
FLAGS = (
    "--project=project-1",
    "--region=europe-west4",
    f"--temp_location=gs://{BUCKET}/temp",
    f"--staging_location=gs://{BUCKET}/staging",
    "--sdk_container_image=registry/headrace:1",
    "--sdk_location=container",
    "--no_auth",
)


def staged_graphs(endpoint: str) -> dict[str, int]:
    """{object: bytes} of the pipeline graphs in the bucket."""
    address = f"{endpoint}/storage/v1/b/{BUCKET}/o?prefix={urllib.parse.quote('staging/')}"
    with urllib.request.urlopen(address) as answer:
        items = json.load(answer).get("items", [])
    return {i["name"]: int(i["size"]) for i in items if i["name"].endswith("pipeline.pb")}


def main(work: str) -> int:
    from tests.schemas.servers import gcs, variables

    with gcs() as endpoint, variables(endpoint):
        return _describe(Path(work), endpoint["STORAGE_EMULATOR_HOST"])


def _describe(work: Path, endpoint: str) -> int:
    from dataclasses import replace

    from dataflows.engine.run import RunSettings, run_graph
    from dataflows.engine.runners import RunnerChoice
    from dataflows.pipelines import recipe
    from schemas import settings as config

    module = recipe("metaclip2")
    graph = module.graph(config.build(module.Config, SETTINGS, "metaclip2"))
    output = str(SETTINGS["output"])
    faults: list[str] = []
    jobs: list[dict[str, Any]] = []
    for number, stage in enumerate(graph.stages, 1):
        part = replace(graph, stages=graph.stages[:number])
        dry = RunnerChoice("dataflow", 1, (*FLAGS, "--dry_run=True"))
        run_graph(part, RunSettings(output, dry))
        template = work / f"{stage.name}.json"
        described = RunnerChoice("dataflow", 1, (*FLAGS, f"--template_location={template}"))
        before = staged_graphs(endpoint)
        run_graph(part, RunSettings(output, described))
        new = {k: v for k, v in staged_graphs(endpoint).items() if before.get(k) != v}
        job = json.loads(template.read_text(encoding="utf-8"))
        kinds = [step["kind"] for step in job.get("steps", [])]
        image = "registry/headrace:1" in template.read_text(encoding="utf-8")
        if not new or not image:
            faults.append(f"{stage.name}: no staged graph, or not the worker image")
        jobs.append({"stage": stage.name, "graph_bytes": max(new.values(), default=0)})
        jobs[-1]["steps"] = len(kinds)
        done = run_graph(part, RunSettings(output, RunnerChoice("inprocess")))
        if stage.name not in done:
            faults.append(f"{stage.name}: not committed")
    values = {
        "jobs": len(jobs),
        "stages": len(graph.stages),
        "graph_bytes": {job["stage"]: job["graph_bytes"] for job in jobs},
        "largest_graph_bytes": max(job["graph_bytes"] for job in jobs),
    }
    return finish(values, faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
