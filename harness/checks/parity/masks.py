"""Statistics of dropout over many masks, and their comparison between two backends.

The weights and the batch are fixed, so the loss and the gradients of a step vary only with the dropout masks. Two
backends draw different masks, but the distributions of the results must be equal. For each mask and parameter, a few
statistics are computed. The means of these statistics over the masks are compared with Welch's t-test.

`Statistic` lists the statistics. Each dropout layer mainly affects the gradients of nearby parameters, so an error in a
single layer appears in the statistics of a few parameters. The correlations between parameters (`Profiles`) depend on
how the masks of different layers are related, and on whether the forward and the backward pass use the same mask.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.checks.parity.distance import FLOOR, Sample, rms
from harness.checks.parity.scaling import scaled_gradients
from harness.interfaces import Batch, Session
from harness.measure.distance import norm

Array = NDArray[Any]

RATE = 0.4
"""Minimum dropout rate for computing the statistics. Lower rates would require more masks."""
MASKS = 512
"""Number of masks for which a backend computes gradients. With 256 masks, missing dropout of the attention weights in a
BERT model with a hidden size of 32 was detected in only two of three comparisons."""
STEP_MASKS = 256
"""Number of masks for which a backend computes the loss of a training step."""
CHANGES = 48
"""Number of masks for which a backend computes a training step that changes the weights."""
PROFILES = 32
"""Maximum number of profiles of the same length. If there are more profiles, an evenly spaced subset is used."""
EXAMPLES = 4
"""Number of examples in the batch. Each example has its own masks. With more examples, the effects of the masks would
average out, and a unit would rarely be dropped in all examples."""
FALSE_ALARMS = 1e-4
"""Probability that a comparison of two correct backends fails. The probability is divided by the number of tests
(Bonferroni correction)."""
MIN_SPREAD = 0.02
"""Minimum standard deviation of a profile. Smaller variations may be rounding errors. For example, the gradients of the
last layer's two rows have the same norm if there are two classes."""
_TINY = 1e-300


class Statistic(IntEnum):
    """A number computed from a parameter's gradient under one mask."""

    ALONG = 0
    """Component in the direction of the gradient without dropout, as a fraction of that gradient. This statistic
    detects missing rescaling."""
    NORM = 1
    """Logarithm of the 2-norm. This statistic detects wrong rescaling and wrong dropout rates."""
    DEVIATION = 2
    """Logarithm of the distance from the gradient without dropout. This statistic measures the spread over masks."""
    SPREAD = 3
    """Logarithm of the ratio of the 1-norm to the 2-norm. This statistic detects a wrong fraction of zeros."""
    TAIL = 4
    """Logarithm of the ratio of the 4-norm to the 2-norm of the difference from the gradient without dropout. This
    statistic detects masks that contain values other than zero and a single constant."""


