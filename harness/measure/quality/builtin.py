"""The plugin ``core-metrics``: declarations of the metrics in `harness.measure.quality.metrics`."""

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
    _classification("accuracy", "share of examples whose most likely class is the true one"),
    _classification("f1_macro", "F1, the plain mean over the classes"),
    _classification("f1_micro", "F1 over all decisions; equals accuracy for one label an example"),
    _classification("f1_weighted", "F1, the mean over the classes weighted by their support"),
    _classification("precision_macro", "precision, the plain mean over the classes"),
    _classification("recall_macro", "recall, the plain mean over the classes"),
    _classification("roc_auc", "area under the ROC curve, each class against the rest, plain mean"),
    _error("rmse", "root of the mean squared error"),
    _error("mae", "mean absolute error"),
    Metric(
        name="r2",
        objective="regression",
        function="harness.measure.quality.metrics:r2",
        higher_is_better=True,
        bounds=(None, 1.0),
        summary="share of the targets' variance that is explained",
    ),
)


@hookimpl
def harness_metrics() -> Iterator[Metric]:
    yield from METRICS
