"""Fixtures and options for all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests import spec_plugin, support
from tests.spec_plugin import pytest_addoption as pytest_addoption
from tests.support import require as require

# One thread for each numeric library: the machine's cores belong to the tests that use workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Worker processes start `python` by name: the environment of the tests comes first.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
# No credential of this machine reaches a test.
for _name in [n for n in os.environ if n.startswith(("AWS_", "GOOGLE_", "GCLOUD_", "CLOUDSDK_"))]:
    del os.environ[_name]


def pytest_configure(config: pytest.Config) -> None:
    support.required()  # an unknown name in HEADRACE_REQUIRE ends the run before the first test
    spec_plugin.register(config)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets: $HEADRACE_DATA, else ../shared/data beside the checkout."""
    try:
        return support.shared_folder("data", "HEADRACE_DATA")
    except support.Missing as missing:
        support.give_up("data", str(missing))
        raise


@pytest.fixture(scope="session")
def prism() -> str:
    """The path of the Prism runner's binary."""
    return require("prism")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a headless-capable Chromium."""
    return require("chromium")


@pytest.fixture
def free_port() -> int:
    """A free TCP port of the loopback interface."""
    return support.free_port()
