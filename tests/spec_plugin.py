"""Ties tests to the items of a paper's checklist and records the outcome of each item.

`@pytest.mark.spec("metaclip2", 12)` marks a test; `--spec-report FILE` writes
{paper: {item: {outcome: count}}}; `--spec PAPER` runs only that paper's tests. Works with xdist:
the marks travel in each report's user properties, and the controller adds up.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("headrace")
    group.addoption("--spec", metavar="PAPER", help="run only the tests of this paper's checklist")
    group.addoption("--spec-report", metavar="FILE", help="write the outcome of each item as JSON")


class SpecRecorder:
    """Collects outcomes by (paper, item); one instance per session."""

    def __init__(self, only: str | None, path: str | None) -> None:
        self.only = only
        self.path = path
        self.outcomes: dict[str, dict[int, Counter[str]]] = {}
        self.tests: dict[str, dict[int, set[str]]] = {}

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        kept = []
        for item in items:
            marks = [mark.args for mark in item.iter_markers("spec")]
            for paper, number in marks:
                item.user_properties.append(("spec", [paper, int(number)]))
            if self.only is None or any(paper == self.only for paper, _ in marks):
                kept.append(item)
        if len(kept) < len(items):
            config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
            items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A test counts once: by its call, or by the set-up or tear-down that kept it from passing.
        if report.when != "call" and report.passed:
            return
        for key, value in report.user_properties:
            if key == "spec":
                paper, item = value  # type: ignore[misc]
                items = self.outcomes.setdefault(paper, {})
                items.setdefault(item, Counter())[report.outcome] += 1
                self.tests.setdefault(paper, {}).setdefault(item, set()).add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        if self.path:
            result = {
                paper: {
                    str(item): {"outcomes": dict(counts), "tests": sorted(self.tests[paper][item])}
                    for item, counts in sorted(items.items())
                }
                for paper, items in self.outcomes.items()
            }
            Path(self.path).write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


def register(config: pytest.Config) -> None:
    """Install the recorder; an xdist worker marks its items but leaves the report to its parent."""
    worker = hasattr(config, "workerinput")
    path = None if worker else config.getoption("--spec-report")
    config.pluginmanager.register(SpecRecorder(config.getoption("--spec"), path), "headrace-spec")
