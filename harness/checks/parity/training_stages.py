"""Stages that check training steps, including the optimizer and dropout.

The ``optimizer`` stage compares every replayed step of each backend with the optimizer's definition in
`harness.Recipe`. The ``dropout`` stage compares the distributions of losses and gradients over dropout masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.checks.parity.masks import FALSE_ALARMS, MASKS, compare_masks
from harness.checks.parity.report import STEPS, Evidence
from harness.checks.parity.tolerances import tolerance
from harness.checks.parity.verdict import Stage
from harness.measure.distance import relative

Array = NDArray[Any]

EXCLUDED = 0.1
"""Maximum fraction of elements that may be excluded in the ``optimizer`` stage.

If a larger fraction is excluded, the result is only a partial check.
"""
_RESOLVED = 0.1
"""Maximum relative rounding error of a parameter's change in a step. Changes with larger rounding errors do not count
as compared."""
_SKIPPED = 2.0
"""Maximum difference between the numbers of steps that two backends skip because of overflow in fp16.

Rounding can cause a difference of one step if a gradient is close to the overflow threshold.
"""
_GAIN = 2.0
"""Maximum ratio of the factors by which two backends multiply the weights to make gradients overflow in fp16.

The factors are powers of 2. If both backends halve the loss scale, rounding can cause a difference of one power of 2. A
backend that reduces the scale by a different factor needs more or fewer reductions for the same weights.
"""
SEGMENTS = {
    "curve": "the loss curve",
    "long": "the long training",
    "clip": "the training run with a different clipping norm",
    "scaled": "the training run with gradients that overflow",
    "scaled clip": "the training run with gradients that overflow and a different clipping norm",
}
RUNNING = "running statistics after step"
OTHER_GAIN = f"different weights at the start of {SEGMENTS['scaled']}"
MORE_SKIPPED = f"different numbers of steps skipped in {SEGMENTS['scaled']}"


class Replayed(NamedTuple):
    """Comparison of an actual result of a backend with the predicted result."""

    place: str
    error: float
    allowed: float
    """Tolerance for the error."""


def optimizer_stage(one: Evidence, other: Evidence) -> Stage:
    """Compare the steps of both backends with the definition of the recipe's optimizer."""
    precision = one.report.spec.precision
    allowed = tolerance("optimizer", precision, 0)
    found = {evidence.backend: list(replayed(evidence)) for evidence in (one, other)}
    skipped = {each.backend: int(each.arrays["replay/scaled/skipped"][0]) for each in (one, other) if _scales(each)}
    if len(skipped) == 2:
        more, fewer = sorted(skipped, key=skipped.__getitem__, reverse=True)
        place = f"{MORE_SKIPPED} ({skipped[more]} and {skipped[fewer]})"
        found[more].append(Replayed(place, float(skipped[more] - skipped[fewer]), _SKIPPED))
        gains = {each.backend: float(each.arrays["replay/scaled/gain"][0]) for each in (one, other)}
        later, sooner = sorted(gains, key=gains.__getitem__, reverse=True)
        place = f"{OTHER_GAIN} ({gains[sooner]:g} and {gains[later]:g})"
        found[sooner].append(Replayed(place, gains[later] / gains[sooner], _GAIN))
    for backend, place in _diverged(one, other):
        found[backend].append(Replayed(place, float("inf"), allowed.value))
    worst = {
        backend: max(results, key=lambda each: each.error / each.allowed, default=Replayed("", 0.0, allowed.value))
        for backend, results in found.items()
    }
    backend, (place, error, bar) = max(worst.items(), key=lambda item: item[1].error / item[1].allowed)
    remarks = dict.fromkeys(remark for evidence in (one, other) for remark in _remarks(evidence))
    reasons = dict.fromkeys(reason for evidence in (one, other) for reason in _reasons(evidence))
    return Stage(
        name="optimizer",
        passed=error <= bar,
        error=error if np.isfinite(error) else None,
        where=f"{place}, {backend}" if place else "",
        tolerance=bar,
        source=allowed.source,
        from_reference={name: each.error if np.isfinite(each.error) else None for name, each in worst.items()},
        remark="; ".join(remarks),
        partly="; ".join(reasons),
    )


def _diverged(one: Evidence, other: Evidence) -> Iterator[tuple[str, str]]:
    """Yield the backend and the name of each training run that diverged with this backend but not with the other
    backend."""
    done = {e.backend: {segment: "logits" in arrays for segment, arrays in segments(e)} for e in (one, other)}
    for backend, peer in ((one.backend, other.backend), (other.backend, one.backend)):
        for segment, completed in done[backend].items():
            if not completed and done[peer].get(segment):
                yield backend, f"{SEGMENTS[segment]}, which only {peer} completed"


def _scales(evidence: Evidence) -> bool:
    return "replay/scaled/skipped" in evidence.arrays


