"""The comparison, stage by stage, in pure numpy: what two backends computed, and a float64 reference if there is one.

An error is norm-wise relative: ``|a - b| / max(|b|, floor)`` in the 2-norm over one parameter (all logits of the batch,
one step of the curve). The floor of a parameter with n of the N scalars is ``FLOOR |all| sqrt(n / N)``: a hundredth of
what it would have if all scalars were alike. It is there for parameters whose true gradient is zero (the bias of an
attention key, which the softmax cancels), where a relative error would divide rounding by rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.parity.evidence import Report
from harness.parity.tolerances import tolerance
from harness.parity.verdict import Stage
from harness.types import Recipe

Array = NDArray[Any]

FLOOR = 1e-2
NOISE = 100.0
"""An element of the gradient counts as known where it is this many times the root mean square of its rounding."""


@dataclass(frozen=True)
class Evidence:
    """One backend's report and arrays (`harness.parity.evidence.gather`)."""

    report: Report
    arrays: Mapping[str, Array]

    @property
    def backend(self) -> str:
        return self.report.spec.backend


def compare(one: Evidence, other: Evidence, reference: Evidence | None) -> list[Stage]:
    """Every stage that the evidence allows, in order. `other` is measured against `one`, both against `reference`."""
    stages = [_inputs(one, other), _weights(one, other)]
    if not stages[-1].passed:
        return stages  # what follows is compared parameter by parameter
    judge = _Judge(one, other, reference)
    stages += [judge.logits("logits"), judge.loss(), judge.gradients(), judge.step()]
    if one.report.statistics:
        stages.append(judge.statistics())
    if one.arrays["curve"].size:
        stages += [judge.curve(), judge.logits("trained")]
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
        self._scalars = sum(int(np.prod(shape)) for shape in one.report.parameters.values())

    def logits(self, name: str) -> Stage:
        def errors(a: Evidence, b: Evidence) -> Errors:
            yield "", relative(a.arrays[name], b.arrays[name])

        rows = rowwise(self._other.arrays[name], self._one.arrays[name])
        allowed = tolerance(name, self._one.report.spec.precision, self._scalars).value
        off = int((rows > allowed).sum())
        where = f"example {int(rows.argmax())}; {off} of {len(rows)} examples over the tolerance" if off else ""
        return self._stage(name, errors, where=where)

    def loss(self) -> Stage:
        return self._stage("loss", lambda a, b: [("", relative(a.arrays["loss"], b.arrays["loss"]))])

    def gradients(self) -> Stage:
        return self._stage("gradients", lambda a, b: by_parameter(a.arrays, b.arrays, "gradients/"))

    def step(self) -> Stage:
        """Parameters after one optimizer step, element by element where the step is well conditioned."""
        trainable = [name for name in self._one.report.parameters if f"gradients/{name}" in self._one.arrays]
        kept = {name: self._kept(name) for name in trainable} if _divides(self._one.report.spec.recipe) else {}

        def errors(a: Evidence, b: Evidence) -> Errors:
            return by_parameter(a.arrays, b.arrays, "step/", names=trainable, kept=kept)

        total = sum(mask.size for mask in kept.values())
        left_out = total - sum(int(mask.sum()) for mask in kept.values())
        remark = ""
        if left_out:
            remark = (
                f"{left_out / total:.2%} of the scalars left out: their gradient is within {NOISE:g} times its "
                f"rounding error, and {self._one.report.spec.recipe.optimizer} divides it by its own size"
            )
        return self._stage("step", errors, remark=remark)

    def _kept(self, name: str) -> NDArray[np.bool_]:
        """Elements whose gradient stands out from rounding, or is exactly zero in both."""
        one, other = (e.arrays[f"gradients/{name}"].astype(np.float64) for e in (self._one, self._other))
        true = one if self._reference is None else self._reference.arrays[f"gradients/{name}"]
        noise = max(_rms(one - true), _rms(other - true), _rms(one - other))
        known: NDArray[np.bool_] = (np.abs(true) > NOISE * noise) | ((one == 0) & (other == 0))
        return known

    def statistics(self) -> Stage:
        names = self._one.report.statistics
        return self._stage("statistics", lambda a, b: by_parameter(a.arrays, b.arrays, "step/", names=names))

    def curve(self) -> Stage:
        def errors(a: Evidence, b: Evidence) -> Errors:
            pairs = zip(a.arrays["curve"], b.arrays["curve"], strict=True)
            return ((f"step {step}", relative(x, y)) for step, (x, y) in enumerate(pairs, start=1))

        return self._stage("curve", errors)

    def _stage(self, name: str, errors: Any, *, where: str = "", remark: str = "") -> Stage:
        allowed = tolerance(name, self._one.report.spec.precision, self._scalars)
        place, error = _largest(errors(self._other, self._one))
        references = {}
        if self._reference is not None:
            for evidence in (self._one, self._other):
                references[evidence.backend] = _finite(_largest(errors(evidence, self._reference))[1])
        return Stage(
            name=name,
            passed=bool(error <= allowed.value),
            error=_finite(error),
            where=where or place,
            tolerance=allowed.value,
            source=allowed.source,
            from_reference=references,
            remark=remark,
        )


def _divides(recipe: Recipe) -> bool:
    return recipe.optimizer != "sgd"


def _largest(errors: Errors) -> tuple[str, float]:
    return max(errors, key=lambda pair: pair[1], default=("", 0.0))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _rms(array: Array) -> float:
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0


def _norm(array: Array) -> float:
    return float(np.linalg.norm(np.asarray(array, np.float64).ravel()))


def relative(a: Array, b: Array, floor: float = 0.0) -> float:
    """``|a - b| / max(|b|, floor)`` in the 2-norm; 0 where both are zero, infinite where one is not finite or the
    shapes differ."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        return float("inf")
    difference, size = _norm(a - b), max(_norm(b), floor)
    if difference == 0:
        return 0.0
    error = difference / size if size else float("inf")
    return error if np.isfinite(error) else float("inf")


def rowwise(a: Array, b: Array) -> Array:
    """Each example's difference against the root mean square size of an example ``[B]``; infinite where not finite."""
    if a.shape != b.shape:
        return np.full(len(b), np.inf)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    differences = np.linalg.norm((a - b).reshape(len(b), -1), axis=1)
    size = _norm(b) / np.sqrt(len(b))
    rows = np.divide(differences, size, out=np.where(differences > 0, np.inf, 0.0), where=size > 0)
    return np.where(np.isfinite(rows), rows, np.inf)


def by_parameter(
    a: Mapping[str, Array],
    b: Mapping[str, Array],
    prefix: str,
    *,
    names: Iterable[str] | None = None,
    kept: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Iterator[tuple[str, float]]:
    """Each parameter's relative error over the elements that are `kept`, with the floor that the module states."""
    names = list(names) if names is not None else [key.removeprefix(prefix) for key in b if key.startswith(prefix)]
    kept = kept or {}

    def chosen(source: Mapping[str, Array], name: str) -> Array:
        array = np.asarray(source[prefix + name], np.float64)
        return array[kept[name]] if name in kept else array

    squares = {name: (float(np.sum(np.square(array))), array.size) for name in names for array in (chosen(b, name),)}
    total, scalars = (sum(column) for column in zip(*squares.values(), strict=True)) if squares else (0.0, 1)
    for name in names:
        floor = FLOOR * np.sqrt(total * squares[name][1] / scalars) if scalars else 0.0
        yield name, relative(chosen(a, name), chosen(b, name), floor if np.isfinite(floor) else 0.0)
