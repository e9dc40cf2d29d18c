"""Tests of `harness.holdout`: fractions, groups and reproducibility."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import holdout

LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=200).map(np.array)


@given(labels=LABELS, share=st.floats(0.05, 0.5), seed=st.integers(0, 9))
def test_holdout_takes_the_same_fraction_of_every_label(labels: np.ndarray, share: float, seed: int) -> None:
    kept, held = holdout(labels, share, seed=seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    for label in np.unique(labels):
        assert abs((labels[held] == label).sum() - share * (labels == label).sum()) <= 0.5 + 1e-9


@given(labels=LABELS, data=st.data())
def test_holdout_keeps_groups_together(labels: np.ndarray, data: st.DataObject) -> None:
    size = len(labels)
    groups = np.array(data.draw(st.lists(st.integers(0, 20), min_size=size, max_size=size)))
    kept, held = holdout(labels, 0.3, groups=groups)
    assert sorted([*kept, *held]) == list(range(size))
    assert not set(groups[kept]) & set(groups[held])


def test_holdout_depends_only_on_the_seed() -> None:
    labels = np.repeat([0, 1], 50)
    first, again, other = (holdout(labels, 0.2, seed=seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert first[:4] == [2, 3, 4, 18]  # the splits of built-in datasets must not change


def test_holdout_of_all_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="share must be between 0 and 1"):
        holdout(np.zeros(3), 1.0)
