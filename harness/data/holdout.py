"""Holding out examples for validation where a dataset's publisher names none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def holdout(
    labels: NDArray[Any], share: float, *, seed: int = 0, groups: NDArray[Any] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The positions to keep and those to hold out, both ascending; about `share` of every label's examples is held out.

    `labels` ``[N]`` are what the two parts are balanced by; an array of one value holds out at random. Examples of one
    of the `groups` ``[N]`` stay together; a group counts for the label of its first example. The same arguments give
    the same positions on every machine.
    """
    import numpy as np

    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    members = np.arange(len(labels)) if groups is None else groups
    _, first, unit = np.unique(members, return_index=True, return_inverse=True)
    sizes, strata = np.bincount(unit), labels[first]
    held = np.zeros(len(sizes), bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(strata):
        units = rng.permutation(np.flatnonzero(strata == label))
        filled = np.cumsum(sizes[units])
        held[units[filled <= share * filled[-1] + 0.5]] = True
    return np.flatnonzero(~held[unit]), np.flatnonzero(held[unit])
