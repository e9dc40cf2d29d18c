"""Quality from predictions, by the same code for every backend: scikit-learn's definitions throughout.

Classification takes logits float32 ``[N, C]`` and class numbers int64 ``[N]``; regression takes both as float64
``[N, T]`` in the target's own unit; token classification takes logits ``[N, L, C]`` and class numbers ``[N, L]``, of
which those that are `harness.IGNORED` do not count. Where a metric is not defined on a split it is None, never a
substitute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import BadResultError
from harness.interfaces import Metric
from harness.records import IGNORED, ClassScore, DataInfo, Scores, SliceScore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Function = Callable[[Array, Array, DataInfo], float | None]


def _classification(name: str, function: str, summary: str) -> Metric:
    return Metric(
        name=name,
        objective="classification",
        function=f"harness.measure.quality.metrics:{function}",
        higher_is_better=True,
        summary=summary,
        bounds=(0.0, 1.0),
    )


BUILTIN: tuple[Metric, ...] = (
    _classification("accuracy", "accuracy", "share of examples whose most likely class is the true one"),
    _classification("f1_macro", "f1_macro", "F1, the plain mean over the classes"),
    _classification("f1_micro", "f1_micro", "F1 over all decisions; equals accuracy for one label an example"),
    _classification("f1_weighted", "f1_weighted", "F1, the mean over the classes weighted by their support"),
    _classification("precision_macro", "precision_macro", "precision, the plain mean over the classes"),
    _classification("recall_macro", "recall_macro", "recall, the plain mean over the classes"),
    _classification("roc_auc", "roc_auc", "area under the ROC curve, each class against the rest, plain mean"),
    Metric(
        name="rmse",
        objective="regression",
        function="harness.measure.quality.metrics:rmse",
        higher_is_better=False,
        unit="target",
        bounds=(0.0, None),
        summary="root of the mean squared error",
    ),
    Metric(
        name="mae",
        objective="regression",
        function="harness.measure.quality.metrics:mae",
        higher_is_better=False,
        unit="target",
        bounds=(0.0, None),
        summary="mean absolute error",
    ),
    Metric(
        name="r2",
        objective="regression",
        function="harness.measure.quality.metrics:r2",
        higher_is_better=True,
        bounds=(None, 1.0),
        summary="share of the targets' variance that is explained",
    ),
)


def unit_of(metric: Metric, data: DataInfo | None) -> str:
    """The unit of a metric's values over this data; empty for a share, or where it is not known."""
    return str(data.details.get("target_unit", "")) if data is not None and metric.unit == "target" else ""


def probabilities(logits: Array) -> Array:
    """Softmax over the last axis, in float64."""
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
    """One class against the rest, for every class; None where the split has only one side of it."""
    from sklearn.metrics import roc_auc_score

    scores = probabilities(outputs)
    areas: list[float | None] = []
    for number in range(outputs.shape[1]):
        positive = targets == number
        both = positive.any() and not positive.all()
        areas.append(float(roc_auc_score(positive, scores[:, number])) if both else None)
    return areas


