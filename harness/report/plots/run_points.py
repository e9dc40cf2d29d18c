"""The data for the plots of a single run, as columns of numbers. The number of points is limited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.records import RunRecord, Success
from harness.records.samples import inference_windows, predictions, train_windows
from harness.report.plots.curves import GRID, decision_curves, macro

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

Columns = dict[str, list[Any]]

MAX_POINTS = 160
"""Maximum number of points per line."""
_MIN_FOR_NUMPY = 40
"""Minimum number of values for which rounding with numpy is faster than rounding in pure Python."""
MAX_CLASSES = 10
"""Maximum number of classes for which curves are returned. The classes with the smallest area under the ROC curve are
selected."""


def learning(outcome: Success) -> Columns:
    """Return the validation score after each epoch, with the number of steps and the training time."""
    score = [epoch.validation.get(outcome.scores.primary) for epoch in outcome.curves]
    known = iter(_short([value for value in score if value is not None]))
    return {
        "epoch": [epoch.epoch for epoch in outcome.curves],
        "step": [epoch.step for epoch in outcome.curves],
        "seconds": _short([epoch.train_s for epoch in outcome.curves]),
        "score": [None if value is None else next(known) for value in score],
    }


def losses(arrays: Arrays) -> Columns:
    """Return the training loss, averaged over intervals with the same number of steps."""
    values = arrays.get("train_losses", np.empty(0))
    values = values[np.isfinite(values)]
    if not len(values):
        return {}
    stretches = min(len(values), MAX_POINTS)
    starts = np.arange(stretches) * len(values) // stretches
    ends = np.append(starts[1:], len(values))
    means = np.add.reduceat(values, starts) / (ends - starts)
    return {"step": ends.tolist(), "loss": _short(means)}


def windows(record: RunRecord, arrays: Arrays) -> Columns:
    """Return the throughput of each window as a function of elapsed time. ``steady`` is False for warm-up windows."""
    phases: list[str] = []
    at_s, rates, steady = [], [], []
    for phase, measured in (
        ("training", train_windows(record, arrays)),
        ("inference", inference_windows(record, arrays)),
    ):
        if measured is not None:
            chosen = _spread(len(measured.seconds), MAX_POINTS)
            phases += [phase] * len(chosen)
            at_s.append(measured.seconds.cumsum()[chosen])
            rates.append(measured.samples_per_s[chosen])
            steady.append(chosen >= measured.steady_from)
    if not phases:
        return {}
    return {
        "phase": phases,
        "at_s": _short(np.concatenate(at_s)),
        "rate": _short(np.concatenate(rates)),
        "steady": np.concatenate(steady).tolist(),
    }


def latency(arrays: Arrays) -> Columns:
    """Return a histogram of latencies up to the 99.5th percentile. The last bin includes all larger values."""
    values = np.sort(arrays.get("latencies_s", np.empty(0))) * 1e3
    if not len(values):
        return {}
    low, top = np.interp([0, 0.995 * (len(values) - 1)], np.arange(len(values)), values)
    edges = np.linspace(low, top if top > low else low + 1, min(40, max(5, len(values) // 8)) + 1)
    starts = values.searchsorted(edges[:-1])
    shown = _short(edges)
    return {"low": shown[:-1], "high": shown[1:], "count": np.diff(starts, append=len(values)).tolist()}


def memory(outcome: Success) -> Columns:
    """Return the peak host memory of each phase, in MiB."""
    phases = outcome.memory.host_peak_by_phase_bytes
    return {"phase": list(phases), "mib": _short([size / 2**20 for size in phases.values()])}


def seconds(outcome: Success) -> Columns:
    """Return the duration of each phase, in seconds."""
    return {"phase": list(outcome.phases_s), "seconds": _short(list(outcome.phases_s.values()))}


def confusion(outcome: Success) -> Columns:
    """Return the nonzero cells of the confusion matrix.

    ``share`` is the number of examples in the cell as a fraction of all examples of the true class.
    """
    matrix = np.asarray(outcome.scores.confusion)
    true, predicted = np.nonzero(matrix)
    counts = matrix[true, predicted]
    totals = matrix.sum(axis=1)
    return {
        "true": true.tolist(),
        "predicted": predicted.tolist(),
        "count": counts.tolist(),
        "share": np.round(counts / totals[true], 4).tolist(),
    }


def decisions(record: RunRecord, outcome: Success, arrays: Arrays) -> dict[str, Any]:
    """Return ROC and precision-recall curves on a common grid ``x``. The result contains the mean curves and the curves
    of at most `MAX_CLASSES` classes."""
    pair = predictions(record, arrays)
    if pair is None or not outcome.scores.per_class or pair[1].ndim != 2:
        return {}
    curves = decision_curves(*pair)
    if np.isnan(curves.tpr).all():
        return {}
    areas = [score.roc_auc for score in outcome.scores.per_class]
    known = [
        number
        for number, area in enumerate(areas[: len(curves.tpr)])
        if area is not None and not np.isnan(curves.tpr[number, 0])
    ]
    shown = sorted(sorted(known, key=lambda number: areas[number] or 0.0)[:MAX_CLASSES])
    named = {"mean of classes": macro(curves)}
    for number in shown:
        label = outcome.scores.per_class[number].label
        name = label if label not in named else f"{label} (class {number})"
        named[name] = curves.tpr[number], curves.precision[number]
    rounded = np.round(list(named.values()), 4)  # [names, 2, len(GRID)]
    tpr, precision = (dict(zip(named, rounded[:, place].tolist(), strict=True)) for place in (0, 1))
    return {"x": list(GRID), "tpr": tpr, "precision": precision, "left_out": len(known) - len(shown)}


def calibration(record: RunRecord, outcome: Success, arrays: Arrays) -> Columns:
    """Return the mean confidence, the accuracy and the number of test examples for each confidence bin that is not
    empty."""
    from harness.measure.quality.metrics import reliability

    pair = predictions(record, arrays)
    if pair is None or not outcome.scores.per_class or pair[1].ndim != 2:
        return {}
    counts, confidence, accuracies = reliability(*pair)
    filled = counts > 0
    return {
        "confidence": np.round(confidence[filled], 4).tolist(),
        "accuracy": np.round(accuracies[filled], 4).tolist(),
        "count": counts[filled].tolist(),
    }


def errors(record: RunRecord, arrays: Arrays) -> Columns:
    """Return targets, predictions and residuals (prediction minus target) for the first target of a regression."""
    info = record.provenance.data
    pair = predictions(record, arrays)
    if pair is None or info is None or info.objective != "regression":
        return {}
    true, predicted = pair[0][:, 0], pair[1][:, 0]
    chosen = _spread(len(true), 3 * MAX_POINTS)
    return {
        "true": _short(true[chosen]),
        "predicted": _short(predicted[chosen]),
        "residual": _short((predicted - true)[chosen]),
    }


def _spread(count: int, most: int) -> NDArray[np.intp]:
    """Return at most `most` evenly spaced indices from 0 to `count` - 1."""
    chosen = min(count, most)
    return np.arange(chosen) * (count - 1) // max(chosen - 1, 1)


def _short(values: Sequence[float] | NDArray[Any]) -> list[float]:
    """Round values to five significant digits, which is sufficient for plots."""
    if len(values) < _MIN_FOR_NUMPY:
        return [float(f"{value:.5g}") for value in values]
    exact = np.asarray(values, np.float64)
    place = 4 - np.floor(np.log10(np.abs(exact) + (exact == 0)))
    scale = 10.0 ** np.abs(place)
    rounded = np.rint(exact * scale) / scale
    if place.min(initial=0) < 0:
        rounded = np.where(place < 0, np.rint(exact / scale) * scale, rounded)
    short: list[float] = rounded.tolist()
    return short
