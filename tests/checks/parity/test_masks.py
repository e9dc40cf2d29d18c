"""Tests of the comparison of dropout masks, with a network of two layers in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.checks.parity.masks import FALSE_ALARMS, Profiles, compare_masks, mask_statistics, step_losses, welch
from harness.interfaces import Batch

Array = np.ndarray[Any, Any]
RATE = 0.4
BATCH = Batch({"x": np.random.default_rng(0).normal(size=(8, 20))}, np.random.default_rng(1).normal(size=8))


class Session:
    """Session of a network with 20 inputs, 30 hidden units with dropout, and one output."""

    def __init__(self, seed: int, fault: str = "") -> None:
        self.rng, self.fault = np.random.default_rng(seed), fault
        weights = np.random.default_rng(2)
        self.first, self.second = weights.normal(size=(30, 20)) / 5, weights.normal(size=30) / 5

    def mask(self, shape: tuple[int, ...]) -> Array:
        rate = {"none": 0.0, "twice": 2 * RATE, "little": RATE + 0.05}.get(self.fault, RATE)
        if self.fault == "constant":
            self.rng = np.random.default_rng(5)
        kept = self.rng.random((1, shape[1]) if self.fault == "shared" else shape) >= rate
        return np.broadcast_to(kept, shape) / (1.0 if self.fault == "unscaled" else 1 - rate)

    def gradients(self, batch: Batch, mask: Array | None = None) -> tuple[float, dict[str, Array]]:
        x = batch.inputs["x"]
        hidden = np.maximum(x @ self.first.T, 0)
        mask = self.mask(hidden.shape) if mask is None else mask
        error = (hidden * mask) @ self.second - batch.targets
        upstream = error[:, None] * self.second * mask * (hidden > 0) / len(x)
        return float((error**2).mean() / 2), {"first": upstream.T @ x, "second": error @ (hidden * mask) / len(x)}

    def train_step(self, batch: Batch, learning_rate: float) -> float:
        return self.gradients(batch)[0]

    def fetch(self, handle: Any) -> Any:
        return handle


def statistics(seed: int, fault: str = "", masks: int = 256) -> dict[str, Array]:
    session: Any = Session(seed, fault)
    _, plain = session.gradients(BATCH, np.ones((8, 30)))
    return mask_statistics(session, BATCH, plain, masks) | {"step loss": step_losses(session, BATCH, masks)}


@pytest.mark.parametrize("fault", ["none", "twice", "little", "unscaled", "shared", "constant"])
def test_faulty_masks_differ(fault: str) -> None:
    found = compare_masks(statistics(0), statistics(1, fault))
    assert found.errors > found.critical


def test_correct_masks_rarely_differ() -> None:
    """With 4 parameters' statistics, 40 comparisons at the threshold for 5% must fail about twice, not 10 times."""
    from scipy import stats

    found = [compare_masks(statistics(2 * seed, masks=64), statistics(2 * seed + 1, masks=64)) for seed in range(40)]
    assert all(each.errors <= each.critical for each in found)
    looser = stats.norm.isf(0.05 / found[0].tests / 2)
    assert sum(each.errors > looser for each in found) <= 6
    assert found[0].critical > stats.norm.isf(FALSE_ALARMS / found[0].tests / 2)


def test_parameters_without_gradients_are_omitted() -> None:
    session: Any = Session(0)
    _, plain = session.gradients(BATCH, np.ones((8, 30)))
    own = session.gradients
    noise = np.random.default_rng(3)
    session.gradients = lambda batch: (own(batch)[0], own(batch)[1] | {"key": 1e-9 * noise.normal(size=4)})
    assert "parameter/key" not in mask_statistics(session, BATCH, plain | {"key": np.zeros(4)}, 16)


def test_welch_agrees_with_scipy_and_handles_constants() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=20), rng.normal(0.5, 2, size=30)
    expected = stats.ttest_ind(a, b, equal_var=False)
    p, t, _ = welch(a, b)
    assert (p, t) == pytest.approx((expected.pvalue, expected.statistic))
    ones = np.ones(5)
    assert welch(ones, ones)[0] == 1
    assert welch(ones, 1.1 * ones)[:2] == (0, -np.inf)
    assert welch(ones, np.full(5, np.nan))[0] == 0


@pytest.mark.parametrize("rounding", [1e-7, 1e-3])
def test_rounding_errors_of_two_classes_are_not_correlated(rounding: float) -> None:
    """With two classes, the gradients of the two rows of the last layer differ only in sign and rounding."""
    rng = np.random.default_rng(0)

    def gradients(rounding: float) -> dict[str, Array]:
        row, bias = rng.normal(size=30), rng.normal()
        return {
            "weight": np.stack([row, -row * (1 + rounding)]),
            "bias": np.array([bias, -bias * (1 + rounding)]),
        }

    profiles = Profiles(gradients(0.0))
    assert profiles.names == ["weight (axis 0) and bias (axis 0)"]
    assert profiles.correlations(gradients(rounding)) == 0
    unequal = gradients(0.0)
    unequal = {name: array * np.array([1, 2]).reshape(-1, *[1] * (array.ndim - 1)) for name, array in unequal.items()}
    assert profiles.correlations(unequal) == pytest.approx(1)
