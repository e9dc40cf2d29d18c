"""The ``core-metrics`` plugin, which provides the metrics in `harness.measure.quality.metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from harness.interfaces import Metric
from harness.plugins.hookspecs import hookimpl

HARNESS_API_VERSION = "1.0"


def _classification(
    name: str,
    title: str,
    summary: str,
    *,
    higher_is_better: bool = True,
    bounds: tuple[float, float | None] = (0.0, 1.0),
    unit: str = "",
    in_tables: bool = False,
) -> Metric:
    return Metric(
        name=name,
        objective="classification",
        function=f"harness.measure.quality.metrics:{name}",
        higher_is_better=higher_is_better,
        bounds=bounds,
        title=title,
        summary=summary,
        unit=unit,
        in_tables=in_tables,
    )


def _error(name: str, title: str, summary: str) -> Metric:
    return Metric(
        name=name,
        objective="regression",
        function=f"harness.measure.quality.metrics:{name}",
        higher_is_better=False,
        unit="target",
        bounds=(0.0, None),
        title=title,
        summary=summary,
    )


METRICS: tuple[Metric, ...] = (
    _classification("accuracy", "accuracy", "fraction of examples whose predicted class is correct"),
    _classification("f1_macro", "macro F1", "unweighted mean of F1 over the classes", in_tables=True),
    _classification("f1_micro", "micro F1", "F1 over all predictions; equals accuracy if each example has one label"),
    _classification("f1_weighted", "weighted F1", "mean of F1 over the classes, weighted by support"),
    _classification("precision_macro", "macro precision", "unweighted mean of precision over the classes"),
    _classification("recall_macro", "macro recall", "unweighted mean of recall over the classes"),
    _classification("roc_auc", "ROC AUC", "area under the ROC curve, one-vs-rest, unweighted mean over the classes"),
    _classification(
        "average_precision", "average precision", "area under the precision-recall curve, one-vs-rest, unweighted mean"
    ),
    _classification("balanced_accuracy", "balanced accuracy", "mean recall over the classes with examples"),
    _classification(
        "mcc", "MCC", "Matthews correlation coefficient of the true and the predicted classes", bounds=(-1.0, 1.0)
    ),
    _classification(
        "log_loss",
        "log loss",
        "mean negative log-likelihood of the true class",
        higher_is_better=False,
        bounds=(0.0, None),
        unit="nats",
    ),
    _classification(
        "brier",
        "Brier score",
        "mean squared error of the probabilities; halved for two classes",
        higher_is_better=False,
        bounds=(0.0, 2.0),
    ),
    _classification(
        "ece",
        "ECE",
        "expected calibration error: mean difference between confidence and accuracy in 15 bins",
        higher_is_better=False,
    ),
    _error("rmse", "RMSE", "root mean squared error"),
    _error("mae", "MAE", "mean absolute error"),
    Metric(
        name="r2",
        objective="regression",
        function="harness.measure.quality.metrics:r2",
        higher_is_better=True,
        bounds=(None, 1.0),
        title="R²",
        in_tables=True,
        summary="coefficient of determination: fraction of the target variance that is explained",
    ),
)

CLASSIFICATION_METRICS: tuple[str, ...] = tuple(each.name for each in METRICS if each.objective == "classification")
"""Names of the built-in classification metrics, for use in `Task.metrics`."""


@hookimpl
def harness_metrics() -> Iterator[Metric]:
    yield from METRICS
