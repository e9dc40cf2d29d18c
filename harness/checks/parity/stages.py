"""Stage-by-stage comparison of the results of two backends and, if available, a float64 reference.

`harness.checks.parity.distance` defines the errors.

Two stages exclude values that are determined by rounding, and report how many values they exclude:

- Adam and RMSProp divide a gradient by its own magnitude, so a step is ``u(g) = g / (|g| + epsilon)``. An element is
  compared only if a change of g by `NOISE` times its rounding error would change u by at most the tolerance.
- Training can amplify rounding errors tenfold within a few steps, for example in a ResNet with a high learning rate.
  The comparison of losses ends at the first step at which both backends differ from the float64 reference by more than
  `HORIZON` times the tolerance.

Rounding also determines the derivative of a ReLU whose input is zero to within rounding error. The derivative is
discontinuous at zero, so frameworks that sum in different orders compute gradients that differ by far more than the
tolerance. If the backends differ only after the backward pass, the effect of rounding is therefore measured. The
float64 reference is recomputed from weights with perturbed last bits
(`harness.checks.parity.evidence.ParityJob.roundings`). If twice the resulting change exceeds the tolerance, the
tolerance is raised to twice the change, but never above `CEILING`. The comparison of losses also ends at the first step
at which the perturbations change the loss by more than half of the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.checks.parity.distance import Array, by_parameter, rms, rowwise
from harness.checks.parity.optimizer import regularized
from harness.checks.parity.report import CHECKPOINTS, Evidence
from harness.checks.parity.tolerances import CEILING, Tolerance, tolerance
from harness.checks.parity.training_stages import dropout_stage, optimizer_stage
from harness.checks.parity.verdict import Stage
from harness.measure.distance import norm, relative

NOISE = 10.0
"""Safety factor for the rounding error of a gradient element. The error is estimated as the difference between the
backends at this element or the root mean square difference over the parameter, whichever is larger."""
HORIZON = 0.01
"""Maximum difference between a loss and the float64 reference, as a fraction of the tolerance. The comparison of the
loss curves ends at the first step at which both backends exceed the maximum difference."""
BACKWARD = ("gradients", "step", "statistics", "late", "curve", "trained")
"""Stages that depend on the backward pass of both backends."""
COARSE = 0.03
"""Maximum tolerance of a complete check in fp32. If the tolerance of a stage is larger, rounding determines the result,
so the stage counts only as a partial check."""
PREDICTED_AGAIN = {
    "logits_again": "second prediction, in `Session.inference`",
    "logits_alone": "first example alone, in `Session.inference`",
}
"""Descriptions of the additional predictions for the test batch."""
MIN_STEPS = 10
"""Minimum number of comparable steps in the loss curve. The minimum does not apply if all steps were replayed."""


def compare(one: Evidence, other: Evidence, reference: Evidence | None) -> list[Stage]:
    """Compare `other` with `one`, and both with `reference`, in each stage that has results."""
    stages = [_inputs(one, other), _weights(one, other)]
    if not stages[-1].passed:
        return stages  # the other stages require that both backends have the same parameters
    comparison = _Comparison(one, other, reference)
    stages += [comparison.logits(), comparison.loss(), comparison.gradients(), comparison.step()]
    if one.report.statistics:
        stages.append(comparison.statistics())
    replayed = optimizer_stage(one, other)
    stages.append(replayed)
    if "masks/loss" in one.arrays:
        stages.append(dropout_stage(one, other))
    if all("late/1/loss" in evidence.arrays for evidence in (one, other)):
        stages.append(comparison.late())
    if one.arrays["curve"].size:
        stages += [comparison.curve(covered=replayed.passed and not replayed.partly), comparison.trained()]
    return stages


def _inputs(one: Evidence, other: Evidence) -> Stage:
    differing = [
        name
        for name, field in (
            ("prepared data", "dataset_digest"),
            ("initial weights", "weights_digest"),
            ("training batches", "batches_digest"),
        )
        if getattr(one.report, field) != getattr(other.report, field)
    ]
    return _exact("inputs", differing, one)


def _weights(one: Evidence, other: Evidence) -> Stage:
    mine, others = one.report.parameters, other.report.parameters
    problems = [f"{name} only in {one.backend}" for name in mine if name not in others]
    problems += [f"{name} only in {other.backend}" for name in others if name not in mine]
    problems += [
        f"{name} has shapes {mine[name]} and {others[name]}"
        for name in mine
        if others.get(name) not in (None, mine[name])
    ]
    problems += [f"{name} changed in {e.backend}" for e in (one, other) for name in e.report.changed_on_the_way]
    stage = _exact("weights", problems, one)
    scalars = sum(int(np.prod(shape)) for shape in mine.values())
    return Stage(**{**_fields(stage), "remark": f"{len(mine)} parameters, {scalars:,} scalars"})


def _fields(stage: Stage) -> dict[str, Any]:
    return {name: getattr(stage, name) for name in stage.__struct_fields__}


def _exact(name: str, problems: list[str], one: Evidence) -> Stage:
    allowed = tolerance(name, one.report.spec.precision, 0)
    return Stage(
        name=name,
        passed=not problems,
        error=None if problems else 0.0,
        where="; ".join(problems[:3]) + (f" and {len(problems) - 3} more" if len(problems) > 3 else ""),
        tolerance=allowed.value,
        source=allowed.source,
    )


Errors = Iterable[tuple[str, float]]
"""Pairs that consist of a location, such as a parameter's name, and its relative error."""


