from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.report.plots.run_points import latency, losses

FINITE = st.floats(1e-12, 1e12) | st.floats(-1e12, -1e-12) | st.just(0.0)


def lists(values: st.SearchStrategy[float], longest: int) -> st.SearchStrategy[list[float]]:
    """Return lists of any length; drawing the length first keeps Hypothesis from preferring short lists."""
    return st.integers(1, longest).flatmap(lambda n: st.lists(values, min_size=n, max_size=n))


@given(lists(FINITE, 120))
def test_losses_keep_five_significant_digits(values: list[float]) -> None:
    for exact, shown in zip(values, losses({"train_losses": np.array(values)})["loss"], strict=True):
        assert math.isclose(shown, exact, rel_tol=5.001e-5)
        assert len(f"{shown!r}".partition("e")[0].replace(".", "").strip("-0")) <= 5


@given(lists(st.floats(1e-6, 1e3), 400))
def test_latency_histogram_matches_numpy(seconds: list[float]) -> None:
    found = latency({"latencies_s": np.array(seconds)})
    values = np.array(seconds) * 1e3
    top = np.quantile(values, 0.995)
    edges = np.array([*found["low"], found["high"][-1]])
    assert sum(found["count"]) == len(seconds)
    assert found["low"][1:] == found["high"][:-1]
    assert math.isclose(edges[0], values.min(), rel_tol=1e-4)
    if top > values.min():
        assert math.isclose(edges[-1], top, rel_tol=1e-4)
        exact = np.linspace(values.min(), top, len(edges))
        near = np.abs(values[:, None] / exact - 1).min(axis=1) < 1e-9  # rounding may put these values in either bin
        expected = np.histogram(np.minimum(values, top), exact)[0]
        assert np.abs(expected - found["count"]).sum() <= 2 * near.sum()


def test_latency_without_samples_is_empty() -> None:
    assert latency({}) == {}
