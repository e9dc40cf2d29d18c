"""Validation splits for datasets that are published without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def holdout(
    labels: NDArray[Any], share: float, *, seed: int = 0, groups: NDArray[Any] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split examples into a set to keep and a held-out set, stratified by label.

    Approximately the same fraction of examples is held out for each label. The same arguments produce the same result
    on every machine.

    Parameters
    ----------
    labels : ndarray of shape (N,)
        Labels to stratify by. If all labels are equal, the held-out examples are selected at random.
    share : float
        Fraction of the examples to hold out, greater than 0 and less than 1.
    seed : int, default=0
        Seed of the random number generator.
    groups : ndarray of shape (N,), optional
        Group of each example, such as its speaker. The examples of a group are kept or held out together.
        Stratification uses the label of each group's first example.

    Returns
    -------
    kept : ndarray of intp
        Indices of the examples to keep, in ascending order.
    held_out : ndarray of intp
        Indices of the examples to hold out, in ascending order.

    Raises
    ------
    ValueError
        If `share` is not between 0 and 1.
    """
    import numpy as np

    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1 (both exclusive), got {share}")
    members = np.arange(len(labels)) if groups is None else groups
    _, first, unit = np.unique(members, return_index=True, return_inverse=True)
    sizes, strata = np.bincount(unit), labels[first]
    held_out = np.zeros(len(sizes), bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(strata):
        units = rng.permutation(np.flatnonzero(strata == label))
        cumulative = np.cumsum(sizes[units])
        held_out[units[cumulative <= share * cumulative[-1] + 0.5]] = True
    return np.flatnonzero(~held_out[unit]), np.flatnonzero(held_out[unit])
