"""Holding out validation examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import holdout

LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=200).map(np.array)


@given(labels=LABELS, share=st.floats(0.05, 0.5), seed=st.integers(0, 9))
def test_every_label_is_held_out_in_its_share(labels: np.ndarray, share: float, seed: int) -> None:
    kept, held = holdout(labels, share, seed=seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    for label in np.unique(labels):
        assert abs((labels[held] == label).sum() - share * (labels == label).sum()) <= 0.5 + 1e-9


@given(labels=LABELS, data=st.data())
def test_groups_stay_together(labels: np.ndarray, data: st.DataObject) -> None:
    size = len(labels)
    groups = np.array(data.draw(st.lists(st.integers(0, 20), min_size=size, max_size=size)))
    kept, held = holdout(labels, 0.3, groups=groups)
    assert sorted([*kept, *held]) == list(range(size))
    assert not set(groups[kept]) & set(groups[held])


def test_the_seed_alone_decides() -> None:
    labels = np.repeat([0, 1], 50)
    first, again, other = (holdout(labels, 0.2, seed=seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert first[:4] == [2, 3, 4, 18]  # published splits must not move


def test_a_share_of_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        holdout(np.zeros(3), 1.0)
