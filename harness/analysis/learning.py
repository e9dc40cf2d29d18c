"""Flag models that did not learn, and training that ended too early or too late.

Validation curves are averaged over blocks of consecutive epochs. A difference between blocks is flagged only if it
cannot be explained by noise. There are two sources of noise: the sampling of the validation examples, and the
randomness of training. The randomness of training is estimated from the scatter of the scores around the curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from harness.analysis.contradictions import RunFlag
from harness.analysis.metrics import success
from harness.measure.quality.builtin import METRICS
from harness.measure.quality.metrics import info_of
from harness.records import MetricInfo, RunRecord, Success

_BUILTIN = {metric.name: info_of(metric, None) for metric in METRICS}
"""Score definitions for older records, which do not contain definitions."""
PAST_BEST = "training past the best epoch"
"""Kind of flag for runs that were trained for too many epochs."""
ONE_CLASS = "one predicted class"
"""Kind of flag for runs that predict the same class for all test examples."""
MIN_EPOCHS = 5
"""Minimum number of epochs needed to estimate the scatter of the scores. With fewer epochs, only a strong increase is
flagged."""
STRONG = 5.0
"""Minimum size of a strong increase, in standard errors."""
FAR = 1.05
"""Maximum ratio of the error after training to the error of the closed-form solution. Runs with a larger ratio are
flagged.

