"""Tests of timed predictions: latency, throughput and rejected outputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import batch_sizes, counts
from timed_sessions import Clock, Doubler, Positions, make_split

from harness.errors import BadResultError, PluginError
from harness.interfaces import Split
from harness.measure import inference
from harness.measure.steady import per_second
from harness.records import (
    Protocol,
)


@given(counts, batch_sizes)
def test_predict_removes_the_padding(count: int, size: int) -> None:
    outputs = inference.predict(Doubler(), make_split(count), size, 1)
    assert outputs.dtype == np.float32
    assert outputs.tolist() == [[2.0 * number] for number in range(count)]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (np.zeros((3, 1)), r"have the shape \(3, 1\), not \(4, 1\)"),
        (np.zeros((4, 2)), r"have the shape \(4, 2\), not \(4, 1\)"),
        (np.zeros(4), r"have the shape \(4,\), not \(4, 1\)"),
        (np.zeros(()), r"have the shape \(\), not \(4, 1\)"),
        (np.full((4, 1), np.inf), "10 of 10 predictions are not finite"),
    ],
)
def test_bad_predictions(outputs: Any, message: str) -> None:
    class Wrong(Doubler):
        def predict(self, inputs: Any) -> Any:
            return outputs

    with pytest.raises(BadResultError, match=message):
        inference.predict(Wrong(), make_split(10), 4, 1)


def test_predictions_that_are_not_an_array_name_the_method() -> None:
    class Lists(Doubler):
        def fetch(self, handle: Any) -> Any:
            return np.asarray(handle).tolist()

    with pytest.raises(PluginError, match=r"Session.fetch returned list for the result of Session.predict"):
        inference.predict(Lists(), make_split(10), 4, 1)


def test_predictions_of_positions() -> None:
    split = Split(inputs=make_split(10).inputs, targets=np.zeros((10, 3), np.int64))
    outputs = inference.predict(Positions(), split, 4, 2)
    assert (outputs.shape, outputs.dtype) == ((10, 3, 2), np.float32)
    np.testing.assert_array_equal(outputs[9], 9 + np.arange(6).reshape(3, 2))
    with pytest.raises(BadResultError, match=r"have the shape \(4, 1\), not \(4, 3, 1\)"):
        inference.predict(Doubler(), split, 4, 1)
    assert inference.largest_error({1: outputs[4:8]}, {1: outputs[4:8]}) == (4, 0.0)
    assert inference.largest_error({1: outputs[4:8]}, {1: 2 * outputs[4:8]})[1] == pytest.approx(0.5)


def test_an_example_with_one_bad_position_is_counted_once() -> None:
    class Infinite(Positions):
        def predict(self, inputs: Any) -> Any:
            outputs = super().predict(inputs)
            outputs[inputs["y"] == 5, 1] = np.inf
            return outputs

    split = Split(inputs=make_split(10).inputs, targets=np.zeros((10, 3), np.int64))
    with pytest.raises(BadResultError, match="1 of 10 predictions are not finite"):
        inference.predict(Infinite(), split, 4, 2)


def measured(clock: Clock, predict_s: float, fetch_s: float = 0.0, **protocol: Any) -> inference.Inference:
    session = Doubler(clock, predict_s=predict_s, fetch_s=fetch_s)
    result = inference.measure(session, make_split(10), 4, Protocol(**protocol))
    timed = sum(count for count, _ in result.timed.windows) + len(result.latencies_s)
    assert session.calls.count("predict") == inference.WARMUP_BATCHES + timed
    return result


def test_as_many_latencies_as_asked_for(clock: Clock) -> None:
    result = measured(clock, 0.25, 0.125, throughput_budget_s=2.0, latency_batches=200, latency_budget_s=1000)
    assert result.latencies_s == [0.375] * 200


@pytest.mark.parametrize(("batches", "expected"), [(50, 100), (10, 100), (3, 30)])
def test_latencies_go_on_for_a_quarter_of_the_budget_or_ten_times_the_batches(
    batches: int, expected: int, clock: Clock
) -> None:
    result = measured(clock, 0.25, throughput_budget_s=100.0, latency_batches=batches, latency_budget_s=1000)
    assert len(result.latencies_s) == expected


def test_latencies_end_with_their_budget(clock: Clock) -> None:
    result = measured(clock, 0.25, throughput_budget_s=2.0, latency_batches=662, latency_budget_s=10)
    assert result.latencies_s == [0.25] * 40


def test_throughput_ends_when_the_protocol_is_satisfied(clock: Clock) -> None:
    demands = {"window_s": 2.0, "min_steady_windows": 8, "min_steady_s": 9.0, "latency_budget_s": 1}
    assert measured(clock, 0.25, throughput_budget_s=1000.0, **demands).timed.windows == [(8, 2.0)] * 8
    assert (
        measured(clock, 0.25, throughput_budget_s=1000.0, **demands | {"min_steady_s": 25.0}).timed.windows
        == [(8, 2.0)] * 13
    )


def test_throughput_ends_with_its_budget(clock: Clock) -> None:
    result = measured(clock, 0.25, throughput_budget_s=20.0, window_s=2.0, min_steady_windows=99, latency_budget_s=1)
    assert result.timed.windows == [(8, 2.0)] * 10
    result = measured(clock, 0.25, throughput_budget_s=4.0, window_s=50.0, latency_budget_s=1)
    assert result.timed.windows == [(4, 1.0)] * 4


def test_slow_predictions_are_timed_once_at_least(clock: Clock) -> None:
    result = measured(clock, 100.0, throughput_budget_s=1.0, latency_budget_s=1.0)
    assert result.timed.windows == [(1, 100.0)]
    assert result.latencies_s == [100.0]


class Counter(Doubler):
    """Records the number of distinct examples in each batch."""

    def predict(self, inputs: Any) -> Any:
        self.seen.append(sorted(set(inputs["y"].tolist())))
        return super().predict(inputs)


@given(counts, batch_sizes)
@settings(deadline=None)
def test_timed_batches_contain_no_padding(count: int, size: int) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference.time, "perf_counter", clock.perf_counter)
        session = Counter(clock, predict_s=0.25)
        protocol = Protocol(throughput_budget_s=2.0, window_s=0.5, latency_budget_s=1.0)
        result = inference.measure(session, make_split(count), size, protocol)
    timed = session.seen[inference.WARMUP_BATCHES :]
    assert {len(batch) for batch in timed} == {result.batch_size} == {min(count, size)}
    # The throughput computed from the windows is the number of predicted examples per second.
    windows = result.timed.windows
    examples = sum(map(len, timed[: sum(window.batches for window in windows)]))
    seconds = sum(window.seconds for window in windows)
    rates = per_second(windows, result.batch_size)
    assert rates.tolist() == pytest.approx([examples / seconds] * len(windows))


def test_timed_predictions_are_kept_and_compared(clock: Clock) -> None:
    split = make_split(12)
    result = inference.measure(
        Doubler(clock, predict_s=0.25), split, 4, Protocol(throughput_budget_s=4.0, latency_budget_s=1.0)
    )
    assert sorted(result.kept) == [0, 1, 2]
    right = 2 * split.inputs["x"]
    assert inference.largest_error(result.kept, inference.in_batches(result.kept, right, 4)) == (12, 0.0)
    wrong = right.copy()
    wrong[9] += 1
    examples, error = inference.largest_error(result.kept, inference.in_batches(result.kept, wrong, 4))
    assert examples == 12
    assert error == pytest.approx(1 / np.linalg.norm(wrong[8:]))
    assert inference.largest_error({0: np.full((4, 1), np.nan)}, {0: right[:4]})[1] == math.inf