class _Comparison:
    """Comparison of two backends in the stages that follow ``weights``."""

    def __init__(self, one: Evidence, other: Evidence, reference: Evidence | None) -> None:
        self._one, self._other, self._reference = one, other, reference
        self._roundings = reference.roundings() if reference else []
        self._scalars = sum(int(np.prod(shape)) for shape in one.report.parameters.values())

    def logits(self) -> Stage:
        return self._outputs("logits", lambda arrays: arrays["logits"], again=PREDICTED_AGAIN)

    def _outputs(
        self,
        name: str,
        of: Callable[[Mapping[str, Array]], Array],
        remark: str = "",
        again: Mapping[str, str] = MappingProxyType({}),
    ) -> Stage:
        """Compare predictions.

        `again` maps the names of additional predictions to their descriptions. These predictions may cover only some of
        the examples.
        """

        def errors(a: Evidence, b: Evidence) -> Errors:
            yield "", relative(of(a.arrays), of(b.arrays))
            example = norm(of(b.arrays)) / np.sqrt(len(of(b.arrays)))
            for key, place in again.items():
                if key in a.arrays and key in b.arrays:
                    yield place, relative(a.arrays[key], b.arrays[key], example)

        rows = rowwise(of(self._other.arrays), of(self._one.arrays))
        allowed = tolerance(name, self._one.report.spec.precision, self._scalars).value
        off = int((rows > allowed).sum())
        where = f"example {int(rows.argmax())}; {off} of {len(rows)} examples exceed the tolerance" if off else ""
        return self._stage(name, errors, where=where, remark=remark)

    def loss(self) -> Stage:
        return self._stage("loss", lambda a, b: [("", relative(a.arrays["loss"], b.arrays["loss"]))])

    def gradients(self) -> Stage:
        return self._stage("gradients", lambda a, b: by_parameter(a.arrays, b.arrays, "gradients/"))

    def step(self) -> Stage:
        """Compare the parameters after one optimizer step, restricted to elements whose step is well-conditioned."""
        trainable = [name for name in self._one.report.parameters if f"gradients/{name}" in self._one.arrays]
        divides = self._one.report.spec.recipe.optimizer != "sgd"
        clip = self._clipping() if divides else 1.0
        kept = {name: self._kept(name, clip) for name in trainable} if divides else {}

        def errors(a: Evidence, b: Evidence) -> Errors:
            return by_parameter(a.arrays, b.arrays, "step/", names=trainable, kept=kept)

        total = sum(mask.size for mask in kept.values())
        excluded = total - sum(int(mask.sum()) for mask in kept.values())
        remark = ""
        if excluded:
            recipe = self._one.report.spec.recipe
            remark = (
                f"{excluded / total:.2%} of the scalars are excluded, because rounding errors in their gradients "
                f"determine their steps: {recipe.optimizer} divides the gradient by its magnitude"
            )
        return self._stage("step", errors, remark=remark)

    def _kept(self, name: str, clip: float) -> NDArray[np.bool_]:
        """Return a mask that is True for elements whose step is well-conditioned or whose gradient is exactly 0 in both
        backends."""
        one, other = (e.arrays[f"gradients/{name}"].astype(np.float64) for e in (self._one, self._other))
        true = one if self._reference is None else self._reference.arrays[f"gradients/{name}"]
        typical = max(rms(one - true), rms(other - true), rms(one - other))
        noise = NOISE * clip * np.maximum(typical, np.abs(one - other))
        recipe = self._one.report.spec.recipe
        # RMSProp's first moving average is a hundredth of the squared gradient.
        epsilon = 0.0 if recipe.optimizer == "lion" else recipe.epsilon * (10 if recipe.optimizer == "rmsprop" else 1)
        used = clip * true
        if name in self._one.report.decayed:
            used = regularized(recipe, used, self._one.arrays[f"start/{name}"])
        low, high = used - noise, used + noise
        with np.errstate(invalid="ignore", divide="ignore"):
            moved = np.abs(high / (np.abs(high) + epsilon) - low / (np.abs(low) + epsilon))
        allowed = tolerance("step", self._one.report.spec.precision, self._scalars).value
        known: NDArray[np.bool_] = (moved <= allowed) | ((one == 0) & (other == 0))
        return known

    def _clipping(self) -> float:
        """Return the factor by which the recipe's gradient clipping scales the gradients."""
        limit = self._one.report.spec.recipe.clip_norm
        if limit is None:
            return 1.0
        norms = [norm(array) for name, array in self._one.arrays.items() if name.startswith("gradients/")]
        return min(1.0, limit / (norm(np.array(norms)) + 1e-6))

    def statistics(self) -> Stage:
        names = self._one.report.statistics
        return self._stage("statistics", lambda a, b: by_parameter(a.arrays, b.arrays, "step/", names=names))

    def late(self) -> Stage:
        """Compare logits, losses, gradients and running statistics at weights from the end of training."""
        kinds = {"logits": "logits", "loss": "loss", "step loss": "loss"}
        points = sorted({key.split("/")[1] for key in self._other.arrays if key.startswith("late/")})
        least: dict[str, Tolerance] = {}

        def errors(a: Evidence, b: Evidence) -> Errors:
            for point in points:
                found = [
                    (name, kind, relative(a.arrays[key], b.arrays[key]))
                    for name, kind in kinds.items()
                    for key in (f"late/{point}/{name}",)
                ]
                for kind in ("gradients", "statistics"):
                    places = by_parameter(a.arrays, b.arrays, f"late/{point}/{kind}/")
                    found += [(f"{kind} of {name}", kind, error) for name, error in places]
                for name, kind, error in found:
                    place = f"{name}, at point {point} of {len(points)}"
                    least[place] = self._allowed(kind)
                    yield place, error

        return self._stage("late", errors, least)

    def _allowed(self, stage: str) -> Tolerance:
        return tolerance(stage, self._one.report.spec.precision, self._scalars)

    def curve(self, *, covered: bool) -> Stage:
        """Compare the training losses. `covered` is True if all training steps were replayed."""
        count = self._comparable()

        def errors(a: Evidence, b: Evidence) -> Errors:
            pairs = zip(a.arrays["curve"][:count], b.arrays["curve"][:count], strict=True)
            return ((f"step {step}", relative(x, y)) for step, (x, y) in enumerate(pairs, start=1))

        few = count < min(MIN_STEPS, len(self._one.arrays["curve"]))
        stage = self._stage("curve", errors, remark=self._limit(count))
        return (
            msgspec.structs.replace(stage, partly=f"only {count} steps can be compared")
            if few and not covered
            else stage
        )

    def trained(self) -> Stage:
        count, allowed = self._comparable(), tolerance("trained", self._one.report.spec.precision, self._scalars).value
        within = [index for index, step in enumerate(CHECKPOINTS) if step <= max(count, 1)]
        stable = [index for index in within if 2 * self._effect_of_rounding("trained", index) <= allowed]
        last = max(stable, default=0)
        return self._outputs("trained", lambda arrays: arrays["trained"][last], f"after step {CHECKPOINTS[last]}")

    def _limit(self, count: int) -> str:
        steps = len(self._one.arrays["curve"])
        if count == steps:
            return ""
        if self._roundings:
            reason = "perturbing the last bits of the weights changes even the float64 result"
        else:
            reason = "even the backend that is closer to float64 deviates from it"
        return f"only the first {count} of {steps} steps: rounding errors grow in later steps, and {reason}"

    def _comparable(self) -> int:
        """Return the number of steps, at least 1, for which rounding alone changes the loss by no more than allowed."""
        mine = self._one.arrays["curve"]
        if self._reference is None:
            return len(mine)
        allowed = HORIZON * tolerance("curve", self._one.report.spec.precision, self._scalars).value
        true = self._reference.arrays["curve"]
        drifts = [
            [relative(x, y) for x, y in zip(e.arrays["curve"], true, strict=True)] for e in (self._one, self._other)
        ]
        departed = np.minimum(*np.array(drifts)) > allowed
        for perturbed in self._roundings:
            drift = [relative(x, y) for x, y in zip(perturbed.arrays["curve"], true, strict=True)]
            departed |= 2 * np.array(drift) > allowed / HORIZON
        beyond = np.flatnonzero(departed)
        return max(1, int(beyond[0])) if beyond.size else len(mine)

    def _stage(
        self, name: str, errors: Any, least: Mapping[str, Tolerance] | None = None, *, where: str = "", remark: str = ""
    ) -> Stage:
        """Compare the backends. `least` maps locations to tolerances that override the tolerance of the stage."""
        measured = list(errors(self._other, self._one))
        allowed = {place: (least or {}).get(place) or self._allowed(name) for place, _ in measured}
        bars = self._bars(errors, allowed) if name in BACKWARD else {}
        place, error = max(
            measured, key=lambda one: one[1] / bars.get(one[0], allowed[one[0]].value or 1), default=("", 0.0)
        )
        worst = allowed.get(place) or self._allowed(name)
        bar = bars.get(place, worst.value)
        widest = max((bars[each] for each in bars if bars[each] > allowed[each].value), default=0.0)
        if widest:
            text = (
                "rounding determines this result: perturbing the last bits of the weights changes the float64 result "
                "by half the tolerance"
            )
            remark = "; ".join(filter(None, (remark, text)))
        coarse = widest > max(COARSE, worst.value)
        references = {}
        if self._reference is not None:
            for evidence in (self._one, self._other):
                references[evidence.backend] = _finite(_largest(errors(evidence, self._reference)))
        return Stage(
            name=name,
            passed=bool(error <= bar),
            error=_finite(error),
            where=where or place,
            tolerance=bar,
            source=worst.source
            if bar == worst.value
            else "twice the effect of perturbing the last bits of the weights",
            from_reference=references,
            remark=remark,
            partly=f"rounding hides differences of up to {widest:.0%}" if coarse else "",
        )

    def _bars(self, errors: Any, allowed: Mapping[str, Tolerance]) -> dict[str, float]:
        """Return a tolerance for each location, based on the effect of rounding on the reference.

        The tolerances are never smaller than `allowed`.
        """
        bars: dict[str, float] = {}
        for perturbed in self._roundings:
            for place, error in errors(perturbed, self._reference):
                least = allowed[place].value
                bars[place] = min(max(bars.get(place, least), 2 * error), max(CEILING, least))
        return bars

    def _effect_of_rounding(self, name: str, index: int) -> float:
        """Return the largest change in the reference's results caused by perturbing the last bits of the weights.
        Return 0 if no perturbed results were computed."""
        if self._reference is None:
            return 0.0
        true = self._reference.arrays[name][index]
        return max((relative(perturbed.arrays[name][index], true) for perturbed in self._roundings), default=0.0)


def _largest(errors: Errors) -> float:
    return max((error for _, error in errors), default=0.0)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
