"""The comparison, stage by stage, in pure numpy: what two backends computed, and a float64 reference if there is one.

`harness.checks.parity.distance` says what an error is.

Two stages look only where rounding does not decide the outcome, and say how much they left out. Adam and RMSProp
divide a gradient by its own size, so that a step is ``u(g) = g / (|g| + epsilon)``: an element counts where a change of
g by `NOISE` times its rounding changes u by no more than the tolerance. A training may amplify rounding, as that of a
ResNet at a high learning rate does, tenfold in a few steps: losses count as long as the backend that stays nearer to
float64 is off from it by no more than the share `HORIZON` of the tolerance.

Rounding also decides where the input of a ReLU is zero but for it: the derivative jumps there, so that frameworks that
add up in another order get gradients that differ by far more than a tolerance. Where only what follows the backward
pass differs, the float64 reference is therefore computed again, from weights whose last bits are drawn anew
(`harness.checks.parity.evidence.ParityJob.roundings`): how far its own results move is what rounding can do. Twice
that, but no more than `CEILING`, is then the tolerance where it is larger, and a training counts up to where it moves
them by less than the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.checks.parity.distance import Array, by_parameter, norm, relative, rms, rowwise
from harness.checks.parity.report import CHECKPOINTS, ParityReport
from harness.checks.parity.tolerances import CEILING, tolerance
from harness.checks.parity.verdict import Stage

NOISE = 10.0
"""How many times the rounding of a gradient's element is taken: its own difference between the backends, or the root
mean square over its parameter."""
HORIZON = 0.01
BACKWARD = ("gradients", "step", "statistics", "curve", "trained")
"""Stages that follow the backward pass."""


@dataclass(frozen=True)
class Evidence:
    """One backend's report and arrays (`harness.checks.parity.evidence.gather`)."""

    report: ParityReport
    arrays: Mapping[str, Array]

    @property
    def backend(self) -> str:
        return self.report.spec.backend

    def roundings(self) -> list[Evidence]:
        """The same computed from weights with other last bits."""
        parts: dict[str, dict[str, Array]] = {}
        for key in self.arrays:
            if key.startswith("rounding/"):
                _, number, name = key.split("/", 2)
                parts.setdefault(number, {})[name] = self.arrays[key]
        return [Evidence(self.report, arrays) for arrays in parts.values()]


def compare(one: Evidence, other: Evidence, reference: Evidence | None) -> list[Stage]:
    """Every stage that the evidence allows, in order. `other` is measured against `one`, both against `reference`."""
    stages = [_inputs(one, other), _weights(one, other)]
    if not stages[-1].passed:
        return stages  # what follows is compared parameter by parameter
    judge = _Judge(one, other, reference)
    stages += [judge.logits(), judge.loss(), judge.gradients(), judge.step()]
    if one.report.statistics:
        stages.append(judge.statistics())
    if one.arrays["curve"].size:
        stages += [judge.curve(), judge.trained()]
    return stages


