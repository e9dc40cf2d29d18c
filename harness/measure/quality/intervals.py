"""95% confidence intervals for test scores.

The intervals describe how much a score varies between test sets of the same size.

The intervals do not account for the variation between training runs, which is measured by using several seeds.

- The interval for accuracy is the exact interval of Clopper and Pearson (1934, Biometrika 26, 404-413).
- Scores that are averaged over classes use the same interval with an effective number of examples (Korn and Graubard
  1998, Survey Methodology 24, 193-201). The effective number of examples is chosen such that a proportion estimated
  from that many examples has the same variance as the score. A small variance cannot be estimated reliably from only a
  few examples. The effective number of examples is therefore limited to the number for which the interval of a perfect
  score is exact.
- For two classes, the interval of the area under the ROC curve is computed like the interval of a proportion. The
  number of examples of the rarer class is used as the sample size. This interval is valid for all distributions of the
  outputs.
- The interval of the Matthews correlation coefficient r is derived from that of the proportion (1 + r) / 2, using an
  effective number of examples.
- Regression errors, the log loss and the Brier score have Student's t intervals, which are computed for the logarithm
  of the error. Because a test split rarely contains the largest possible errors, the upper end is computed as if there
  were one more example with a larger error.

``python -m benchmarks.coverage`` measures how often the intervals contain the true score.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.measure.quality.metrics import example_brier_scores, example_log_losses, probabilities

if TYPE_CHECKING:
    from harness.records import Objective

Array = NDArray[Any]
Interval = tuple[float, float]

METHOD = "Korn-Graubard, exact for perfect scores; Student t of the logarithm"
"""Description of the methods, as stored in the records."""
FORMER_METHODS = ("Korn-Graubard; Student t of the logarithm",)
"""Methods used in older records. Intervals in older records are not recomputed."""
TAIL = 0.025
"""Probability that a proportion is below its interval. The probability that a proportion is above its interval is the
same."""
MIN_PER_CLASS = {
    "recall_macro": 2, "balanced_accuracy": 2, "f1_macro": 4, "f1_weighted": 3, "precision_macro": 2, "mcc": 4,
}  # fmt: skip
"""Minimum number of test examples per class required to compute the interval of a score. Classes without examples are
ignored for `f1_weighted`. The values were chosen by simulation such that at least 93% of the intervals contain the true
score."""
MIN_ANSWERS = 2
"""Minimum number of predictions of each class required to compute the interval of macro precision."""
MIN_EXAMPLES = 20
"""Minimum number of test examples required to compute the interval of a regression score."""
TAILS = (0.01, 0.025)
"""Nominal probabilities that a regression error is below the lower end or above the upper end of its interval."""
UNSEEN = (1.5, 25.0)
"""The error of the additional example is (a + b / N) times the largest error of the N test examples. The values (a, b)
were chosen by simulation such that at least 93% of the intervals contain the true score for heavy-tailed errors."""


def intervals(objective: Objective, targets: Array, outputs: Array) -> tuple[dict[str, Interval], dict[str, str]]:
    """Return the intervals (low, high), keyed by metric, and the reasons why other metrics do not have an interval.

    Each metric in `harness.measure.quality.metrics` that applies to the objective appears in one of the two
    dictionaries.

    For classification, `targets` are int64 ``[N]`` and `outputs` are logits ``[N, C]``. For regression, `targets` and
    `outputs` are ``[N, T]`` in the target's unit. Every interval contains the score.
    """
    if objective == "classification":
        found, missing = _classification(targets, outputs.argmax(axis=-1), outputs.shape[1])
        others = {"roc_auc": _area(targets, outputs), **_probabilistic(targets, outputs)}
        for name, ends in others.items():
            if isinstance(ends, str):
                missing[name] = ends
            else:
                found[name] = ends
        return found, missing
    return _regression(targets.astype(np.float64), outputs.astype(np.float64))


def _classification(targets: Array, predicted: Array, classes: int) -> tuple[dict[str, Interval], dict[str, str]]:
    n = len(targets)
    hit = (targets == predicted).astype(np.float64)
    support, answers = (np.bincount(labels, minlength=classes) for labels in (targets, predicted))
    right = np.bincount(targets, hit, minlength=classes)
    accuracy = proportion(float(hit.mean()), n)
    found = {"accuracy": accuracy, "f1_micro": accuracy}  # equal, because each example has exactly one label
    missing = _too_few(support, answers)

    def averaged(score: float, influence: Array, limit: float) -> Interval:
        """Return the interval of a score.

        `influence` contains the derivatives of the score with respect to the weights of the examples.
        """
        variance = float((influence**2 * (support / np.maximum(support - 1, 1))[targets]).sum())
        score = min(score, 1.0)  # rounding errors can make the variance larger
        estimated = 0 < score < 1 and variance > 0
        return proportion(score, min(score * (1 - score) / variance, limit) if estimated else limit)

    both = np.maximum(support + answers, 1)
    f1 = 2 * right / both
    # In small samples, the expected F1 of a class is too low by about this much (second-order delta method).
    f1_bias = f1 * (1 - f1) / both
    if "f1_weighted" not in missing:
        weights = support / n
        score = float(f1 @ weights)
        influence = (2 * hit - f1[targets]) * (weights / both)[targets] - (weights * f1 / both)[predicted]
        low, high = averaged(score, influence + (f1[targets] - score) / n, n)
        found["f1_weighted"] = low, min(1.0, high + float(f1_bias @ weights))
    if "recall_macro" not in missing:
        recall = right / support
        influence = (hit - recall[targets]) / support[targets] / classes
        found["recall_macro"] = averaged(float(recall.mean()), influence, effective(support))
        found["balanced_accuracy"] = found["recall_macro"]  # equal, because each class has examples
    if "mcc" not in missing:
        correlation, influence = _correlation(hit, targets, predicted, support / n, answers / n)
        low, high = averaged((1 + correlation) / 2, influence / (2 * n), effective(support))
        found["mcc"] = 2 * low - 1, 2 * high - 1
    if "f1_macro" not in missing:
        influence = ((2 * hit - f1[targets]) / both[targets] - (f1 / both)[predicted]) / classes
        low, high = averaged(float(f1.mean()), influence, effective(support))
        found["f1_macro"] = low, min(1.0, high + float(f1_bias.mean()))
    if "precision_macro" not in missing:
        precision = right / answers
        influence = (hit - precision[predicted]) / answers[predicted] / classes
        low, high = averaged(float(precision.mean()), influence, effective(answers))
        # If the number of examples in each class is fixed, the expected precision is too high by about this much.
        bias = float((precision * (1 - precision) * right / support / answers).mean())
        found["precision_macro"] = max(0.0, low - bias), high
    return found, missing


def _correlation(hit: Array, targets: Array, predicted: Array, support: Array, answers: Array) -> tuple[float, Array]:
    """Return the Matthews correlation coefficient, and the influence ``[N]`` of each example on this value.

    `support` contains the fraction of examples in each class, and `answers` the fraction of predictions for each class.
    """
    spreads = 1 - (support**2).sum(), 1 - (answers**2).sum()
    agreement = float(hit.mean()) - float(support @ answers)
    scale = math.sqrt(spreads[0] * spreads[1])
    correlation = agreement / scale
    change = hit - answers[targets] - support[predicted] - (float(hit.mean()) - 2 * float(support @ answers))
    narrower = (1 - spreads[0] - support[targets]) / spreads[0] + (1 - spreads[1] - answers[predicted]) / spreads[1]
    return correlation, change / scale - correlation * narrower


def _probabilistic(targets: Array, outputs: Array) -> dict[str, Interval | str]:
    """Return the intervals of the metrics that are computed from probabilities, or the reasons why they do not have an
    interval.

    The log loss and the Brier score are means over examples. The upper end of the interval is computed with one
    additional example. The loss of the additional example is the largest loss that any test example has, or would have
    if its second most likely class were the true class.
    """
    found: dict[str, Interval | str] = {
        "average_precision": "no known method is valid for all distributions of the outputs",
        "ece": "the expected calibration error of a sample is biased upward by an unknown amount",
    }
    second = outputs.argsort(axis=1)[:, -2:][:, 0]
    losses = {"log_loss": (example_log_losses, math.inf), "brier": (example_brier_scores, 2.0)}
    for name, (function, limit) in losses.items():
        if len(targets) < MIN_EXAMPLES:
            found[name] = _too_small(len(targets))
            continue
        values = function(targets, outputs)
        largest = max(float(values.max()), float(function(second, outputs).max()))
        extended = np.append(values, largest)
        ends = _positive(_mean_absolute(values[:, None]), _mean_absolute(extended[:, None])) if values.any() else None
        found[name] = "the losses of the test examples do not vary" if ends is None else (ends[0], min(ends[1], limit))
    return found


def _too_small(examples: int) -> str:
    return f"the test split has {examples} examples, and an interval needs at least {MIN_EXAMPLES}"


def _area(targets: Array, outputs: Array) -> Interval | str:
    """Return the interval of the area under the ROC curve, or the reason why it has no interval.

    For two classes with m and n examples, the variance of the area a is at most ``a (1 - a) / min(m, n)`` for all
    distributions of the outputs (Birnbaum and Klose 1957, Annals of Mathematical Statistics 28, 933-945).
    """
    if outputs.shape[1] != 2:
        return "the score is a mean over more than two classes, and the values of the classes are not independent"
    scores = probabilities(outputs)[:, 1]
    first, second = np.sort(scores[targets == 0]), scores[targets == 1]
    if not len(first) or not len(second):
        return "a class has no examples in the test split"
    below = (np.searchsorted(first, second, "left") + np.searchsorted(first, second, "right")) / 2  # ties count half
    return proportion(float(below.mean()) / len(first), min(len(first), len(second)))


def _too_few(support: Array, answers: Array) -> dict[str, str]:
    """Return the reasons why averaged scores have no interval, keyed by the name of the score."""
    missing = {}
    for name, least in MIN_PER_CLASS.items():
        counted = support[support > 0] if name == "f1_weighted" else support
        if counted.min() < least:
            missing[name] = (
                f"a class has {_examples(counted.min())} in the test split, and an interval needs at least {least} in "
                "each class"
            )
        elif name == "mcc" and answers.max() == answers.sum():
            missing[name] = "all predictions belong to one class"
        elif name == "precision_macro" and answers.min() < MIN_ANSWERS:
            missing[name] = (
                f"a class is predicted for {_examples(answers.min())}, and an interval needs at least {MIN_ANSWERS} in "
                "each class"
            )
    return missing


def _examples(number: int) -> str:
    return f"{number or 'no'} example{'s' if number != 1 else ''}"


def of_mean(values: Array, bounds: tuple[float | None, float | None]) -> Interval | str:
    """Return the interval of a mean over per-example values ``[N]``, or the reason why there is no interval.

    If the metric has both a lower and an upper bound, the mean is scaled to [0, 1], and the interval is computed as for
    a proportion with an effective number of examples. The same method is used for scores that are averaged over
    classes. If the metric has at most one bound, the interval is Student's t interval, limited to the bound if there is
    one.
    """
    n, (low, high) = len(values), bounds
    if n < MIN_EXAMPLES:
        return _too_small(n)
    mean, variance = float(values.mean()), float(values.var(ddof=1)) / n if _varies(values, values) else 0.0
    if low is not None and high is not None:
        score = min(max((mean - low) / (high - low), 0.0), 1.0)
        scaled = variance / (high - low) ** 2
        estimated = 0 < score < 1 and scaled > 0
        ends = proportion(score, min(score * (1 - score) / scaled, n) if estimated else n)
        return low + ends[0] * (high - low), low + ends[1] * (high - low)
    if not variance:
        return "the values of the test examples do not vary"
    reach = student(1 - TAIL, n - 1) * math.sqrt(variance)
    return (
        max(mean - reach, -math.inf if low is None else low),
        min(mean + reach, math.inf if high is None else high),
    )


def effective(counts: Array) -> float:
    """Return the effective number of examples for a mean over classes, given the number of examples in each class.

    If all examples are correct, the Clopper-Pearson interval for the effective number of examples starts at the lowest
    mean for which the probability of a result without errors is 2.5%. For class i, this probability is ``p_i ** n_i``.
    By the method of Lagrange multipliers, the sum of ``p_i`` is minimal at ``p_i = min(1, n_i / m)``, where m is chosen
    such that the product of ``p_i ** n_i`` over all classes is 2.5%. For classes of equal size, the result is the total
    number of examples.
    """
    sizes = np.sort(counts).astype(np.float64)
    total, logs = sizes.cumsum(), (sizes * np.log(sizes)).cumsum()
    limits = (logs - math.log(TAIL)) / total  # logarithm of m if the k smallest classes have p_i < 1
    k = int((np.log(sizes) < limits).nonzero()[0][-1])
    lowest = 1 - (k + 1 - total[k] * math.exp(-limits[k])) / len(sizes)
    return math.log(TAIL) / math.log(lowest)


def proportion(score: float, n: float, tail: float = TAIL) -> Interval:
    """Return the Clopper-Pearson interval of a proportion of `n` examples. `n` need not be an integer. `tail` is the
    probability on each side of the interval."""
    from scipy.special import betaincinv

    count, rest = score * n, (1 - score) * n
    low = float(betaincinv(count, rest + 1, tail)) if count > 0 else 0.0
    high = float(betaincinv(count + 1, rest, 1 - tail)) if rest > 0 else 1.0
    return min(low, score), max(high, score)


def student(probability: float, freedom: int) -> float:
    """Return a quantile of Student's t distribution with at least 19 degrees of freedom.

    The error of the quantile is below 1e-5.

    The series is formula 26.7.5 of Abramowitz and Stegun (1972, Handbook of Mathematical Functions). This function is
    used instead of scipy because importing scipy would take longer than computing the scores of a regression task.
    """
    x = NormalDist().inv_cdf(probability)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + math.fsum(term / float(freedom) ** power for power, term in enumerate(terms, start=1))


def _regression(targets: Array, outputs: Array) -> tuple[dict[str, Interval], dict[str, str]]:
    n = len(targets)
    names = ("rmse", "mae", "r2")
    if n < MIN_EXAMPLES:
        return {}, dict.fromkeys(names, _too_small(n))
    errors = abs(outputs - targets)
    if not errors.any(axis=0).all():
        return {}, dict.fromkeys(names, "every prediction of a target is exact")
    larger = UNSEEN[0] + UNSEEN[1] / n
    extended = np.concatenate([errors, larger * errors.max(axis=0, keepdims=True)])
    ends = {
        "rmse": _positive(_root_mean_square(errors), _root_mean_square(extended)),
        "mae": _positive(_mean_absolute(errors), _mean_absolute(extended)),
    }
    varies = targets.min(axis=0) < targets.max(axis=0)
    squares = (targets - targets.mean(axis=0)) ** 2
    total = squares.mean(axis=0, keepdims=True)
    if varies.all() and (total > 0).all():
        unexplained = _positive(_unexplained(errors, squares), _unexplained(extended, np.concatenate([squares, total])))
        ends["r2"] = unexplained and (1 - unexplained[1], 1 - unexplained[0])
    found = {name: pair for name, pair in ends.items() if pair is not None}
    missing = {name: "the errors of the test examples do not vary" for name, pair in ends.items() if pair is None}
    return found, missing if "r2" in ends else missing | {"r2": "a target does not vary in the test split"}


def _root_mean_square(errors: Array) -> tuple[float, Array]:
    """Return the RMSE, averaged over the columns of `errors` ``[N, T]``, and the influence of each example on this
    value."""
    squares = errors**2
    means = squares.mean(axis=0)
    return float(np.sqrt(means).mean()), ((squares - means) / (2 * np.sqrt(means))).mean(axis=1)


def _mean_absolute(errors: Array) -> tuple[float, Array]:
    each = errors.mean(axis=1)
    return float(each.mean()), each - each.mean()


def _unexplained(errors: Array, squares: Array) -> tuple[float, Array]:
    """Return 1 - R², averaged over the columns, and the influence of each example on this value.

    `squares` ``[N, T]`` contains the squared deviations of the targets from their mean.
    """
    residual, total = (errors**2).mean(axis=0), squares.mean(axis=0)
    fraction = residual / total
    return float(fraction.mean()), ((errors**2 - fraction * squares) / total).mean(axis=1)


def _positive(seen: tuple[float, Array], extended: tuple[float, Array]) -> Interval | None:
    """Return the interval of a positive value, or None if all examples have the same influence on the value.

    Each argument consists of a value and the influence of each example on this value. `seen` is computed from the test
    examples, and `extended` from these examples and one additional example. Student's t interval is computed for the
    logarithm of the value and transformed back.
    """
    ends = []
    for (value, influence), tail, sign in zip((seen, extended), TAILS, (-1, 1), strict=True):
        deviation = float(influence.std(ddof=1)) / math.sqrt(len(influence)) / value
        ends.append(value * math.exp(sign * student(1 - tail, len(influence) - 1) * deviation))
    return (ends[0], ends[1]) if _varies(seen[1], seen[0]) else None


def _varies(values: Array, scale: float | Array) -> bool:
    """Return True if the values differ by more than the rounding error of a number with the magnitude `scale`."""
    return float(np.ptp(values)) > 1e-12 * float(np.max(np.abs(scale)))
