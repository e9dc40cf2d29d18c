"""Sources of small plugins, for the tests of how plugins load."""

from __future__ import annotations

from collections.abc import Callable

from harness.plugins.catalog import Catalog
from harness.records import PluginRef

Install = Callable[..., PluginRef]


METRIC = """
import harness

@harness.hookimpl
def harness_metrics():
    yield harness.Metric(
        name={name!r}, objective="regression", function="{function}", higher_is_better=True, summary=""
    )
"""


def metric(name: str, function: str = "math:fsum") -> str:
    return METRIC.format(name=name, function=function)


def failure(catalog: Catalog, ref: PluginRef) -> str:
    """Return the reason why a plugin is not loaded, which must be listed exactly once."""
    (message,) = [failure.message for failure in catalog.failures if failure.ref == ref]
    return message
