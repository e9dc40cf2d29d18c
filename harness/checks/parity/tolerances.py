"""Tolerances for the stages of a parity check, with their justifications.

Errors are relative errors in the 2-norm, so tolerances are multiples of the arithmetic's unit roundoff u. With rounding
to nearest, u is 2^-53 for float64, 2^-24 for float32, 2^-11 for TF32 and float16, and 2^-8 for bfloat16, because their
significands have 53, 24, 11, 11 and 8 bits. Summing n products in two different orders gives results that differ by
about sqrt(n) u (Higham and Mary 2019, "A new approach to probabilistic rounding error analysis"). For several thousand
terms and several layers, the difference is 1e-6 to 1e-5 in float32.
"""

from __future__ import annotations

from typing import NamedTuple

from harness.records import Precision


class Tolerance(NamedTuple):
    """A tolerance and its justification."""

    value: float
    source: str


_FORWARD = (
    "rounding error of sqrt(n) u in each of a few layers if several thousand terms are summed in a different order "
    "(Higham and Mary 2019)"
)
_FP32: dict[str, Tolerance] = {
    "logits": Tolerance(1e-5, f"{_FORWARD}; u = 6e-8"),
    "loss": Tolerance(1e-5, "same as for the logits, from which the loss is computed"),
    "gradients": Tolerance(
        1e-4,
        "ten times as large as for the logits, because the backward pass is deeper and sums over the batch may cancel",
    ),
    "step": Tolerance(
        1e-5, "a tenth of the tolerance for the gradients, because a step is at most about as large as the parameters"
    ),
    "statistics": Tolerance(1e-5, "same as for the logits, because running statistics are batch means of activations"),
    "optimizer": Tolerance(
        1e-4, "same as for the gradients; frameworks also round beta2 to float32, which changes 1 - 0.999 by 1e-5"
    ),
    "curve": Tolerance(1e-3, "ten times as large as for the gradients, because rounding errors grow from step to step"),
    "trained": Tolerance(
        1e-2, "ten times as large as for the loss curve, because logits change more than their mean loss"
    ),
}
_DEEP = Tolerance(1e-4, f"{_FORWARD}; u = 6e-8; ten times as much for a deep model (over 10 million parameters)")
_DEEP_PARAMETERS = 10_000_000

_SCALE: dict[Precision, tuple[float, str]] = {
    "fp64": (1e-6, "the fp32 tolerance times 1e-6, because u is 1e-16 instead of 6e-8, with a safety margin"),
    "fp32": (1.0, ""),
    "tf32": (1e3, "the fp32 tolerance times 1000, because u is 2^-11 in matrix products and 2^-24 elsewhere"),
    "fp16": (1e3, "the fp32 tolerance times 1000, because u is 2^-11 in matrix products and 2^-24 elsewhere"),
    "int8": (5e3, "same as for bf16, because u is 2^-8 for quantized weights and activations"),
    "bf16": (5e3, "the fp32 tolerance times 5000, because u is 2^-8 in matrix products and 2^-24 elsewhere"),
}
_REPLAY: dict[Precision, float] = {"tf32": 100.0, "fp16": 100.0, "bf16": 500.0}
"""Factors for the ``optimizer`` stage. The factors are a tenth of those for other stages, because the predicted and the
actual steps use gradients from the same backend."""
CEILING = 0.3
"""Maximum tolerance for any precision, as a relative error."""


def tolerance(stage: str, precision: Precision, parameters: int) -> Tolerance:
    """Return the tolerance for a stage and a model with the given number of scalar parameters.

    The tolerance for ``inputs`` and ``weights`` is 0, because they must match exactly.
    """
    if stage in ("inputs", "weights"):
        return Tolerance(0.0, "copies are exact")
    fp32 = _DEEP if stage == "logits" and parameters > _DEEP_PARAMETERS else _FP32[stage]
    factor, reason = _SCALE[precision]
    if stage == "optimizer" and precision in _REPLAY:
        factor = _REPLAY[precision]
        reason = f"the fp32 tolerance times {factor:.0f}: predicted and actual steps use gradients of the same backend"
    return Tolerance(min(fp32.value * factor, max(CEILING, fp32.value)), reason or fp32.source)
