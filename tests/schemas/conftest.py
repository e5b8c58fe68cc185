"""Fixtures: object stores served on this machine, and one dataset root per protocol."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.storage import Storage, storage
from tests.schemas import servers


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    with servers.moto() as environment, servers.variables(environment):
        yield environment


@pytest.fixture(scope="session")
def gs() -> Iterator[dict[str, str]]:
    with servers.gcs() as environment, servers.variables(environment):
        yield environment


@pytest.fixture(params=["local", "memory", "s3", "gs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty dataset root on each kind of storage."""
    name = f"run-{secrets.token_hex(4)}/pool"
    if request.param == "local":
        return storage(tmp_path / name)
    if request.param == "memory":
        return storage(f"memory://{name}")
    request.getfixturevalue(request.param)
    return storage(f"{request.param}://{servers.BUCKET}/{name}")
