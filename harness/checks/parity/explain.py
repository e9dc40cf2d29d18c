"""Explanation of the first failed stage, with possible causes."""

from __future__ import annotations

import numpy as np

from harness.checks.parity.distance import Array, rowwise
from harness.checks.parity.report import Evidence
from harness.checks.parity.stages import PREDICTED_AGAIN
from harness.checks.parity.training_stages import MORE_SKIPPED, OTHER_GAIN, RUNNING, SEGMENTS, relative_errors, segments
from harness.checks.parity.verdict import Stage
from harness.measure.distance import relative

_LOW_PRECISION = (2e-5, 2e-2)
"""Range of errors in float32 logits when matrix products are computed in TF32 or bfloat16 (see tests/checks/parity)."""


def explain(stages: list[Stage], one: Evidence, other: Evidence) -> str:
    """Return an explanation of the first failed stage, or an empty string if every stage passed."""
    failed = next((stage for stage in stages if not stage.passed), None)
    if failed is None:
        return ""
    words = {
        "inputs": _inputs,
        "weights": _weights,
        "logits": _logits,
        "loss": _loss,
        "gradients": _gradients,
        "step": _step,
        "statistics": _statistics,
        "optimizer": _optimizer,
        "dropout": _dropout,
        "late": _late,
        "curve": _curve,
        "trained": _trained,
    }
    return f"{words[failed.name](failed, one, other)}{_culprit(failed, one, other)}"


def _differ(stage: Stage) -> str:
    if stage.error is None:
        return "cannot be compared (their shapes differ, or they are not finite)"
    return f"differ by {stage.error:.1e}"


def _culprit(stage: Stage, one: Evidence, other: Evidence) -> str:
    """Return a remark if the error of one backend relative to float64 is more than ten times that of the other.
    Otherwise, return an empty string."""
    errors = [stage.from_reference.get(e.backend, 0.0) for e in (one, other)]
    known = [float("inf") if error is None else error for error in errors]
    if not stage.from_reference or max(known) <= 10 * min(known):
        return ""
    worse, better = (one, other) if known[0] > known[1] else (other, one)
    return (
        f". The error relative to float64 is {max(known):.1e} for {worse.backend} and {min(known):.1e} for "
        f"{better.backend}: check {worse.backend}"
    )


def _inputs(stage: Stage, one: Evidence, other: Evidence) -> str:
    return (
        f"{one.backend} and {other.backend} received different {stage.where}: check that the dataset, its preparation "
        "and the model's list of parameters depend only on the options and the seed"
    )


def _weights(stage: Stage, one: Evidence, other: Evidence) -> str:
    return f"the weights of the two backends differ: {stage.where}. Check the bindings of the network"


def _logits(stage: Stage, one: Evidence, other: Evidence) -> str:
    for evidence in (one, other):
        again = relative(evidence.arrays["logits_again"], evidence.arrays["logits"])
        if again > stage.tolerance:
            return (
                f"two predictions of the same batch by {evidence.backend} differ by {again:.1e}. Either "
                "evaluation mode is not deterministic, for example because dropout is active, or "
                "`Session.inference`, which computes the second prediction, changes the results"
            )
    if stage.where == PREDICTED_AGAIN["logits_alone"]:
        return (
            f"the logits of the first example {_differ(stage)} if it is predicted alone, while the logits of the whole "
            "batch agree: check how the network handles a batch of one example"
        )
    rows = rowwise(other.arrays["logits"], one.arrays["logits"])
    off = np.flatnonzero(rows > stage.tolerance)
    text = f"the logits {_differ(stage)} in evaluation mode, with the same weights and inputs"
    if 0 < len(off) <= len(rows) / 2 and np.isfinite(rows).all():
        agree = len(rows) - len(off)
        if _exchanged(one.arrays["logits"][off], other.arrays["logits"][off]):
            return f"{text}: examples {_list(off)} are swapped in {other.backend}; the other {agree} agree"
        return (
            f"{text}, but only for {len(off)} of {len(rows)} examples ({_list(off)}): check whether these examples "
            "differ from the rest, for example in their padding or attention mask, or were swapped"
        )
    text += (
        ": the forward pass differs (for example, an epsilon, the padding, an activation, the attention "
        "mask, or a transposed weight)"
    )
    if stage.error is not None and _LOW_PRECISION[0] <= stage.error <= _LOW_PRECISION[1]:
        text += (
            f". Arithmetic in TF32 or bfloat16 also causes errors of this size: check that {other.backend} and "
            f"{one.backend} compute in {one.report.spec.precision}"
        )
    return text


def _exchanged(mine: Array, others: Array) -> bool:
    """Return True if both arrays contain the same rows in a different order."""
    distances = np.linalg.norm(mine[:, None].astype(np.float64) - others[None], axis=-1)
    order = distances.argmin(axis=1)
    size = np.linalg.norm(mine) / np.sqrt(len(mine))
    return len(set(order.tolist())) == len(mine) and bool(distances.min(axis=1).max() <= 1e-3 * size)


def _list(numbers: Array) -> str:
    return ", ".join(map(str, numbers[:5])) + (" ..." if len(numbers) > 5 else "")


def _loss(stage: Stage, one: Evidence, other: Evidence) -> str:
    return (
        f"the training losses {_differ(stage)}, while the logits in evaluation mode agree. Check for differences "
        "in training mode (batch statistics, or dropout that is active at a rate of 0), in the loss "
        "(label smoothing), and in the batch (targets assigned to the wrong examples)"
    )


