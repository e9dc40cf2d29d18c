"""The ``core-metrics`` plugin, which declares the metrics in `harness.measure.quality.metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from harness.interfaces import Metric
from harness.plugins.hookspecs import hookimpl

HARNESS_API_VERSION = "1.0"


def _classification(name: str, summary: str) -> Metric:
    return Metric(
        name=name,
        objective="classification",
        function=f"harness.measure.quality.metrics:{name}",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        summary=summary,
    )


def _error(name: str, summary: str) -> Metric:
    return Metric(
        name=name,
        objective="regression",
        function=f"harness.measure.quality.metrics:{name}",
        higher_is_better=False,
        unit="target",
        bounds=(0.0, None),
        summary=summary,
    )


METRICS: tuple[Metric, ...] = (
    _classification("accuracy", "fraction of examples whose predicted class is correct"),
    _classification("f1_macro", "unweighted mean of F1 over the classes"),
    _classification("f1_micro", "F1 over all predictions; equals accuracy if each example has one label"),
    _classification("f1_weighted", "mean of F1 over the classes, weighted by support"),
    _classification("precision_macro", "unweighted mean of precision over the classes"),
    _classification("recall_macro", "unweighted mean of recall over the classes"),
    _classification("roc_auc", "area under the ROC curve, one-vs-rest, unweighted mean over the classes"),
    _error("rmse", "root mean squared error"),
    _error("mae", "mean absolute error"),
    Metric(
        name="r2",
        objective="regression",
        function="harness.measure.quality.metrics:r2",
        higher_is_better=True,
        bounds=(None, 1.0),
        summary="coefficient of determination: fraction of the target variance that is explained",
    ),
)


@hookimpl
def harness_metrics() -> Iterator[Metric]:
    yield from METRICS
