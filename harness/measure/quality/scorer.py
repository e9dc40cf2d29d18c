"""Scores for a model's outputs: metrics, confidence intervals and slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import BadResultError
from harness.interfaces import Metric
from harness.measure.quality import metrics as core_metrics
from harness.plugins import resolve
from harness.records import IGNORED, ClassScore, DataInfo, Scores, SliceScore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Function = Callable[[Array, Array, DataInfo], float | None]


class Scorer:
    """Scorer for model outputs on data described by `info`.

    For token classification, targets are class indices ``[N, L]`` and outputs are float32 logits ``[N, L, C]``.
    Positions with the target `harness.IGNORED` are not scored. For other objectives, the arrays are the same as for the
    metric functions, except that regression targets and outputs may be standardized.
    """

    def __init__(self, info: DataInfo, primary: str, functions: dict[str, Function]) -> None:
        self._info, self._primary, self._functions = info, primary, functions

    def score(self, targets: Array, outputs: Array) -> dict[str, float | None]:
        """Return the values of all metrics of the task."""
        real_targets, real_outputs = self._in_target_unit(targets, outputs)
        return {name: self._value(name, real_targets, real_outputs) for name in self._functions}

    def quick(self, targets: Array, outputs: Array) -> dict[str, float | None]:
        """Return the loss without label smoothing and the primary metric. Both are computed after every epoch."""
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
        """Return all scores.

        Each split is a tuple (targets, outputs). `reference` contains the test targets and the outputs of the
        closed-form solution. `groups` are the groups of the test split.
        """
        from harness.measure.quality.intervals import METHOD

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
            interval_method=METHOD,
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
        areas = core_metrics.class_roc_auc(targets, outputs)
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
        """Return the intervals for built-in metrics. A plugin's replacement for a built-in metric has no interval."""
        from harness.measure.quality.intervals import intervals

        known = intervals(self._info.objective, *self._in_target_unit(targets, outputs))
        return {name: ends for name, ends in known.items() if self._functions.get(name) is getattr(core_metrics, name)}

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
    """Return a `Scorer` for these metrics. Raises `harness.PluginError` if a metric function cannot be imported."""
    return Scorer(info, primary, {metric.name: resolve(metric.function) for metric in metrics})
