"""Tests of the suite for sessions, without a framework."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from harness.interfaces import NetworkRef
from harness.plugins.catalog import Catalog, Provided
from harness.testing import SessionCases, SessionSuite


def test_collection_does_not_import_the_networks(catalog: Catalog) -> None:
    cases = SessionCases("toy-numpy", {"toy": ("toy", {})})
    cases.__dict__["catalog"] = catalog
    ((key, provided),) = [(key, known) for key, known in catalog.networks.items() if "toy-numpy" in key]
    absent = NetworkRef(model="toy", backend="toy-numpy", build="no_such_framework:build")
    catalog.networks[key] = Provided(absent, provided.plugin)
    suite = type("Suite", (SessionSuite,), {"cases": cases})()
    chosen: dict[str, list[Any]] = {}
    arguments = ["any_case", "case", "dropout_case", "statistics_case", "token_case"]
    suite.pytest_generate_tests(SimpleNamespace(fixturenames=arguments, parametrize=chosen.__setitem__))
    assert {argument for argument, cases in chosen.items() if cases} == {"any_case", "case"}
