"""Metric functions. The functions follow the definitions in scikit-learn and are shared by all backends.

Classification metrics take int64 class indices ``[N]`` and float32 logits ``[N, C]``. Regression metrics take targets
and outputs ``[N, T]``, as float64 and in the target's unit. The value of a metric is None if the metric is undefined
for a split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.interfaces import Metric
from harness.records import DataInfo, MetricInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def unit_of(metric: Metric, data: DataInfo | None) -> str:
    """Return the unit of a metric for this data.

    The unit is empty if the metric has no unit, if the unit is unknown, or if the targets have different units.
    """
    units = set(data.units) if data is not None and metric.unit == "target" else set()
    return units.pop() if len(units) == 1 else ""


def averaged_over(metric: Metric, data: DataInfo | None) -> str:
    """Return a note if a metric is averaged over targets whose units differ or are unknown, and an empty string
    otherwise."""
    if data is None or metric.unit != "target" or len(data.units) < 2 or unit_of(metric, data):
        return ""
    kind = "of different units" if len(set(data.units)) > 1 else "whose units are not known"
    return f"mean over {len(data.units)} targets {kind}"


def probabilities(logits: Array) -> Array:
    """Return the softmax over the last axis, in float64."""
    import numpy as np

    # Move the class axis to the front, because reductions over a short last axis are slow.
    scores: Array = np.array(np.moveaxis(logits, -1, 0), "float64", order="C")
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return np.moveaxis(scores, 0, -1)


def accuracy(targets: Array, outputs: Array, info: DataInfo) -> float:
    return float((outputs.argmax(axis=-1) == targets).mean())


def _averaged(function_name: str, targets: Array, outputs: Array, info: DataInfo, average: str) -> float:
    from sklearn import metrics

    function = getattr(metrics, function_name)
    labels = range(info.outputs)
    return float(function(targets, outputs.argmax(axis=-1), labels=labels, average=average, zero_division=0))


def f1_macro(targets: Array, outputs: Array, info: DataInfo) -> float:
    return _averaged("f1_score", targets, outputs, info, "macro")


def f1_micro(targets: Array, outputs: Array, info: DataInfo) -> float:
    return _averaged("f1_score", targets, outputs, info, "micro")


def f1_weighted(targets: Array, outputs: Array, info: DataInfo) -> float:
    return _averaged("f1_score", targets, outputs, info, "weighted")


def precision_macro(targets: Array, outputs: Array, info: DataInfo) -> float:
    return _averaged("precision_score", targets, outputs, info, "macro")


def recall_macro(targets: Array, outputs: Array, info: DataInfo) -> float:
    return _averaged("recall_score", targets, outputs, info, "macro")


def class_roc_auc(targets: Array, outputs: Array) -> list[float | None]:
    """Return the one-vs-rest ROC AUC of each class.

    The value is None if none or all of the examples belong to the class.
    """
    from sklearn.metrics import roc_auc_score

    scores = probabilities(outputs)
    areas: list[float | None] = []
    for number in range(outputs.shape[1]):
        positive = targets == number
        both = positive.any() and not positive.all()
        areas.append(float(roc_auc_score(positive, scores[:, number])) if both else None)
    return areas


def roc_auc(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """Return the mean one-vs-rest ROC AUC over the classes. Return None if the ROC AUC of a class is undefined."""
    areas = class_roc_auc(targets, outputs)
    defined = [area for area in areas if area is not None]
    return sum(defined) / len(defined) if areas and len(defined) == len(areas) else None


def class_average_precision(targets: Array, outputs: Array) -> list[float | None]:
    """Return the one-vs-rest average precision of each class. The value is None if no example belongs to the class."""
    from sklearn.metrics import average_precision_score

    scores = probabilities(outputs)
    return [
        float(average_precision_score(targets == number, scores[:, number])) if (targets == number).any() else None
        for number in range(outputs.shape[1])
    ]


def average_precision(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """Return the mean one-vs-rest average precision over the classes. Return None if a class has no examples."""
    areas = class_average_precision(targets, outputs)
    defined = [area for area in areas if area is not None]
    return sum(defined) / len(defined) if areas and len(defined) == len(areas) else None


def balanced_accuracy(targets: Array, outputs: Array, info: DataInfo) -> float:
    """Return the mean recall over the classes that have examples (Brodersen et al. 2010)."""
    import numpy as np

    support = np.bincount(targets, minlength=info.outputs)
    right = np.bincount(targets[outputs.argmax(axis=-1) == targets], minlength=info.outputs)
    return float((right[support > 0] / support[support > 0]).mean())


def mcc(targets: Array, outputs: Array, info: DataInfo) -> float:
    """Return the Matthews correlation coefficient (Matthews 1975).

    For more than two classes, the definition of Gorodkin (2004) is used.

    The coefficient is 0 if all targets or all predictions belong to the same class, as in scikit-learn.
    """
    import numpy as np

    predicted, n = outputs.argmax(axis=-1), len(targets)
    support, answers = (np.bincount(labels, minlength=info.outputs) / n for labels in (targets, predicted))
    spread = (1 - support @ support) * (1 - answers @ answers)
    agreement = (predicted == targets).mean() - support @ answers
    return float(agreement / spread**0.5) if len(set(targets)) > 1 and len(set(predicted)) > 1 else 0.0


def example_log_losses(targets: Array, outputs: Array) -> Array:
    """Return the negative log-likelihood of each example in nats, float64 ``[N]``."""
    import numpy as np
    from scipy.special import log_softmax

    losses: Array = -log_softmax(outputs.astype("float64"), axis=-1)[np.arange(len(targets)), targets]
    return losses


def log_loss(targets: Array, outputs: Array, info: DataInfo) -> float:
    """Return the mean negative log-likelihood of the true classes, in nats."""
    return float(example_log_losses(targets, outputs).mean())


def example_brier_scores(targets: Array, outputs: Array) -> Array:
    """Return the squared distance between each example's probabilities and its true class, float64 ``[N]``.

    For two classes, the distance is divided by two, as in scikit-learn. The result equals the squared error of the
    probability of either class, whereas Brier (1950) sums the squared errors of both classes.
    """
    import numpy as np

    errors = probabilities(outputs)
    errors[np.arange(len(targets)), targets] -= 1
    distances: Array = (errors**2).sum(axis=1)
    return distances / 2 if outputs.shape[1] == 2 else distances


def brier(targets: Array, outputs: Array, info: DataInfo) -> float:
    """Return the Brier score; see `example_brier_scores`."""
    return float(example_brier_scores(targets, outputs).mean())


BINS = 15
"""Number of confidence bins, as in Guo et al. 2017."""


def reliability(targets: Array, outputs: Array) -> tuple[Array, Array, Array]:
    """Return the number of examples, the mean confidence and the accuracy in each of the `BINS` confidence bins.

    The confidence is the probability of the predicted class. The bins divide the range from 0 to 1 into intervals of
    equal width. Each interval includes its upper end. The confidence and the accuracy of an empty bin are NaN.
    """
    import numpy as np

    confidence = probabilities(outputs).max(axis=-1)
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, values, BINS) for values in (confidence, outputs.argmax(axis=-1) == targets))
    with np.errstate(invalid="ignore"):
        mean_confidence, accuracies = (each / counts for each in sums)
    return counts, mean_confidence, accuracies


def ece(targets: Array, outputs: Array, info: DataInfo) -> float:
    """Return the expected calibration error (Naeini et al. 2015; Guo et al. 2017).

    The error is the mean absolute difference between confidence and accuracy, weighted by the number of examples in
    each bin.
    """
    import numpy as np

    counts, confidence, accuracies = reliability(targets, outputs)
    return float(np.nansum(counts * abs(confidence - accuracies)) / len(targets))


def rmse(targets: Array, outputs: Array, info: DataInfo) -> float:
    """Return the root mean squared error, averaged over the target columns."""
    return float((((outputs - targets) ** 2).mean(axis=0) ** 0.5).mean())


def mae(targets: Array, outputs: Array, info: DataInfo) -> float:
    """Return the mean absolute error, averaged over the target columns."""
    return float(abs(outputs - targets).mean())


def r2(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """Return R², averaged over the target columns, or None if a column is constant."""
    residual = ((targets - outputs) ** 2).sum(axis=0)
    total = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    varies = targets.min(axis=0) < targets.max(
        axis=0
    )  # the sum of squares of a constant column may be positive due to rounding
    return float((1 - residual / total).mean()) if varies.all() and (total > 0).all() else None


def info_of(metric: Metric, data: DataInfo | None) -> MetricInfo:
    """Return the definition of a metric for this data, as stored in records."""
    return MetricInfo(
        higher_is_better=metric.higher_is_better,
        title=metric.title,
        unit=unit_of(metric, data) if metric.unit == "target" else metric.unit,
        bounds=metric.bounds,
        summary=metric.summary or metric.title,
        in_tables=metric.in_tables,
    )
