"""Kubernetes: the manifest's fields are the API's, and its arguments the trainer's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_scripts import run
from trainer.cli import main

FIELDS: dict[str, Any] = json.loads(Path(__file__).with_name("kubernetes_fields.json").read_text())
WORDS = ('data.path=/data/a "b" \\c $HOME', "output=/data/run", "length.steps=3")
OPTIONS = ("--image", "registry/t:1", "--claim", "pairs", "--hosts", "2", "--gpus", "4")


def manifest(*more: str, words: tuple[str, ...] = WORDS) -> list[dict[str, Any]]:
    done = run("kubernetes/submit.sh", *OPTIONS, *more, "--dry-run", "metaclip2-tiny", *words)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def strangers(value: Any, kind: str, path: str = "") -> list[str]:
    """Paths of fields that the type does not have, and of values that it does not take."""
    if inner := re.fullmatch(r"[Ll]ist\[(.*)\]", kind):
        if not isinstance(value, list):
            return [f"{path}: not a list"]
        return [s for i, v in enumerate(value) for s in strangers(v, inner[1], f"{path}[{i}]")]
    if kind not in FIELDS:
        python = {"str": str, "int": int, "bool": bool}.get(kind)
        return (
            [f"{path}: {value!r} is no {kind}"] if python and not isinstance(value, python) else []
        )
    found = []
    for name, inner_value in value.items():
        if name not in FIELDS[kind]:
            found.append(f"{path}.{name}")
        else:
            found += strangers(inner_value, FIELDS[kind][name], f"{path}.{name}")
    return found


def test_every_field_is_one_of_the_api() -> None:
    service, job = manifest()
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert strangers(service, "V1Service") == []
    assert strangers(job, "V1Job") == []


def test_an_invented_field_would_be_found() -> None:
    _, job = manifest()
    job["spec"]["completion_mode"] = "Indexed"
    job["spec"]["template"]["spec"]["containers"][0]["env"][0]["valueForm"] = {}
    job["spec"]["parallelism"] = "2"
    assert strangers(job, "V1Job") == [
        ".spec.parallelism: '2' is no int",
        ".spec.template.spec.containers[0].env[0].valueForm",
        ".spec.completion_mode",
    ]


def test_pods_find_the_first_one() -> None:
    """An Indexed Job's pod is NAME-INDEX.SUBDOMAIN, where the service of that name selects it."""
    service, job = manifest("--name", "clip")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["name"] == pod["subdomain"] == "clip"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    arguments = container["args"]
    assert arguments[arguments.index("--master") + 1] == "clip-0.clip:29500"
    variable = re.fullmatch(r"\$\((\w+)\)", arguments[arguments.index("--host-index") + 1])
    assert variable
    assert variable[1] in [entry["name"] for entry in container["env"]]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 4


def test_the_trainer_takes_the_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, job = manifest(words=(*WORDS, "batch.size=32", "schedule.warmup=0"))
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    # As a kubelet does: $(NAME) is replaced, $$ stands for $.
    expanded = [w.replace("$(HOST_INDEX)", "1").replace("$$", "$") for w in arguments]
    assert WORDS[0] in expanded
    assert main([*expanded, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "host 1: RANK=4 WORLD_SIZE=8 LOCAL_RANK=0" in shown
    assert "MASTER_ADDR=headrace-0.headrace MASTER_PORT=29500" in shown


@pytest.mark.parametrize(
    ("option", "value"), [("--hosts", "0"), ("--gpus", "x"), ("--name", "Clip"), ("--name", "a_b")]
)
def test_what_cannot_be_is_refused(option: str, value: str) -> None:
    done = run("kubernetes/submit.sh", *OPTIONS, option, value, "--dry-run", "metaclip2-tiny")
    assert done.returncode == 2
    assert f"{option} {value}" in done.stderr