def _gradients(stage: Stage, one: Evidence, other: Evidence) -> str:
    return (
        f"the gradients of `{stage.where}` {_differ(stage)}, while the logits and the loss agree: the backward "
        "pass differs"
    )


def _step(stage: Stage, one: Evidence, other: Evidence) -> str:
    text = (
        f"the values of `{stage.where}` {_differ(stage)} after one step, while the gradients agree: "
        f"{one.report.spec.recipe.optimizer} is implemented differently (bias correction, epsilon, weight decay, "
        "clipping)"
    )
    starts = [e.arrays[f"start/{stage.where}"] for e in (one, other)]
    mine, others = (
        np.linalg.norm(e.arrays[f"step/{stage.where}"] - start) for e, start in zip((one, other), starts, strict=True)
    )
    return (
        f"{text}; the step of {other.backend} is {others / mine:.4g} times as large as that of {one.backend}"
        if mine
        else text
    )


def _statistics(stage: Stage, one: Evidence, other: Evidence) -> str:
    return (
        f"the running statistics `{stage.where}` {_differ(stage)} after one step, while the gradients agree: check "
        "the momentum, and whether both backends use the unbiased variance of the batch"
    )


def _optimizer(stage: Stage, one: Evidence, other: Evidence) -> str:
    worse = max((one, other), key=lambda e: _known(stage.from_reference.get(e.backend)))
    if stage.where.startswith(OTHER_GAIN):
        return (
            f"{stage.where.removesuffix(f', {worse.backend}')}: the backends reduce the loss scale a different number "
            "of times when gradients overflow. Check the initial loss scale, and that it is halved after each overflow"
        )
    if stage.where.startswith(MORE_SKIPPED):
        return (
            f"{stage.where.removesuffix(f', {worse.backend}')}: {worse.backend} skips more steps than the "
            "other backend because gradients overflow. Check the initial loss scale, and that it is halved "
            "after each overflow"
        )
    text = (
        f"the training steps of {worse.backend} differ from the definition of "
        f"{one.report.spec.recipe.optimizer} in `harness.Recipe`: "
        f"{stage.where.removesuffix(f', {worse.backend}')} {_differs(stage)}"
    )
    if RUNNING in stage.where:
        return f"{text}: check that each training step updates the running statistics with the same momentum"
    for segment, arrays in segments(worse):
        wrong = relative_errors(arrays, stage.tolerance) > stage.tolerance  # [S, P]
        steps = np.flatnonzero(wrong.any(axis=1))
        if not len(steps):
            continue
        first = int(steps[0])
        actual, expected = arrays["actual"][first], arrays["size"][first]
        ratio = np.median((actual / np.maximum(expected, 1e-300))[wrong[first]])
        causes = {
            0: "clipping, the learning rate, weight decay, epsilon, and Nesterov momentum",
            1: "momentum, the moving averages, gradients that are not reset, weight decay, and the learning rate",
        }
        cause = causes.get(first, "what changes during training") if actual.any() else "why the weights do not change"
        return (
            f"{text}. In {SEGMENTS[segment]}, {len(steps)} of {len(wrong)} steps differ. In the first of "
            f"them, step {first + 1}, {int(wrong[first].sum())} of {wrong.shape[1]} parameters differ, and "
            f"they change {ratio:.4g} times as much as expected: check {cause}"
        )
    return f"{text}: `train_step` does not compute the same loss or outputs as `gradients` and `predict`"


def _known(error: float | None) -> float:
    return float("inf") if error is None else error


def _differs(stage: Stage) -> str:
    return "is not finite" if stage.error is None else f"differs by {stage.error:.1e}"


def _dropout(stage: Stage, one: Evidence, other: Evidence) -> str:
    size = "cannot be compared" if stage.error is None else f"differs by {stage.error:.1f} standard errors"
    return (
        f"dropout has different distributions in {one.backend} and {other.backend}: {stage.where} {size}, while "
        "training without dropout produces equal results."
        " Check the rate, the factor 1 / (1 - rate) and the position of each dropout "
        "layer"
        ", and that every example and step has its own mask"
    )


def _late(stage: Stage, one: Evidence, other: Evidence) -> str:
    return (
        f"{stage.where} {_differs(stage)} at weights that {one.backend} reached in training, while results at the "
        "initial weights agree. Check for state that persists within a session, such as running statistics or "
        "gradients that are not reset, and for parts of the network that are unused with the initial weights"
    )


def _curve(stage: Stage, one: Evidence, other: Evidence) -> str:
    start = relative(other.arrays["curve"][:2], one.arrays["curve"][:2])
    return (
        f"the losses {_differ(stage)} at {stage.where} (by {start:.1e} in the first two steps), while a single step "
        f"agrees. Either the state kept between steps differs (moments of {one.report.spec.recipe.optimizer}, "
        "running statistics, learning rate), or training amplifies rounding errors. In the latter case, both backends "
        "are about equally far from float64"
    )


def _trained(stage: Stage, one: Evidence, other: Evidence) -> str:
    return (
        f"the logits {_differ(stage)} in evaluation mode after training, while the training losses agree: check the "
        "state that is used only in evaluation mode, such as running statistics"
    )