def segments(evidence: Evidence) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield the name and the arrays of each replayed training run with at least one step."""
    for segment in SEGMENTS:
        prefix = f"replay/{segment}/"
        if f"{prefix}planned" in evidence.arrays:
            yield segment, {k.removeprefix(prefix): evidence.arrays[k] for k in evidence.arrays if k.startswith(prefix)}


def replayed(evidence: Evidence) -> Iterator[Replayed]:
    """Yield the comparisons of one backend: each parameter in each step, each loss, the running statistics, and the
    final predictions."""
    spec = evidence.report.spec
    step_allowed, loss_allowed, logits_allowed, statistics_allowed = (
        tolerance(name, spec.precision, 0).value for name in ("optimizer", "loss", "logits", "statistics")
    )
    names = [name for name in evidence.report.parameters if name not in evidence.report.statistics]
    for segment, arrays in segments(evidence):
        for (step, index), error in np.ndenumerate(relative_errors(arrays, step_allowed)):
            place = f"`{names[index]}`, step {step + 1} of {SEGMENTS[segment]}"
            yield Replayed(place, float(error), step_allowed)
        for index, (error, size) in enumerate(arrays.get("average", np.zeros((2, 0))).T):
            # The average accumulates one rounding error per step, in proportion to the weights.
            rounding = arrays["rounding"][:, index].max(initial=0.0)
            relative_error = float(error / max(size + rounding / step_allowed, np.finfo(float).tiny))
            yield Replayed(
                f"moving average of `{names[index]}` after {SEGMENTS[segment]}", relative_error, step_allowed
            )
        for step, (actual, expected) in enumerate(arrays["loss"], start=1):
            error = relative(np.array([actual]), np.array([expected]))
            yield Replayed(f"loss, step {step} of {SEGMENTS[segment]}", error, loss_allowed)
        for (row, index), error in np.ndenumerate(arrays["statistics"]):
            place = f"`{evidence.report.statistics[index]}`, {RUNNING} {arrays['checked'][row]} of {SEGMENTS[segment]}"
            yield Replayed(place, float(error), statistics_allowed)
        if "logits" in arrays:
            yield Replayed(f"logits after {SEGMENTS[segment]}", relative(*arrays["logits"]), logits_allowed)


def relative_errors(arrays: dict[str, Array], allowed: float) -> Array:
    """Return the error of each step and parameter, ``[S, P]``, relative to the predicted change.

    The denominator is increased so that rounding errors in the weights alone cause an error of at most `allowed`.
    """
    if not len(arrays["loss"]):
        return np.zeros((0, len(arrays["elements"])))
    size = arrays["size"] + arrays["rounding"] / allowed
    return np.divide(arrays["error"], size, out=np.where(arrays["error"] > 0, np.inf, 0.0), where=size > 0)


def _remarks(evidence: Evidence) -> Iterator[str]:
    names = [name for name in evidence.report.parameters if name not in evidence.report.statistics]
    found = dict(segments(evidence))
    if not found:
        return
    steps = sum(len(arrays["loss"]) for arrays in found.values())
    yield (f"{evidence.backend}: {steps} steps, {_excluded(evidence):.2%} of the elements excluded because of rounding")
    if evidence.report.spec.precision == "fp16":
        skipped = sum(int(arrays["skipped"][0]) for arrays in found.values())
        yield f"{evidence.backend}: {skipped} more steps were skipped because their gradients overflowed"
    kept = sum(arrays["kept"].sum(axis=0) for arrays in found.values() if len(arrays["loss"]))
    hidden = [name for name, count in zip(names, np.atleast_1d(kept), strict=False) if not count]
    if hidden:
        yield f"the gradient of {', '.join(hidden)} is zero up to rounding"


def _excluded(evidence: Evidence) -> float:
    """Return the fraction of elements, across all steps, whose change is determined by rounding."""
    total = compared = 0.0
    for _, arrays in segments(evidence):
        if len(arrays["loss"]):
            resolved = (arrays["rounding"] <= _RESOLVED * arrays["size"]) | (arrays["size"] == 0)
            total += float(arrays["elements"].sum() * len(arrays["loss"]))
            compared += float((arrays["kept"] * resolved).sum())
    return 1 - compared / total if total else 0.0


def _reasons(evidence: Evidence) -> Iterator[str]:
    """Yield the reasons why the stage is only a partial check."""
    found = dict(segments(evidence))
    if not found:
        yield "no training steps were checked"
        return
    if int(found["curve"]["planned"][0]) < STEPS:
        yield f"only {int(found['curve']['planned'][0])} training steps were checked, instead of {STEPS}"
    for segment, arrays in found.items():
        planned, done = int(arrays["planned"][0]), len(arrays["loss"]) + int(arrays["skipped"][0])
        if done < 0.9 * planned:
            yield (
                f"{evidence.backend} computed finite weights and gradients in only {done} of {planned} steps of "
                f"{SEGMENTS[segment]}"
            )
    if _excluded(evidence) > EXCLUDED:
        yield f"rounding determines {_excluded(evidence):.0%} of the weight changes in {evidence.backend}"


def dropout_stage(one: Evidence, other: Evidence) -> Stage:
    """Compare the distributions of losses and gradients over dropout masks."""
    masks = [
        {key.removeprefix("masks/"): e.arrays[key] for key in e.arrays if key.startswith("masks/")}
        for e in (one, other)
    ]
    found = compare_masks(*masks)
    return Stage(
        name="dropout",
        passed=found.errors <= found.critical,
        error=found.errors if np.isfinite(found.errors) else None,
        where=found.where,
        tolerance=found.critical,
        source=(
            f"number of standard errors that correct backends exceed in any of {found.tests} Welch tests over {MASKS} "
            f"masks with a probability of at most {FALSE_ALARMS:g}"
        ),
        remark=f"{found.tests} statistics of {MASKS} masks; errors are given in standard errors",
    )