class Difference(NamedTuple):
    """The largest difference between the statistics of two backends."""

    where: str
    errors: float
    """Difference of the means, in standard errors. The difference is infinite if both statistics are constant but not
    equal."""
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
        Gradients without dropout, for the same weights and batch.
    masks : int, default=512
        Number of masks.
    dynamic : bool, default=False
        True if the session has a dynamic loss scale, as in fp16.

    Returns
    -------
    dict of str to ndarray
        ``loss``, ``[masks]``; ``parameter/NAME``, ``[masks, 5]``, with the statistics in the order of `Statistic`;
        ``pairs``, ``[masks, P]``, with the correlations of P pairs of profiles; and ``pair names``, ``[P]``. Parameters
        whose gradients consist entirely of rounding errors are omitted.
    """
    sample, profiles = Sample(plain), Profiles(plain)
    flat = sample.of(plain)
    scalars = sum(array.size for array in flat.values())
    total = norm(np.array([norm(array) for array in flat.values()]))
    floors = {name: FLOOR**2 * total * np.sqrt(array.size / scalars) for name, array in flat.items()}
    losses: list[float] = []
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in flat}
    pairs: list[Array] = []
    for _ in range(masks):
        loss, gradients, _ = scaled_gradients(session, batch, dynamic)
        losses.append(loss)
        pairs.append(profiles.correlations(gradients))
        for name, gradient in sample.of(gradients).items():
            rows[name].append(_statistics(gradient, flat[name], floors[name]))
    arrays = {f"parameter/{name}": np.array(values) for name, values in rows.items()}
    known = {name for name in flat if np.exp(np.median(arrays[f"parameter/{name}"][:, Statistic.NORM])) > floors[name]}
    correlations, kept = np.array(pairs), profiles.within(known)
    arrays = {f"parameter/{name}": arrays[f"parameter/{name}"] for name in flat if name in known}
    return {
        "loss": np.array(losses),
        "pairs": correlations[:, kept],
        "pair names": np.array(profiles.names)[kept],
        **arrays,
    }


def _statistics(gradient: Array, expected: Array, floor: float, least: float = 0.0) -> tuple[float, ...]:
    """Return the statistics of a parameter, in the order of `Statistic`.

    If the norm of `expected` is smaller than `floor`, `floor` is used as the norm. Because the difference may consist
    entirely of rounding errors, `least` times this norm is added to the norms of the difference.
    """
    size, expected_size = _norm(gradient), max(_norm(expected), floor)
    difference = gradient - expected
    added = least * expected_size + _TINY
    deviation, fourth = _norm(difference) + added, np.sqrt(_norm(difference**2)) + added
    return (
        float(np.einsum("i,i->", gradient, expected)) / max(expected_size**2, _TINY),
        np.log(size + _TINY),
        np.log(deviation),
        np.log(float(np.abs(gradient).sum()) / max(size, _TINY) + _TINY),
        np.log(fourth / deviation),
    )


class Profiles:
    """Profiles of gradients along the axes of the parameters, and the correlations between profiles.

    A profile has one value for each index of an axis: the logarithm of the gradient norm at this index, minus the same
    logarithm without dropout. If a mask drops a unit, the profiles of all parameters of the unit are small at the same
    index. Correlations are computed between profiles of equal length.
    """

    def __init__(self, plain: Mapping[str, Array]) -> None:
        """Choose the axes. `plain` contains the gradients without dropout, by name."""
        groups: dict[int, list[tuple[str, int]]] = {}
        for name, array in plain.items():
            for axis, length in enumerate(array.shape[:2]):
                groups.setdefault(length, []).append((name, axis))
        self._groups = []
        for length, places in groups.items():
            if length > 1 and len(places) > 1:
                chosen = np.unique(np.linspace(0, len(places) - 1, PROFILES).round().astype(int))
                self._groups.append([places[index] for index in chosen])
        self._floors = {
            place: FLOOR**3 * float(np.mean(self._squares(plain, place))) + _TINY
            for each in self._groups
            for place in each
        }
        self._plain = {place: self._logarithm(plain, place) for place in self._floors}
        self._pairs = [
            (places[i], places[j])
            for places in self._groups
            for i, j in zip(*np.triu_indices(len(places), 1), strict=True)
        ]

    @property
    def names(self) -> list[str]:
        """Descriptions of the pairs."""
        return [f"{a} (axis {i}) and {b} (axis {j})" for (a, i), (b, j) in self._pairs]

    def within(self, names: Collection[str]) -> NDArray[np.bool_]:
        """Return a Boolean mask of the pairs whose parameters are both in `names`."""
        return np.array([a in names and b in names for (a, _), (b, _) in self._pairs], dtype=bool)

    def correlations(self, gradients: Mapping[str, Array]) -> Array:
        """Return the correlation of each pair of profiles. The correlation is 0 if one of the profiles is almost
        constant."""
        found = []
        for places in self._groups:
            rows = np.array([self._logarithm(gradients, place) - self._plain[place] for place in places])
            rows -= rows.mean(axis=1, keepdims=True)
            scale = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
            rows = np.divide(rows, scale, out=np.zeros_like(rows), where=scale > MIN_SPREAD * np.sqrt(rows.shape[1]))
            found.append(np.einsum("ik,jk->ij", rows, rows)[np.triu_indices(len(places), 1)])
        return np.concatenate(found) if found else np.zeros(0)

    @staticmethod
    def _squares(gradients: Mapping[str, Array], place: tuple[str, int]) -> Array:
        name, axis = place
        rows = np.moveaxis(gradients[name], axis, 0).reshape(gradients[name].shape[axis], -1)
        squares: Array = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        return squares

    def _logarithm(self, gradients: Mapping[str, Array], place: tuple[str, int]) -> Array:
        logarithm: Array = np.log(self._squares(gradients, place) + self._floors[place])
        return logarithm


def step_losses(session: Session, batch: Batch, masks: int = STEP_MASKS) -> Array:
    """Return the losses of training steps with a learning rate of 0, which differ only in their masks."""
    return np.array([float(np.array(session.fetch(session.train_step(batch, 0.0)))) for _ in range(masks)])


def change_statistics(
    session: Session,
    batch: Batch,
    plain: Mapping[str, Array],
    *,
    weights: Mapping[str, Array],
    change: Mapping[str, Array],
    rate: float,
    dynamic: bool = False,
    steps: int = CHANGES,
) -> dict[str, Array]:
    """Compute statistics of the weight changes in training steps with dropout. Each step starts from `weights`.

    Elements whose gradients are much smaller than those of the rest of the parameter are excluded. Optimizers that
    divide a gradient by its magnitude would turn the rounding errors of these elements into full steps.

    Parameters
    ----------
    session : Session
        Session with dropout.
    batch : Batch
        The batch.
    plain : mapping of str to ndarray
        Gradients of the parameters to compare, without dropout.
    weights : mapping of str to ndarray
        Weights before each step.
    change : mapping of str to ndarray
        Changes in the weights after one step without dropout.
    rate : float
        Learning rate.
    dynamic : bool, default=False
        True if the session has a dynamic loss scale, as in fp16.
    steps : int, default=48
        Number of steps.

    Returns
    -------
    dict of str to ndarray
        ``change/NAME``, ``[steps, 5]``, with the statistics in the order of `Statistic`.
    """
    sample = Sample(plain)
    large = {name: np.abs(gradient) > FLOOR * rms(gradient) for name, gradient in sample.of(plain).items()}
    expected = {name: array[large[name]] for name, array in sample.of(change).items()}
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name, array in expected.items() if array.size}
    for _ in range(steps):
        session.set_weights(weights)
        before = sample.of(session.get_weights())
        if dynamic:  # otherwise, the step would be skipped if the loss scale is too large
            scaled_gradients(session, batch, dynamic)
        session.train_step(batch, rate)
        after = sample.of(session.get_weights())
        for name, values in rows.items():
            values.append(_statistics((after[name] - before[name])[large[name]], expected[name], 0.0, FLOOR))
    return {f"change/{name}": np.array(values) for name, values in rows.items()}


def compare_masks(one: Mapping[str, Array], other: Mapping[str, Array]) -> Difference:
    """Return the largest difference between the statistics of two backends.

    Parameters for which only one backend has statistics are ignored, because their gradients are about as small as
    rounding errors.
    """
    from scipy import stats

    found = [(*welch(a, b, 0.0 if "loss" in where else 1.0), where) for where, a, b in _samples(one, other)]
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
            yield f"the dependence between successive masks in the {name}", _products(one[name]), _products(other[name])
    for kind, prefix in (("parameter/", ""), ("change/", "change of ")):
        for key in one:
            if key.startswith(kind) and key in other:
                for statistic in Statistic:
                    where = f"{prefix}{key.removeprefix(kind)}, {statistic.name.lower()}"
                    yield where, one[key][:, statistic], other[key][:, statistic]
    if "pairs" in one and "pairs" in other:
        columns = {str(name): index for index, name in enumerate(other["pair names"])}
        for index, name in enumerate(map(str, one["pair names"])):
            if name in columns:
                yield f"the correlation of {name}", one["pairs"][:, index], other["pairs"][:, columns[name]]


def _repeated(losses: Array) -> Array:
    """Return 1 for each loss that equals an earlier loss, and 0 for all others. An equal loss indicates a repeated
    mask."""
    repeated = np.ones(len(losses))
    repeated[np.unique(losses, return_index=True)[1]] = 0
    return repeated


def _products(losses: Array) -> Array:
    """Return the products of successive standardized losses. If the masks are independent, the mean of these products
    is 0."""
    scale = losses.std()
    standard = (losses - losses.mean()) / scale if scale else np.zeros_like(losses)
    return np.asarray(standard[1:] * standard[:-1])


def welch(a: Array, b: Array, scale: float = 0.0) -> tuple[float, float, float]:
    """Return the two-sided p-value, the statistic and the degrees of freedom of Welch's t-test for equal means.

    Means that are equal up to float32 rounding are treated as equal. The rounding error is relative to the larger mean,
    or to `scale` if `scale` is larger than both means.
    """
    import warnings

    from scipy import stats

    difference, freedom = float(a.mean() - b.mean()), len(a) + len(b) - 2.0
    if not np.isfinite(difference):
        return 0.0, float("inf"), freedom
    if abs(difference) <= 1e-5 * max(abs(float(a.mean())), abs(float(b.mean())), scale):
        return 1.0, 0.0, freedom
    if not a.std() and not b.std():
        return 0.0, float(np.copysign(np.inf, difference)), freedom
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy warns if one sample has no variance
        test = stats.ttest_ind(a, b, equal_var=False)
    return float(test.pvalue), float(test.statistic), float(test.df)


def _norm(array: Array) -> float:
    return float(np.sqrt(np.einsum("i,i->", array, array)))
