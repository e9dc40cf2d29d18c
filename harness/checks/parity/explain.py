"""The first stage that failed, in words that somebody can act on."""

from __future__ import annotations

import numpy as np

from harness.checks.parity.distance import Array, relative, rowwise
from harness.checks.parity.stages import Evidence
from harness.checks.parity.verdict import Stage

_LOW_PRECISION = (2e-5, 2e-2)
"""Errors that matrix products in TF32 or bfloat16 leave in logits that are otherwise float32 (tests/checks/parity)."""


def explain(stages: list[Stage], one: Evidence, other: Evidence) -> str:
    """Empty where every stage passed."""
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
        "curve": _curve,
        "trained": _trained,
    }
    return f"{words[failed.name](failed, one, other)}{_culprit(failed, one, other)}"


def _differ(stage: Stage) -> str:
    if stage.error is None:
        return "cannot be compared (their shapes differ, or they are not finite)"
    return f"differ by {stage.error:.1e}"


def _culprit(stage: Stage, one: Evidence, other: Evidence) -> str:
    """Which of the two the float64 reference speaks against."""
    errors = [stage.from_reference.get(e.backend, 0.0) for e in (one, other)]
    known = [float("inf") if error is None else error for error in errors]
    if not stage.from_reference or max(known) <= 10 * min(known):
        return ""
    worse, better = (one, other) if known[0] > known[1] else (other, one)
    return (
        f". Against float64, {worse.backend} is off by {max(known):.1e} and {better.backend} by {min(known):.1e}: "
        f"look at {worse.backend}"
    )


def _inputs(stage: Stage, one: Evidence, other: Evidence) -> str:
    return (
        f"{one.backend} and {other.backend} did not get the same {stage.where}: the dataset, its preparation or the "
        "model's list of parameters depends on more than its options and the seed"
    )


def _weights(stage: Stage, one: Evidence, other: Evidence) -> str:
    return f"the weights are not the same on both sides: {stage.where}. Check the bindings of the network"


def _logits(stage: Stage, one: Evidence, other: Evidence) -> str:
    for evidence in (one, other):
        again = relative(evidence.arrays["logits_again"], evidence.arrays["logits"])
        if again > stage.tolerance:
            return (
                f"two predictions of the same batch by {evidence.backend} differ by {again:.1e}: something random is "
                "on in evaluation mode, such as dropout"
            )
    rows = rowwise(other.arrays["logits"], one.arrays["logits"])
    off = np.flatnonzero(rows > stage.tolerance)
    told = f"logits {_differ(stage)} in evaluation mode, with the same weights and inputs"
    if 0 < len(off) <= len(rows) / 2 and np.isfinite(rows).all():
        agree = len(rows) - len(off)
        if _exchanged(one.arrays["logits"][off], other.arrays["logits"][off]):
            return f"{told}: examples {_list(off)} are exchanged in {other.backend}; the other {agree} agree"
        return (
            f"{told}, but only {len(off)} of {len(rows)} examples ({_list(off)}): look at what is particular "
            "to them, such as their padding and attention mask, or an example that was exchanged"
        )
    told += ": the forward pass differs (an epsilon, padding, activation, attention mask, or a transposed weight)"
    if stage.error is not None and _LOW_PRECISION[0] <= stage.error <= _LOW_PRECISION[1]:
        told += (
            f". Errors of this size also come from arithmetic in TF32 or bfloat16: check that {other.backend} and "
            f"{one.backend} really compute in {one.report.spec.precision}"
        )
    return told


def _exchanged(mine: Array, others: Array) -> bool:
    """Whether the rows are the same ones in another order."""
    distances = np.linalg.norm(mine[:, None].astype(np.float64) - others[None], axis=-1)
    order = distances.argmin(axis=1)
    size = np.linalg.norm(mine) / np.sqrt(len(mine))
    return len(set(order.tolist())) == len(mine) and bool(distances.min(axis=1).max() <= 1e-3 * size)


def _list(numbers: Array) -> str:
    return ", ".join(map(str, numbers[:5])) + (" ..." if len(numbers) > 5 else "")


def _loss(stage: Stage, one: Evidence, other: Evidence) -> str:
    return (
        f"training losses {_differ(stage)} while logits in evaluation mode agree: what training mode does differently "
        "is at fault (batch statistics, dropout that its rate of 0 does not turn off), or the loss (label smoothing), "
        "or the batch (an example with another one's target)"
    )


def _gradients(stage: Stage, one: Evidence, other: Evidence) -> str:
    return f"gradients of `{stage.where}` {_differ(stage)} while loss and logits agree: the backward pass differs"


def _step(stage: Stage, one: Evidence, other: Evidence) -> str:
    told = (
        f"the values of `{stage.where}` {_differ(stage)} after one step while its gradients agree: "
        f"{one.report.spec.recipe.optimizer} is implemented differently (bias correction, epsilon, weight decay, "
        "clipping)"
    )
    starts = [e.arrays[f"start/{stage.where}"] for e in (one, other)]
    mine, others = (
        np.linalg.norm(e.arrays[f"step/{stage.where}"] - start) for e, start in zip((one, other), starts, strict=True)
    )
    return f"{told}; the step of {other.backend} is {others / mine:.4g} times that of {one.backend}" if mine else told


def _statistics(stage: Stage, one: Evidence, other: Evidence) -> str:
    return (
        f"the running statistics `{stage.where}` {_differ(stage)} after one step while the gradients agree: their "
        "momentum differs, or one side takes the batch's biased variance and the other the unbiased one"
    )


def _curve(stage: Stage, one: Evidence, other: Evidence) -> str:
    start = relative(other.arrays["curve"][:2], one.arrays["curve"][:2])
    return (
        f"losses {_differ(stage)} at {stage.where} (by {start:.1e} in the first two) while one step agrees: what lasts "
        f"from step to step differs (moments of {one.report.spec.recipe.optimizer}, running statistics, learning "
        "rate), or this training amplifies rounding: then both sides are about as far from float64"
    )


def _trained(stage: Stage, one: Evidence, other: Evidence) -> str:
    return (
        f"logits {_differ(stage)} in evaluation mode after training, while the losses of training agree: what only "
        "evaluation uses, such as running statistics, has drifted apart"
    )