def roc_auc(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """None where a class is absent from the split, so that the mean would be over other classes than declared."""
    areas = class_roc_auc(targets, outputs)
    defined = [area for area in areas if area is not None]
    return sum(defined) / len(defined) if areas and len(defined) == len(areas) else None


def rmse(targets: Array, outputs: Array, info: DataInfo) -> float:
    """Mean over the targets' columns."""
    return float((((outputs - targets) ** 2).mean(axis=0) ** 0.5).mean())


def mae(targets: Array, outputs: Array, info: DataInfo) -> float:
    return float(abs(outputs - targets).mean())


def r2(targets: Array, outputs: Array, info: DataInfo) -> float | None:
    """Mean over the targets' columns; None where a target does not vary."""
    residual = ((targets - outputs) ** 2).sum(axis=0)
    total = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    varies = targets.min(axis=0) < targets.max(axis=0)  # rounding may leave a constant column a total above zero
    return float((1 - residual / total).mean()) if varies.all() and (total > 0).all() else None


class Scorer:
    """Scores the outputs of one task's model on data like `info`."""

    def __init__(self, info: DataInfo, primary: str, functions: dict[str, Function]) -> None:
        self._info, self._primary, self._functions = info, primary, functions

    def score(self, targets: Array, outputs: Array) -> dict[str, float | None]:
        """Every metric of the task."""
        real_targets, real_outputs = self._in_target_unit(targets, outputs)
        return {name: self._value(name, real_targets, real_outputs) for name in self._functions}

    def quick(self, targets: Array, outputs: Array) -> dict[str, float | None]:
        """The loss, as trained but without label smoothing, and the primary metric: for every epoch."""
        real_targets, real_outputs = self._in_target_unit(targets, outputs)
        return {
            "loss": self._loss(targets, outputs),
            self._primary: self._value(self._primary, real_targets, real_outputs),
        }

    def scores(
        self,
        test: tuple[Array, Array],
        validation: tuple[Array, Array],
        reference: tuple[Array, Array] | None,
        groups: Mapping[str, Array],
    ) -> Scores:
        """Everything about quality, from (targets, outputs) of each split; `reference` is the closed form's, `groups`
        are those of the test split."""
        classes = self._info.objective == "classification" and test[1].ndim == 2
        return Scores(
            primary=self._primary,
            test=self.score(*test),
            validation=self.score(*validation),
            reference=self.score(*reference) if reference else None,
            per_class=self._per_class(*test) if classes else [],
            confusion=self._confusion(*test) if classes else [],
            slices=self._slices(*self._in_target_unit(*test), groups),
            intervals=self._intervals(*test) if classes or self._info.objective == "regression" else {},
        )

    def _value(self, name: str, targets: Array, outputs: Array) -> float | None:
        import math

        value = self._functions[name](targets, outputs, self._info)
        if value is not None and not math.isfinite(value):
            raise BadResultError(f"the metric {name!r} is {value}")
        return None if value is None else float(value)

    def _in_target_unit(self, targets: Array, outputs: Array) -> tuple[Array, Array]:
        return self._info.in_target_unit(targets), self._info.in_target_unit(outputs)

    def _loss(self, targets: Array, outputs: Array) -> float:
        if self._info.objective == "regression":
            return float(((outputs.astype("float64") - targets) ** 2).mean())
        from scipy.special import log_softmax

        if self._info.objective == "token_classification":
            counted = targets != IGNORED
            targets, outputs = targets[counted], outputs[counted]
        logs = log_softmax(outputs.astype("float64"), axis=-1)
        return float(-logs[range(len(targets)), targets].mean())

    def _per_class(self, targets: Array, outputs: Array) -> list[ClassScore]:
        from sklearn.metrics import precision_recall_fscore_support

        labels = list(range(self._info.outputs))
        predicted = outputs.argmax(axis=-1)
        columns = precision_recall_fscore_support(targets, predicted, labels=labels, zero_division=0)
        areas = class_roc_auc(targets, outputs)
        return [
            ClassScore(
                label=self._info.label_names[number] if self._info.label_names else str(number),
                precision=float(columns[0][number]),
                recall=float(columns[1][number]),
                f1=float(columns[2][number]),
                roc_auc=areas[number],
                support=int(columns[3][number]),
            )
            for number in labels
        ]

    def _intervals(self, targets: Array, outputs: Array) -> dict[str, tuple[float, float]]:
        """Of those of the task's metrics that are the core's own: another's function of that name may be another."""
        from harness.measure.quality.intervals import intervals

        own = {metric.name for metric in BUILTIN if self._functions.get(metric.name) is globals()[metric.name]}
        found = intervals(self._info.objective, *self._in_target_unit(targets, outputs))
        return {name: ends for name, ends in found.items() if name in own}

    def _slices(self, targets: Array, outputs: Array, groups: Mapping[str, Array]) -> list[SliceScore]:
        from harness.measure.quality.slices import slices

        return [
            SliceScore(
                group=group,
                value=value,
                support=int(members.sum()),
                score=self._value(self._primary, targets[members], outputs[members]),
            )
            for group, value, members in slices(groups)
        ]

    def _confusion(self, targets: Array, outputs: Array) -> list[list[int]]:
        from sklearn.metrics import confusion_matrix

        matrix = confusion_matrix(targets, outputs.argmax(axis=-1), labels=range(self._info.outputs))
        rows: list[list[int]] = matrix.tolist()
        return rows


def scorer(info: DataInfo, primary: str, metrics: Sequence[Metric]) -> Scorer:
    """A `Scorer` for these metrics. Raises `harness.PluginError` where a metric's function cannot be had."""
    from harness.plugins import resolve

    return Scorer(info, primary, {metric.name: resolve(metric.function) for metric in metrics})
