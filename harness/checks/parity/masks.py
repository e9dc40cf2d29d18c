"""Statistics of dropout over many masks, and their comparison between two backends.

The weights and the batch are fixed, so that the loss and the gradients of a step vary only with the dropout masks. Two
backends draw different masks, but the distributions must be equal. A few statistics are computed for each mask and
parameter, and their means over the masks are compared with Welch's t-test.

Each dropout layer affects the gradients of nearby parameters most, so an error in a single layer is visible in the
statistics of a few parameters. `Statistic` lists these statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.checks.parity.distance import FLOOR, Sample, norm
from harness.checks.parity.scaling import scaled_gradients
from harness.interfaces import Batch, Session

Array = NDArray[Any]

RATE = 0.4
"""Minimum dropout rate at which the statistics are computed. At a lower rate, more masks would be needed."""
MASKS = 256
"""Number of masks for which a backend computes gradients."""
STEP_MASKS = 256
"""Number of masks for which a backend computes the loss of a training step."""
EXAMPLES = 8
"""Number of examples in the batch. Each example has its own masks. In a large batch, the effects of the masks would
average out."""
FALSE_ALARMS = 1e-4
"""Probability that the comparison of two correct backends fails, divided among its tests (Bonferroni)."""
_TINY = 1e-300


class Statistic(IntEnum):
    """A number computed from a parameter's gradient under one mask."""

    ALONG = 0
    """Component along the gradient without dropout, as a fraction of this gradient, which detects missing rescaling."""
    NORM = 1
    """Logarithm of the 2-norm, which detects a wrong rescaling or dropout rate."""
    DEVIATION = 2
    """Logarithm of the distance from the gradient without dropout, which measures the spread over masks."""
    SPREAD = 3
    """Logarithm of the ratio of the 1-norm to the 2-norm, which detects a wrong fraction of zeros."""


class Difference(NamedTuple):
    """The largest difference between the statistics of two backends."""

    where: str
    errors: float
    """Difference of the means, in standard errors. If both statistics are constant but different, the value is
    infinite."""
    critical: float
    """Largest difference that passes."""
    tests: int


def mask_statistics(
    session: Session, batch: Batch, plain: Mapping[str, Array], masks: int = MASKS, *, dynamic: bool = False
) -> dict[str, Array]:
    """Draw dropout masks for a batch and compute the statistics.

    Parameters
    ----------
    session : Session
        Session with dropout.
    batch : Batch
        The batch.
    plain : mapping of str to ndarray
        Gradients for the same weights and batch without dropout.
    masks : int, default=256
        Number of masks.
    dynamic : bool, default=False
        True if the session has a dynamic loss scale, as at fp16.

    Returns
    -------
    dict of str to ndarray
        ``loss``, ``[masks]``, and ``parameter/NAME``, ``[masks, 4]``, the statistics in the order of `Statistic`.
        Parameters whose gradient consists of rounding errors are omitted.
    """
    sample = Sample(plain)
    flat = sample.of(plain)
    scalars = sum(array.size for array in flat.values())
    total = norm(np.array([norm(array) for array in flat.values()]))
    floors = {name: FLOOR**2 * total * np.sqrt(array.size / scalars) for name, array in flat.items()}
    losses: list[float] = []
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in flat}
    for _ in range(masks):
        loss, gradients, _ = scaled_gradients(session, batch, dynamic)
        losses.append(loss)
        for name, gradient in sample.of(gradients).items():
            expected = flat[name]
            size, expected_size = _norm(gradient), max(_norm(expected), floors[name])
            rows[name].append(
                (
                    float(np.einsum("i,i->", gradient, expected)) / max(expected_size**2, _TINY),
                    np.log(size + _TINY),
                    np.log(_norm(gradient - expected) + _TINY),
                    np.log(float(np.abs(gradient).sum()) / max(size, _TINY) + _TINY),
                )
            )
    arrays = {f"parameter/{name}": np.array(values) for name, values in rows.items()}
    known = {
        f"parameter/{name}"
        for name in flat
        if np.exp(np.median(arrays[f"parameter/{name}"][:, Statistic.NORM])) > floors[name]
    }
    return {"loss": np.array(losses)} | {name: array for name, array in arrays.items() if name in known}


def step_losses(session: Session, batch: Batch, masks: int = STEP_MASKS) -> Array:
    """Return the losses of training steps with a learning rate of 0, so that only the masks differ."""
    return np.array([float(np.array(session.fetch(session.train_step(batch, 0.0)))) for _ in range(masks)])


def compare_masks(one: Mapping[str, Array], other: Mapping[str, Array]) -> Difference:
    """Return the largest difference between the statistics of two backends.

    Parameters that only one backend computed are ignored, since their gradients are about as small as rounding errors.
    """
    from scipy import stats

    found = [(*welch(a, b), where) for where, a, b in _samples(one, other)]
    _, t, freedom, where = min(found, key=lambda test: (test[0], -abs(test[1])))
    level = FALSE_ALARMS / len(found)
    return Difference(where, abs(t), float(stats.t.isf(level / 2, freedom)), len(found))


def _samples(one: Mapping[str, Array], other: Mapping[str, Array]) -> Iterator[tuple[str, Array, Array]]:
    """Yield the description of each statistic and its samples from both backends."""
    for name in ("loss", "step loss"):
        if name in one and name in other:
            middle = np.median(np.concatenate([one[name], other[name]]))
            yield f"the mean of the {name}", one[name], other[name]
            yield f"the variance of the {name}", np.abs(one[name] - middle), np.abs(other[name] - middle)
            yield f"the fraction of repeated masks in the {name}", _repeated(one[name]), _repeated(other[name])
            yield f"the dependence of successive masks in the {name}", _products(one[name]), _products(other[name])
    for key in one:
        if key.startswith("parameter/") and key in other:
            for statistic in Statistic:
                where = f"{key.removeprefix('parameter/')}, {statistic.name.lower()}"
                yield where, one[key][:, statistic], other[key][:, statistic]


def _repeated(losses: Array) -> Array:
    """Return 1 for each loss that is equal to an earlier loss, which indicates a repeated mask, and 0 for all other
    losses."""
    repeated = np.ones(len(losses))
    repeated[np.unique(losses, return_index=True)[1]] = 0
    return repeated


def _products(losses: Array) -> Array:
    """Return the products of successive standardized losses. The mean of the products is 0 if the masks are
    independent."""
    scale = losses.std()
    standard = (losses - losses.mean()) / scale if scale else np.zeros_like(losses)
    return np.asarray(standard[1:] * standard[:-1])


def welch(a: Array, b: Array) -> tuple[float, float, float]:
    """Return the two-sided p-value, the statistic and the degrees of freedom of Welch's t-test for equal means.

    If the samples have no variance, their values are compared up to float32 rounding.
    """
    import warnings

    from scipy import stats

    difference, freedom = float(a.mean() - b.mean()), len(a) + len(b) - 2.0
    if not np.isfinite(difference):
        return 0.0, float("inf"), freedom
    if abs(difference) <= 1e-5 * max(abs(float(a.mean())), abs(float(b.mean()))):
        return 1.0, 0.0, freedom
    if not a.std() and not b.std():
        return 0.0, float(np.copysign(np.inf, difference)), freedom
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy warns if one sample has no variance
        test = stats.ttest_ind(a, b, equal_var=False)
    return float(test.pvalue), float(test.statistic), float(test.df)


def _norm(array: Array) -> float:
    return float(np.sqrt(np.einsum("i,i->", array, array)))