def _inputs(one: Evidence, other: Evidence) -> Stage:
    differing = [
        what
        for what, field in (("prepared data", "dataset_digest"), ("initial weights", "weights_digest"))
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
"""Place -> relative error there."""


class _Judge:
    def __init__(self, one: Evidence, other: Evidence, reference: Evidence | None) -> None:
        self._one, self._other, self._reference = one, other, reference
        self._roundings = reference.roundings() if reference else []
        self._scalars = sum(int(np.prod(shape)) for shape in one.report.parameters.values())

    def logits(self) -> Stage:
        return self._outputs("logits", lambda arrays: arrays["logits"])

    def _outputs(self, name: str, of: Callable[[Mapping[str, Array]], Array], remark: str = "") -> Stage:
        def errors(a: Evidence, b: Evidence) -> Errors:
            yield "", relative(of(a.arrays), of(b.arrays))

        rows = rowwise(of(self._other.arrays), of(self._one.arrays))
        allowed = tolerance(name, self._one.report.spec.precision, self._scalars).value
        off = int((rows > allowed).sum())
        where = f"example {int(rows.argmax())}; {off} of {len(rows)} examples over the tolerance" if off else ""
        return self._stage(name, errors, where=where, remark=remark)

    def loss(self) -> Stage:
        return self._stage("loss", lambda a, b: [("", relative(a.arrays["loss"], b.arrays["loss"]))])

    def gradients(self) -> Stage:
        return self._stage("gradients", lambda a, b: by_parameter(a.arrays, b.arrays, "gradients/"))

    def step(self) -> Stage:
        """Parameters after one optimizer step, element by element where the step is well conditioned."""
        trainable = [name for name in self._one.report.parameters if f"gradients/{name}" in self._one.arrays]
        divides = self._one.report.spec.recipe.optimizer != "sgd"
        clip = self._clipping() if divides else 1.0
        kept = {name: self._kept(name, clip) for name in trainable} if divides else {}

        def errors(a: Evidence, b: Evidence) -> Errors:
            return by_parameter(a.arrays, b.arrays, "step/", names=trainable, kept=kept)

        total = sum(mask.size for mask in kept.values())
        left_out = total - sum(int(mask.sum()) for mask in kept.values())
        remark = ""
        if left_out:
            recipe = self._one.report.spec.recipe
            remark = (
                f"{left_out / total:.2%} of the scalars left out: the rounding of their gradient decides their step, "
                f"because {recipe.optimizer} divides it by its own size"
            )
        return self._stage("step", errors, remark=remark)

    def _kept(self, name: str, clip: float) -> NDArray[np.bool_]:
        """Elements whose step is well conditioned, or whose gradient is exactly zero in both."""
        one, other = (e.arrays[f"gradients/{name}"].astype(np.float64) for e in (self._one, self._other))
        true = one if self._reference is None else self._reference.arrays[f"gradients/{name}"]
        typical = max(rms(one - true), rms(other - true), rms(one - other))
        noise = NOISE * clip * np.maximum(typical, np.abs(one - other))
        recipe = self._one.report.spec.recipe
        # RMSProp's first mean square is a hundredth of the gradient's.
        epsilon = recipe.epsilon * (10 if recipe.optimizer == "rmsprop" else 1)
        used = clip * true
        if recipe.optimizer != "adamw" and name in self._one.report.decayed:
            used = used + recipe.weight_decay * self._one.arrays[f"start/{name}"]
        low, high = used - noise, used + noise
        with np.errstate(invalid="ignore", divide="ignore"):
            moved = np.abs(high / (np.abs(high) + epsilon) - low / (np.abs(low) + epsilon))
        allowed = tolerance("step", self._one.report.spec.precision, self._scalars).value
        known: NDArray[np.bool_] = (moved <= allowed) | ((one == 0) & (other == 0))
        return known

    def _clipping(self) -> float:
        """What the recipe's clipping multiplies gradients by."""
        limit = self._one.report.spec.recipe.clip_norm
        if limit is None:
            return 1.0
        norms = [norm(array) for name, array in self._one.arrays.items() if name.startswith("gradients/")]
        return min(1.0, limit / (norm(np.array(norms)) + 1e-6))

    def statistics(self) -> Stage:
        names = self._one.report.statistics
        return self._stage("statistics", lambda a, b: by_parameter(a.arrays, b.arrays, "step/", names=names))

    def curve(self) -> Stage:
        count = self._comparable()

        def errors(a: Evidence, b: Evidence) -> Errors:
            pairs = zip(a.arrays["curve"][:count], b.arrays["curve"][:count], strict=True)
            return ((f"step {step}", relative(x, y)) for step, (x, y) in enumerate(pairs, start=1))

        return self._stage("curve", errors, remark=self._limit(count))

    def trained(self) -> Stage:
        count, allowed = self._comparable(), tolerance("trained", self._one.report.spec.precision, self._scalars).value
        within = [index for index, step in enumerate(CHECKPOINTS) if step <= max(count, 1)]
        calm = [index for index in within if 2 * self._moved_by_rounding("trained", index) <= allowed]
        last = max(calm, default=0)
        return self._outputs("trained", lambda arrays: arrays["trained"][last], f"after step {CHECKPOINTS[last]}")

    def _limit(self, count: int) -> str:
        steps = len(self._one.arrays["curve"])
        if count == steps:
            return ""
        if self._roundings:
            why = "float64 itself goes elsewhere from weights with other last bits"
        else:
            why = "even the backend nearer to float64 leaves it"
        return f"the first {count} of {steps} steps: after them this training amplifies rounding, and {why}"

    def _comparable(self) -> int:
        """Steps, from the first on, in which rounding alone does not move the loss; at least one."""
        mine = self._one.arrays["curve"]
        if self._reference is None:
            return len(mine)
        allowed = HORIZON * tolerance("curve", self._one.report.spec.precision, self._scalars).value
        true = self._reference.arrays["curve"]
        drifts = [
            [relative(x, y) for x, y in zip(e.arrays["curve"], true, strict=True)] for e in (self._one, self._other)
        ]
        left = np.minimum(*np.array(drifts)) > allowed
        for moved in self._roundings:
            drift = [relative(x, y) for x, y in zip(moved.arrays["curve"], true, strict=True)]
            left |= 2 * np.array(drift) > allowed / HORIZON
        beyond = np.flatnonzero(left)
        return max(1, int(beyond[0])) if beyond.size else len(mine)

    def _stage(self, name: str, errors: Any, *, where: str = "", remark: str = "") -> Stage:
        allowed = tolerance(name, self._one.report.spec.precision, self._scalars)
        bars = self._bars(errors, allowed.value) if name in BACKWARD else {}
        found = [(place, error, bars.get(place, allowed.value)) for place, error in errors(self._other, self._one)]
        place, error, bar = max(found, key=lambda one: one[1] / one[2], default=("", 0.0, allowed.value))
        if bar > allowed.value:
            told = (
                "rounding decides here: weights with other last bits move the float64 result by half of what is allowed"
            )
            remark = "; ".join(filter(None, (remark, told)))
        references = {}
        if self._reference is not None:
            for evidence in (self._one, self._other):
                references[evidence.backend] = _finite(_largest(errors(evidence, self._reference))[1])
        return Stage(
            name=name,
            passed=bool(error <= bar),
            error=_finite(error),
            where=where or place,
            tolerance=bar,
            source=allowed.source if bar == allowed.value else "twice what other last bits of the weights change",
            from_reference=references,
            remark=remark,
        )

    def _bars(self, errors: Any, least: float) -> dict[str, float]:
        """Place -> tolerance, where rounding moves the reference by more than `least` allows."""
        bars: dict[str, float] = {}
        for moved in self._roundings:
            for place, error in errors(moved, self._reference):
                bars[place] = min(max(bars.get(place, least), 2 * error), max(CEILING, least))
        return bars

    def _moved_by_rounding(self, name: str, index: int) -> float:
        """How far the reference moves at most with the last bits of the weights; 0 where that was not computed."""
        if self._reference is None:
            return 0.0
        true = self._reference.arrays[name][index]
        return max((relative(moved.arrays[name][index], true) for moved in self._roundings), default=0.0)


def _largest(errors: Errors) -> tuple[str, float]:
    return max(errors, key=lambda pair: pair[1], default=("", 0.0))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