A run is flagged only if the difference between the two errors is also larger than 5% of the standard deviation of the
targets.
"""
LONGER = 10
"""Suggested factor for increasing the number of epochs. Linear models often need many epochs to reach the closed-form
solution."""
FALSE_ALARMS = 0.02
"""Probability of raising each flag if the validation curve is flat except for noise."""


def of_run(record: RunRecord) -> Iterator[RunFlag]:
    """Yield the flags about the training of a successful run."""
    outcome = success(record)
    yield from _one_class(outcome)
    yield from _worse_than_closed_form(record)
    name = outcome.scores.primary
    info = outcome.scores.metrics.get(name) or _BUILTIN.get(name)
    scores = [epoch.validation.get(name) for epoch in outcome.curves]
    known = [score for score in scores if score is not None and math.isfinite(score)]
    if outcome.selection is not None and outcome.selection.ended == "max_seconds":
        yield RunFlag(
            ("quality",),
            "ended by time",
            f"recipe.max_seconds={record.spec.recipe.max_seconds:g} ended training at step "
            f"{outcome.curves[-1].step}; this step depends on the speed of the machine, so the run cannot be "
            f"reproduced exactly",
        )
    if info is None or not known or len(known) < len(scores):
        return
    error = _standard_error(outcome, known, info)
    oriented = known if info.higher_is_better else [-score for score in known]
    selected = record.spec.recipe.keep_best  # the last epochs do not affect the scores
    for flag in of_curve(name, oriented, error, scores=known):
        if not (selected and flag.kind == PAST_BEST):
            yield flag


def _worse_than_closed_form(record: RunRecord) -> Iterator[RunFlag]:
    """Yield a flag if training ended far from the closed-form solution of the same model.

    The two scores on the test split are compared by their distances from the best possible value.
    """
    outcome = success(record)
    scores, data = outcome.scores, record.provenance.data
    info = scores.metrics.get(scores.primary) or _BUILTIN.get(scores.primary)
    reached, solution = scores.test.get(scores.primary), (scores.reference or {}).get(scores.primary)
    if info is None or reached is None or solution is None or data is None or not data.target_scale:
        return
    best, worst = info.bounds[::-1] if info.higher_is_better else info.bounds
    if best is None:
        return
    error, least = abs(best - reached), abs(best - solution)
    in_target_unit = best == 0 and worst is None  # false for R2, which has no unit
    spread = sum(data.target_scale) / len(data.target_scale) if in_target_unit else 1.0
    if error > FAR * least and error - least > (FAR - 1) * spread:
        epochs = LONGER * record.spec.recipe.epochs
        yield RunFlag(
            ("quality",),
            "worse than the closed-form solution",
            f"{scores.primary} is {reached:.4g} after training, but {solution:.4g} for the closed-form "
            f"solution of the same model; train longer, for example with recipe.epochs={epochs}, or change "
            "recipe.learning_rate",
        )


def _one_class(outcome: Success) -> Iterator[RunFlag]:
    """Yield a flag if the same class is predicted for all test examples, although they belong to several classes."""
    confusion = outcome.scores.confusion
    predicted = [number for number, column in enumerate(zip(*confusion, strict=False)) if any(column)]
    if len(predicted) != 1 or sum(any(row) for row in confusion) < 2:
        return
    labels = [score.label for score in outcome.scores.per_class]
    label = labels[predicted[0]] if len(labels) == len(confusion) else str(predicted[0])
    yield RunFlag(
        ("quality",),
        ONE_CLASS,
        f"every test example is predicted as {label!r}, so the model has not learned to distinguish the classes; train "
        "longer (recipe.epochs), change recipe.learning_rate, or balance the classes",
    )


def of_curve(name: str, curve: Sequence[float], error: float, *, scores: Sequence[float]) -> Iterator[RunFlag]:
    """Yield a flag if the last scores are clearly better than the scores before them, or clearly worse than the best
    scores.

    In `curve`, larger values are better. `scores` contains the same values with their original signs. `error` is the
    standard error of a score over the validation examples.
    """
    from scipy.special import ndtri, stdtrit

    epochs = len(curve)
    if epochs < 2:
        return
    size = max(1, epochs // 8)
    # The degrees of freedom of the scatter, which is estimated from overlapping second differences, are 18/35 of their
    # number (from the variance of the mean of their squares).
    freedom = max(1.0, (epochs - 2) * 18 / 35)
    scatter = _scatter(curve) if epochs >= MIN_EPOCHS else math.nan

    def noise(probability: float) -> float:
        """Return a threshold for the difference between two blocks. Noise alone exceeds the threshold with a
        probability of at most `probability`."""
        if epochs < MIN_EPOCHS:
            return STRONG * error * math.sqrt(2)
        # Means over several epochs reduce the noise of training, but not that of the validation examples, which are the
        # same in every epoch.
        deviations = error * ndtri(1 - probability), scatter * math.sqrt(2 / size) * stdtrit(freedom, 1 - probability)
        return float(max(deviations))

    blocks = [sum(curve[start : start + size]) / size for start in range(epochs - size + 1)]
    last, before = blocks[-1], blocks[-1 - size]
    best = max(range(len(blocks)), key=blocks.__getitem__)
    best_epoch = max(range(best, best + size), key=curve.__getitem__) + 1
    if last - before > noise(FALSE_ALARMS) and max(curve) in curve[-size:]:
        yield RunFlag(
            ("quality",),
            "rising validation curve",
            f"the validation {name} was still improving at the last epoch, from {_mean(scores[-2 * size : -size])} to "
            f"{_mean(scores[-size:])} ({_blocks(size)}); train longer, for example with recipe.epochs={2 * epochs}",
        )
    elif (
        epochs >= MIN_EPOCHS
        and best + size <= epochs - size
        and blocks[best] - last > noise(FALSE_ALARMS / (epochs - size))
    ):
        yield RunFlag(
            ("quality",),
            PAST_BEST,
            f"the validation {name} was best at epoch {best_epoch} of {epochs} and then became worse, from "
            f"{_mean(scores[best : best + size])} to {_mean(scores[-size:])} ({_blocks(size)}); train for fewer "
            f"epochs, for example with recipe.epochs={best_epoch}",
        )


def _standard_error(outcome: Success, curve: Sequence[float], info: MetricInfo) -> float:
    """Return the standard error of a score over the validation examples.

    The standard error is derived from the 95% interval over the test examples. For a score between 0 and 1, the
    standard error is at least that of a binomial proportion. For other metrics without an interval, the standard error
    is 1% of the score.
    """
    examples = max(1, outcome.examples.get("validation", 1))
    interval = outcome.scores.intervals.get(outcome.scores.primary)
    error = 0.0
    if interval is not None:
        z = 1.96
        error = (interval[1] - interval[0]) / (2 * z) * math.sqrt(outcome.examples.get("test", examples) / examples)
    if info.bounds == (0, 1):
        mean = min(1.0, max(0.0, sum(curve[-3:]) / len(curve[-3:])))
        proportion = (mean * examples + 1) / (examples + 2)
        return max(error, math.sqrt(proportion * (1 - proportion) / examples))
    return error or abs(curve[-1]) / 100


def _scatter(curve: Sequence[float]) -> float:
    """Estimate the standard deviation of the scores around a smooth curve from their second differences."""
    bends = [after - 2 * here + before for before, here, after in zip(curve, curve[1:], curve[2:], strict=False)]
    return math.sqrt(sum(bend * bend for bend in bends) / (6 * len(bends)))


def _mean(scores: Sequence[float]) -> str:
    return f"{sum(scores) / len(scores):.4g}"


def _blocks(size: int) -> str:
    return "one epoch each" if size == 1 else f"means over {size} epochs"
