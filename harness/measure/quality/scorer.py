"""Metrics, confidence intervals and slices computed from the outputs of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from harness.errors import BadResultError, PluginError
from harness.interfaces import Metric
from harness.measure.quality import metrics as core_metrics
from harness.measure.quality.call import Function, PerExample, call, check_info, function_of, located, values_of
from harness.measure.quality.streaming import (
    SlicedMetric,
    Streamed,
    StreamedMetric,
    StreamFactory,
    streamed,
    update_all,
)
from harness.records import IGNORED, ClassScore, DataInfo, MetricInfo, Scores, SliceScore, TargetScore
from harness.records.arrays import digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


NOT_HELD = "the outputs were not kept in memory, because the metrics are computed batch by batch"
"""Reason why a streaming metric that is not a mean over examples has no interval."""

Scorable: TypeAlias = "tuple[Array, Array] | Streamed"
"""The targets and outputs of a split, or the scores of a split whose outputs were not kept in memory."""


class Scorer:
    """Scorer for the outputs of a model on data described by `info`.

    For token classification, targets are class indices ``[N, L]`` and outputs are float32 logits ``[N, L, C]``.
    Positions with the target `harness.IGNORED` are not scored. For other objectives, the arrays have the types that
    metric functions expect. However, regression targets and outputs may be standardized.

    Metric functions receive read-only arrays. `harness.PluginError` is raised if a function returns anything other than
    a number or None, or if it changes the arrays. Changed arrays would affect other scores and the stored predictions.
    `harness.BadResultError` is raised if the value is not finite or is outside the bounds of the metric.

    `announce` is called with the name of a metric before the metric's function is called, and with an empty string
    afterwards.
    """

    def __init__(
        self,
        info: DataInfo,
        primary: str,
        functions: dict[str, Function],
        declared: dict[str, MetricInfo],
        announce: Callable[[str], None] = lambda name: None,
        per_example: Mapping[str, PerExample] | None = None,
        streaming: Mapping[str, StreamFactory] | None = None,
    ) -> None:
        self._info, self._primary, self._functions, self._declared = info, primary, functions, declared
        self._announce, self._per_example = announce, per_example or {}
        self._streaming = streaming or {}

    @property
    def primary(self) -> str:
        """Name of the task's primary metric."""
        return self._primary

    @property
    def higher_is_better(self) -> bool:
        """True if larger values of the primary metric are better."""
        return self._declared[self._primary].higher_is_better

    @property
    def streams(self) -> bool:
        """True if all metrics are streaming. In this case, outputs need not be kept in memory; see `streamed`."""
        return self._functions.keys() <= self._streaming.keys()

    def streamed(self, targets: Array, parts: Iterable[Array], groups: Mapping[str, Array]) -> Streamed:
        """Return the scores of a split whose outputs arrive in batches of consecutive examples.

        `targets` and `groups` are those of the whole split. Raises the same errors as the other methods.
        """
        metrics = {name: self._stream(name, self._per_example.get(name)) for name in self._functions}
        sliced = SlicedMetric(groups, lambda: self._stream(self._primary)) if groups else None
        for batch_targets, outputs in _paired(targets, parts):
            in_unit = self._in_target_unit(batch_targets, outputs)
            update_all([*metrics.values(), *([] if sliced is None else [sliced])], *in_unit)
        return streamed(metrics, sliced)

    def quick_streamed(self, targets: Array, parts: Iterable[Array]) -> dict[str, float | None]:
        """Return the primary metric and the loss of outputs that arrive in batches of consecutive examples."""
        metric, total, count = self._stream(self._primary), 0.0, 0
        for batch_targets, outputs in _paired(targets, parts):
            metric.update(*self._in_target_unit(batch_targets, outputs))
            losses = self._losses(batch_targets, outputs)
            total, count = total + float(losses.sum()), count + losses.size
        return {"loss": total / count, self._primary: metric.compute()}

    def _stream(self, name: str, per_example: PerExample | None = None) -> StreamedMetric:
        factory, declared = self._streaming[name], self._declared[name]
        return StreamedMetric(name, factory, declared, self._info, self._announce, per_example)

    def score(self, targets: Array, outputs: Array) -> dict[str, float | None]:
        """Return the values of all metrics of the task."""
        return self._values(self._functions, *self._in_target_unit(targets, outputs))

    def quick(self, targets: Array, outputs: Array) -> dict[str, float | None]:
        """Return the primary metric and the loss.

        The loss is computed without label smoothing. The primary metric and the loss are computed after every epoch.
        """
        primary = self._values([self._primary], *self._in_target_unit(targets, outputs))
        return {"loss": self._loss(targets, outputs), **primary}

    def scores(
        self,
        test: Scorable,
        validation: Scorable,
        reference: Scorable | None,
        groups: Mapping[str, Array],
    ) -> Scores:
        """Return all scores.

        Each split is a tuple (targets, outputs), or the result of `streamed`. `reference` contains the test targets and
        the outputs of the closed-form solution. `groups` are the groups of the test split. Raises
        `harness.BadResultError` if the primary metric is undefined for the test split, because the run would not have
        a score.
        """
        from harness.measure.quality.intervals import METHOD

        test_scores, validation_scores = self.values(test), self.values(validation)
        reference_scores = None if reference is None else self.values(reference)
        if test_scores[self._primary] is None:
            raise BadResultError(
                f"the metric {self._primary!r} returned None for the test split, but the task's primary metric must be "
                f"defined; fix the metric, or choose another test split or primary metric"
            )
        if isinstance(test, Streamed):
            given, missing = self._intervals_of_means(test)
            return Scores(
                primary=self._primary,
                test=test_scores,
                validation=validation_scores,
                reference=reference_scores,
                slices=test.slices,
                intervals=given,
                no_interval=missing,
                metrics=self._declared,
                interval_method=METHOD,
                streamed=True,
            )
        classes = self._info.objective == "classification" and test[1].ndim == 2
        given, missing = self._intervals(test_scores, *test)
        return Scores(
            primary=self._primary,
            test=test_scores,
            validation=validation_scores,
            reference=reference_scores,
            per_class=self._per_class(*test) if classes else [],
            confusion=self._confusion(*test) if classes else [],
            per_target=self._per_target(*self._in_target_unit(*test)) if len(self._info.units) > 1 else [],
            slices=self._slices(*self._in_target_unit(*test), groups),
            intervals=given,
            no_interval=missing,
            metrics=self._declared,
            interval_method=METHOD,
        )

    def values(self, split: Scorable) -> dict[str, float | None]:
        """Return the values of all metrics of the task for a split."""
        return split.values if isinstance(split, Streamed) else self.score(*split)

    def _values(self, names: Iterable[str], targets: Array, outputs: Array) -> dict[str, float | None]:
        """Return the values of metrics, keyed by metric name. Also check that no function changed its arguments."""
        values = {}
        before, info = digest({"targets": targets, "outputs": outputs}), msgspec.json.encode(self._info)
        for name in names:
            values[name] = self._value(name, targets, outputs)
            if digest({"targets": targets, "outputs": outputs}) != before:
                raise PluginError(
                    f"the metric {name!r} changed its targets or outputs; copy the arrays before changing them"
                )
            check_info(name, self._info, info)
        return values

    def _value(self, name: str, targets: Array, outputs: Array) -> float | None:
        self._announce(name)
        value = call(name, self._functions[name], self._declared[name], targets, outputs, self._info)
        self._announce("")
        return value

    def _in_target_unit(self, targets: Array, outputs: Array) -> tuple[Array, Array]:
        return self._info.in_target_unit(targets), self._info.in_target_unit(outputs)

    def _loss(self, targets: Array, outputs: Array) -> float:
        return float(self._losses(targets, outputs).mean())

    def _losses(self, targets: Array, outputs: Array) -> Array:
        """Return the squared error of each target value, or the negative log-likelihood of each target that is
        scored."""
        if self._info.objective == "regression":
            errors: Array = (outputs.astype("float64") - targets) ** 2
            return errors
        if self._info.objective == "token_classification":
            counted = targets != IGNORED
            targets, outputs = targets[counted], outputs[counted]
        return core_metrics.example_log_losses(targets, outputs)

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

    def _per_target(self, targets: Array, outputs: Array) -> list[TargetScore]:
        """Return the scores of each target separately. The arrays are in the units of the targets.

        Only built-in metrics are computed, because a metric from a plugin may require all targets at once.
        """
        info, parts = self._info, []
        alone_too = {name: f for name, f in self._functions.items() if f is getattr(core_metrics, name, None)}
        for number, unit in enumerate(info.units):
            label = info.label_names[number] if info.label_names else str(number)
            alone = msgspec.structs.replace(
                info,
                outputs=1,
                label_names=(label,),
                target_mean=(),
                target_scale=(),
                details=info.details | {"target_unit": unit},
            )
            column = slice(number, number + 1)
            scores = {
                name: call(name, function, self._declared[name], targets[:, column], outputs[:, column], alone)
                for name, function in alone_too.items()
            }
            parts.append(TargetScore(label=label, unit=unit, scores=scores))
        return parts

    def _intervals(
        self, scores: Mapping[str, float | None], targets: Array, outputs: Array
    ) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
        """Return the intervals, keyed by metric, and the reasons why other metrics in `scores` do not have an interval.

        A metric from a plugin has an interval only if it defines a value for each example (`Metric.per_example`).
        """
        from harness.measure.quality.intervals import intervals, of_mean

        in_unit = self._in_target_unit(targets, outputs)
        by_position = self._info.objective == "token_classification" or outputs.ndim != 2
        known, reasons = ({}, {}) if by_position else intervals(self._info.objective, *in_unit)
        given, missing = {}, {}
        for name, value in scores.items():
            found: tuple[float, float] | str
            # An audit compares the reasons with those in older records. Their order and texts must not change.
            if name in self._per_example and value is not None:
                bounds = self._declared[name].bounds
                each = values_of(name, self._per_example[name], bounds, *in_unit, self._info, mean=value)
                found = of_mean(each, bounds)
            elif by_position:
                found = "the positions of an example are not independent of each other"
            elif name not in self._per_example and self._functions[name] is not getattr(core_metrics, name, None):
                found = "the metric does not define per_example, the values of the examples"
            elif value is None:
                found = "the metric is undefined for the test split"
            else:
                found = known[name] if name in known else reasons[name]
            if isinstance(found, str):
                missing[name] = found
            else:
                given[name] = found
        return given, missing

    def _intervals_of_means(self, test: Streamed) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
        """Return the intervals of metrics that are means over examples, and the reasons why other metrics have no
        interval."""
        from harness.measure.quality.intervals import of_mean

        given, missing = {}, {}
        for name in test.values:
            each = test.per_example.get(name)
            found = NOT_HELD if each is None else of_mean(each, self._declared[name].bounds)
            if isinstance(found, str):
                missing[name] = found
            else:
                given[name] = found
        return given, missing

    def _slices(self, targets: Array, outputs: Array, groups: Mapping[str, Array]) -> list[SliceScore]:
        from harness.measure.quality.slices import slices

        return [
            SliceScore(
                group=group,
                value=value,
                support=int(members.sum()),
                score=self._value(self._primary, targets[members], outputs[members]),
                **self._class_counts(targets[members], outputs[members]),
            )
            for group, value, members in slices(groups)
        ]

    def _class_counts(self, targets: Array, outputs: Array) -> dict[str, list[int]]:
        """Return the counts for each class of a `SliceScore`, or an empty dictionary if the objective is not
        classification."""
        import numpy as np

        if self._info.objective != "classification" or outputs.ndim != 2:
            return {}
        predicted = outputs.argmax(axis=-1)
        counted = {
            "class_support": targets,
            "class_predicted": predicted,
            "class_correct": targets[targets == predicted],
        }
        return {name: np.bincount(found, minlength=self._info.outputs).tolist() for name, found in counted.items()}

    def _confusion(self, targets: Array, outputs: Array) -> list[list[int]]:
        from sklearn.metrics import confusion_matrix

        matrix = confusion_matrix(targets, outputs.argmax(axis=-1), labels=range(self._info.outputs))
        rows: list[list[int]] = matrix.tolist()
        return rows


def scorer(
    info: DataInfo, primary: str, metrics: Sequence[Metric], announce: Callable[[str], None] = lambda name: None
) -> Scorer:
    """Return a `Scorer` for these metrics. Raises `harness.PluginError` if a metric function cannot be imported."""
    functions = {metric.name: function_of(metric) for metric in metrics}
    streaming = {metric.name: located(metric, metric.function) for metric in metrics if metric.streaming}
    declared = {metric.name: core_metrics.info_of(metric, info) for metric in metrics}
    per_example = {metric.name: located(metric, metric.per_example) for metric in metrics if metric.per_example}
    return Scorer(info, primary, functions, declared, announce, per_example, streaming)


def _paired(targets: Array, parts: Iterable[Array]) -> Iterator[tuple[Array, Array]]:
    """Yield the targets and the outputs of each batch of consecutive examples."""
    start = 0
    for outputs in parts:
        yield targets[start : start + len(outputs)], outputs
        start += len(outputs)
