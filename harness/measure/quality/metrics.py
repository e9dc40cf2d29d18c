"""Metric functions, the same for every backend, by scikit-learn's definitions.

Classification takes logits float32 ``[N, C]`` and class numbers int64 ``[N]``; regression takes both as float64
``[N, T]`` in the target's own unit. A metric that is not defined on a split is None, never a substitute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.interfaces import Metric
from harness.records import DataInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def unit_of(metric: Metric, data: DataInfo | None) -> str:
    """Return the unit of a metric's values on this data, or "" if they have none or it is not known."""
    return str(data.details.get("target_unit", "")) if data is not None and metric.unit == "target" else ""


def probabilities(logits: Array) -> Array:
    """Return the softmax over the last axis, in float64."""
    import numpy as np

    shares: Array = np.array(np.moveaxis(logits, -1, 0), "float64", order="C")  # sums over a short last axis take long
    shares -= shares.max(axis=0)
    np.exp(shares, out=shares)
    shares /= shares.sum(axis=0)
    return np.moveaxis(shares, 0, -1)


def accuracy(targets: Array, outputs: Array, info: DataInfo) -> float:
    return float((outputs.argmax(axis=-1) == targets).mean())


def _averaged(which: str, targets: Array, outputs: Array, info: DataInfo, average: str) -> float:
    from sklearn import metrics

    function = getattr(metrics, which)
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
    """Return the area of each class against the rest; None if the split lacks the class or has nothing else."""
    from sklearn.metrics import roc_auc_score

    scores = probabilities(outputs)
    areas: list[float | None] = []
    for number in range(outputs.shape[1]):
        positive = targets == number
        both = positive.any() and not positive.all()
        areas.append(float(roc_auc_score(positive, scores[:, number])) if both else None)
    return areas


def roc_auc(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """Return the mean over the classes; None if the split lacks a class, as the mean would cover fewer classes."""
    areas = class_roc_auc(targets, outputs)
    defined = [area for area in areas if area is not None]
    return sum(defined) / len(defined) if areas and len(defined) == len(areas) else None


def rmse(targets: Array, outputs: Array, info: DataInfo) -> float:
    """Return the mean over the targets' columns."""
    return float((((outputs - targets) ** 2).mean(axis=0) ** 0.5).mean())


def mae(targets: Array, outputs: Array, info: DataInfo) -> float:
    return float(abs(outputs - targets).mean())


def r2(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """Return the mean over the targets' columns; None if a column does not vary."""
    residual = ((targets - outputs) ** 2).sum(axis=0)
    total = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    varies = targets.min(axis=0) < targets.max(axis=0)  # rounding may leave a constant column a total above zero
    return float((1 - residual / total).mean()) if varies.all() and (total > 0).all() else None
