"""Tests of training and inference loops, batches, learning rates, memory and the environment."""

from __future__ import annotations

import math
import mmap
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idle_session import IdleSession
from sample_records import spec as sample_spec

from harness.data.batches import inference_batches, steps_per_epoch, training_batches
from harness.data.prepared import check, dataset_digest
from harness.errors import BadResultError, DataError, PluginError
from harness.interfaces import Batch, PreparedData, Session, Split
from harness.measure import environment, inference
from harness.measure.memory import PhaseMemory, peak_bytes, reset_peak
from harness.measure.phases import Phases
from harness.measure.quality.builtin import METRICS
from harness.measure.quality.scorer import scorer
from harness.measure.schedule import learning_rate
from harness.measure.training import Training, train
from harness.records import (
    IGNORED,
    DataInfo,
    EpochEnded,
    Event,
    InputSpec,
    PhaseStarted,
    Progress,
    Protocol,
    Recipe,
    RunSpec,
)

MIB = 2**20


def make_split(examples: int) -> Split:
    """Return a split in which all arrays contain the index of the example."""
    rows = np.arange(examples)
    return Split(inputs={"x": np.float32(rows)[:, None], "y": rows}, targets=np.float32(rows)[:, None])


def make_data(examples: int = 40) -> PreparedData:
    info = DataInfo(
        kind="numbers",
        inputs={"x": InputSpec(shape=(1,), dtype="float32"), "y": InputSpec(shape=(), dtype="int64")},
        objective="regression",
        outputs=1,
    )
    return PreparedData(train=make_split(examples), validation=make_split(7), test=make_split(10), info=info)


def make_spec(*, epochs: int = 2, batch_size: int = 4, seed: int = 0, **protocol: Any) -> RunSpec:
    return sample_spec(recipe=Recipe(epochs=epochs, batch_size=batch_size), seed=seed, protocol=Protocol(**protocol))


class Clock:
    """Clock that advances only when `now` is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    for module in ("training", "inference"):
        monkeypatch.setattr(f"harness.measure.{module}.time", fake)
    return fake


class Doubler(IdleSession):
    """Session that predicts twice its input, records calls and advances the clock by a fixed time per call."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        step_s: float = 0.0,
        predict_s: float = 0.0,
        fetch_s: float = 0.0,
        losses: Callable[[int], float] = lambda step: 1 / step,
    ) -> None:
        self.clock = clock or Clock()
        self.step_s, self.predict_s, self.fetch_s, self.losses = step_s, predict_s, fetch_s, losses
        self.calls: list[str] = []
        self.seen: list[list[int]] = []
        self.rates: list[float] = []

    def train_step(self, batch: Batch, rate: float) -> Any:
        self.calls.append("train")
        self.seen.append(batch.inputs["y"].tolist())
        self.rates.append(rate)
        self.clock.now += self.step_s
        return self.losses(len(self.seen))

    def predict(self, inputs: Any) -> Any:
        self.calls.append("predict")
        self.clock.now += self.predict_s
        return 2 * inputs["x"]

    def fetch(self, handle: Any) -> Any:
        self.calls.append("fetch")
        self.clock.now += self.fetch_s
        return handle

    def synchronize(self) -> None:
        self.calls.append("synchronize")


# ---- batches ----------------------------------------------------------------------------------------------

examples = st.integers(1, 60)
sizes = st.integers(1, 70)
seeds = st.integers(0, 2**40)


def order(split: Split, size: int, seed: int, epoch: int) -> list[list[int]]:
    return [batch.inputs["y"].tolist() for batch in training_batches(split, size, seed, epoch)]


@given(examples, sizes, seeds, st.integers(1, 50))
def test_training_batches_are_full_and_do_not_repeat_examples(count: int, size: int, seed: int, epoch: int) -> None:
    batches = list(training_batches(make_split(count), size, seed, epoch))
    assert len(batches) == steps_per_epoch(count, size)
    assert {len(batch.targets) for batch in batches} == {min(size, count)}
    seen = np.concatenate([batch.inputs["y"] for batch in batches])
    assert len(set(seen.tolist())) == len(seen)
    if count % size == 0 or count < size:
        assert sorted(seen.tolist()) == list(range(count))
    for batch in batches:
        assert batch.inputs["x"].tolist() == batch.targets.tolist() == np.float32(batch.inputs["y"])[:, None].tolist()


@given(st.integers(20, 60), sizes, seeds)
def test_order_is_determined_by_seed_and_epoch(count: int, size: int, seed: int) -> None:
    split = make_split(count)
    whole = min(size, count)
    first = order(split, whole, seed, 1)
    assert first == order(split, whole, seed, 1)
    if whole < count // 2:
        assert first != order(split, whole, seed, 2)
        assert first != order(split, whole, seed + 1, 1)


def test_examples_dropped_in_one_epoch_occur_in_others() -> None:
    split = make_split(11)
    seen = {number for epoch in range(1, 20) for batch in order(split, 5, 0, epoch) for number in batch}
    assert seen == set(range(11))


@given(examples, sizes)
def test_inference_batches_keep_order_and_size(count: int, size: int) -> None:
    kept: list[int] = []
    for inputs, valid in inference_batches(make_split(count), size):
        assert {len(array) for array in inputs.values()} == {size}
        assert 1 <= valid <= size
        kept += inputs["y"][:valid].tolist()
        assert set(inputs["y"][valid:].tolist()) <= {kept[-1]}
    assert kept == list(range(count))


@given(examples, sizes)
def test_predict_removes_the_padding(count: int, size: int) -> None:
    outputs = inference.predict(Doubler(), make_split(count), size, 1)
    assert outputs.dtype == np.float32
    assert outputs.tolist() == [[2.0 * number] for number in range(count)]


@pytest.mark.parametrize(
    "layout", [np.asfortranarray, lambda array: array[:, ::-1], lambda array: array.transpose(0, 2, 1)]
)
def test_batches_are_contiguous_for_any_memory_layout(layout: Callable[[Any], Any]) -> None:
    images = layout(np.zeros((10, 4, 4), np.float32))
    split = Split(inputs={"x": images}, targets=np.zeros((20, 3), np.float32)[::2])
    for batch in training_batches(split, 4, 0, 1):
        assert batch.inputs["x"].flags.c_contiguous
        assert batch.targets.flags.c_contiguous
    for inputs, _ in inference_batches(split, 4):
        assert inputs["x"].flags.c_contiguous


# ---- validation of prepared data --------------------------------------------------------------------------


def with_train(**changes: Any) -> PreparedData:
    data = make_data()
    values = {"inputs": data.train.inputs, "targets": data.train.targets} | changes
    return PreparedData(train=Split(**values), validation=data.validation, test=data.test, info=data.info)


def test_valid_data_are_accepted() -> None:
    check(make_data())


NOT_FINITE = np.full((40, 1), np.nan, np.float32)
X = {"x": np.zeros((40, 1), np.float32), "y": np.zeros(40, np.int64)}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"targets": np.zeros((0, 1), np.float32)}, DataError, "the train split is empty"),
        ({"inputs": {"x": X["x"]}}, PluginError, r"has inputs \['x'\], expected \['x', 'y'\]"),
        ({"inputs": {**X, "x": np.zeros((40, 2), np.float32)}}, PluginError, r"float32 \(40, 2\), expected float32"),
        ({"inputs": {**X, "x": np.zeros((40, 1))}}, PluginError, "train input 'x' is float64"),
        ({"inputs": {**X, "x": np.zeros((39, 1), np.float32)}}, PluginError, r"\(39, 1\)"),
        ({"inputs": {**X, "x": NOT_FINITE}}, DataError, "'x' contains values that are not finite"),
        ({"targets": NOT_FINITE}, DataError, "targets contain values that are not finite"),
        ({"targets": np.zeros((40, 1))}, PluginError, "float64"),
        ({"targets": np.zeros(40, np.float32)}, PluginError, r"\(40,\)"),
    ],
)
def test_invalid_data_are_rejected(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check(with_train(**changes))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros(40, np.int32), "expected int64"),
        (np.zeros((40, 1), np.int64), "expected int64"),
        (np.full(40, 3), "range from 3 to 3, expected 0 to 2"),
        (np.full(40, -1), "range from -1 to -1"),
    ],
)
def test_invalid_classes_are_rejected(targets: Any, message: str) -> None:
    data = with_train(targets=targets)
    info = msgspec.structs.replace(data.info, objective="classification", outputs=3)
    with pytest.raises(PluginError, match=message):
        check(PreparedData(train=data.train, validation=data.validation, test=data.test, info=info))


def positions(targets: Any) -> PreparedData:
    """Return token classification data: 40 examples of two positions, three classes."""
    data = with_train(targets=targets)
    info = msgspec.structs.replace(data.info, objective="token_classification", outputs=3)
    good = np.array([[0, 2], *[[1, IGNORED]] * 9])
    others = {
        name: Split(inputs=s.inputs, targets=good[: len(s)]) for name, s in (("v", data.validation), ("t", data.test))
    }
    return PreparedData(train=data.train, validation=others["v"], test=others["t"], info=info)


def test_ignored_positions_are_accepted() -> None:
    check(positions(np.tile([2, IGNORED], (40, 1))))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros(40, np.int64), r"are int64 \(40,\), expected int64 \(N, L\)"),
        (np.zeros((40, 2), np.int32), "are int32"),
        (np.tile([0, 3], (40, 1)), "range from 0 to 3, expected 0 to 2"),
        (np.tile([0, -1], (40, 1)), "range from -1 to 0"),
        (np.array([[0, 1]] * 7 + [[IGNORED, IGNORED]] * 33), "train example 7 has no labeled position"),
    ],
)
def test_invalid_classes_of_positions_are_rejected(targets: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        check(positions(targets))


@pytest.mark.parametrize("field", ["label_names", "target_mean", "target_scale"])
def test_declarations_of_the_wrong_length_are_rejected(field: str) -> None:
    data = make_data()
    wrong = ("a", "b") if field == "label_names" else (1.0, 2.0)
    info = msgspec.structs.replace(data.info, **{field: wrong})
    with pytest.raises(PluginError, match=f"2 {field} for 1 outputs"):
        check(PreparedData(train=data.train, validation=data.validation, test=data.test, info=info))


def test_infinite_target_scale_is_rejected() -> None:
    data = make_data()
    info = msgspec.structs.replace(data.info, target_scale=(math.inf,))
    with pytest.raises(DataError, match="the training targets are too large to standardize"):
        check(PreparedData(train=data.train, validation=data.validation, test=data.test, info=info))


def test_dataset_digest_depends_on_inputs_targets_and_splits() -> None:
    data = make_data()
    changed = with_train(targets=data.train.targets + 1)
    moved = PreparedData(train=data.train, validation=data.test, test=data.validation, info=data.info)
    assert dataset_digest(data) == dataset_digest(make_data())
    assert len({dataset_digest(d) for d in (data, changed, moved, with_train(inputs=X))}) == 4


# ---- schedule ---------------------------------------------------------------------------------------------


def rates(steps: int, **recipe: Any) -> list[float]:
    return [learning_rate(Recipe(learning_rate=2.0, **recipe), step, steps) for step in range(steps)]


def test_schedules_match_values_computed_by_hand() -> None:
    assert rates(4) == [2, 2, 2, 2]
    assert rates(4, schedule="linear") == [2, 1.5, 1, 0.5]
    assert rates(4, schedule="cosine") == pytest.approx([1 + math.cos(math.pi * step / 4) for step in range(4)])
    assert rates(5, warmup_fraction=0.6) == [0.5, 1, 1.5, 2, 2]
    assert rates(6, warmup_fraction=1 / 3, schedule="linear") == pytest.approx([2 / 3, 4 / 3, 2, 1.5, 1, 0.5])


@given(st.integers(1, 300), st.sampled_from(["constant", "linear", "cosine"]), st.floats(0, 1), st.floats(1e-6, 10))
def test_schedules_rise_then_fall_within_bounds(steps: int, schedule: Any, warmup: float, rate: float) -> None:
    recipe = Recipe(learning_rate=rate, schedule=schedule, warmup_fraction=warmup)
    drawn = np.array([learning_rate(recipe, step, steps) for step in range(steps)])
    assert (drawn > 0).all()
    assert (drawn <= rate).all()
    top = min(steps, round(warmup * steps))
    assert (np.diff(drawn[: top + 1]) > 0).all()
    assert (np.diff(drawn[top:]) <= 0).all()


# ---- training ---------------------------------------------------------------------------------------------


def trained(session: Session, spec: RunSpec, data: PreparedData | None = None) -> tuple[Training, list[Event]]:
    data, events = data or make_data(), []
    task_scorer = scorer(data.info, "rmse", [metric for metric in METRICS if metric.name == "rmse"])
    return train(session, data, spec, task_scorer, Phases(events.append), events.append), events


def test_first_step_is_timed_separately_and_others_in_windows(clock: Clock) -> None:
    session = Doubler(clock, step_s=0.125)
    result, _ = trained(session, make_spec(epochs=3, window_s=0.5))
    assert session.calls.count("train") == 30
    assert 1 + sum(steps for steps, _ in result.timed.windows) == 30 == len(result.losses)
    assert result.first_step_s == 0.125
    assert all(seconds == 0.125 * steps for steps, seconds in result.timed.windows)
    assert result.losses == [1 / step for step in range(1, 31)]


def test_device_is_synchronized_at_the_edges_of_windows_only() -> None:
    session = Doubler()
    result, _ = trained(session, make_spec(epochs=1))
    in_windows: list[int] = [0]
    for call in session.calls[: session.calls.index("predict")]:
        if call == "train":
            in_windows[-1] += 1
        elif call == "synchronize":
            in_windows.append(0)
    assert in_windows[:-1] == [1, *(steps for steps, _ in result.timed.windows)]


def test_windows_grow_to_the_target_length(clock: Clock) -> None:
    session = Doubler(clock, step_s=0.25)
    result, _ = trained(session, make_spec(epochs=1, batch_size=1, window_s=5.0), make_data(100))
    assert [steps for steps, _ in result.timed.windows] == [1, 2, 4, 8, 16, 20, 20, 20, 8]


def test_windows_shrink_when_steps_become_slower(clock: Clock) -> None:
    class Slowing(Doubler):
        def train_step(self, batch: Batch, rate: float) -> Any:
            self.step_s = 0.25 if len(self.seen) < 32 else 2.5
            return super().train_step(batch, rate)

    result, _ = trained(Slowing(clock), make_spec(epochs=1, batch_size=1, window_s=5.0), make_data(60))
    assert [steps for steps, _ in result.timed.windows] == [1, 2, 4, 8, 16, 20, 2, 2, 2, 2]


def test_windows_end_at_the_end_of_an_epoch(clock: Clock) -> None:
    result, _ = trained(Doubler(clock, step_s=0.001), make_spec(epochs=4, window_s=1000))
    assert [steps for steps, _ in result.timed.windows] == [1, 2, 4, 2, 8, 2, 10, 10]


def test_time_between_windows_is_not_counted(clock: Clock) -> None:
    """Fetching losses, validation and progress events do not count as training time."""
    result, _ = trained(Doubler(clock, step_s=0.25, predict_s=64, fetch_s=32), make_spec(epochs=2))
    assert result.first_step_s + sum(seconds for _, seconds in result.timed.windows) == 20 * 0.25
    assert [epoch.train_s for epoch in result.curves] == [2.5, 5.0]


def test_training_reports_epochs_learning_rates_and_events() -> None:
    session, spec = Doubler(), make_spec(epochs=2)
    spec = msgspec.structs.replace(spec, recipe=msgspec.structs.replace(spec.recipe, schedule="linear"))
    result, events = trained(session, spec)
    assert session.rates == [learning_rate(spec.recipe, step, 20) for step in range(20)]
    assert session.seen == order(make_data().train, 4, 0, 1) + order(make_data().train, 4, 0, 2)
    assert [epoch.step for epoch in result.curves] == [10, 20]
    assert result.curves[0].train_loss == pytest.approx(sum(1 / step for step in range(1, 11)) / 10)
    expected = {"loss": sum(n * n for n in range(7)) / 7, "rmse": math.sqrt(13)}
    assert result.curves[0].validation == pytest.approx(expected)
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.step for event in progress] == np.cumsum([1, *(steps for steps, _ in result.timed.windows)]).tolist()
    assert {(event.steps, event.epochs) for event in progress} == {(20, 2)}
    assert [event for event in events if isinstance(event, EpochEnded)] == result.curves
    assert [event.phase for event in events if isinstance(event, PhaseStarted)] == ["train", "validate"] * 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_error_for_a_non_finite_loss_names_the_step(bad: float) -> None:
    session = Doubler(losses=lambda step: bad if step == 13 else 1.0)
    with pytest.raises(
        BadResultError, match=f"the training loss became {bad} at step 13; try a lower recipe.learning_rate"
    ):
        trained(session, make_spec(epochs=3))


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
def test_invalid_predictions_are_rejected(outputs: Any, message: str) -> None:
    class Wrong(Doubler):
        def predict(self, inputs: Any) -> Any:
            return outputs

    with pytest.raises(BadResultError, match=message):
        inference.predict(Wrong(), make_split(10), 4, 1)


class Positions(Doubler):
    """Session that predicts logits of two classes for each of three positions, from the example's index."""

    def predict(self, inputs: Any) -> Any:
        return np.float32(inputs["y"])[:, None, None] + np.arange(6, dtype=np.float32).reshape(3, 2)


def test_predictions_of_positions_have_three_dimensions() -> None:
    split = Split(inputs=make_split(10).inputs, targets=np.zeros((10, 3), np.int64))
    outputs = inference.predict(Positions(), split, 4, 2)
    assert (outputs.shape, outputs.dtype) == ((10, 3, 2), np.float32)
    np.testing.assert_array_equal(outputs[9], 9 + np.arange(6).reshape(3, 2))
    with pytest.raises(BadResultError, match=r"have the shape \(4, 1\), not \(4, 3, 1\)"):
        inference.predict(Doubler(), split, 4, 1)
    assert inference.largest_error({1: outputs[4:8]}, outputs, 4) == (4, 0.0)
    assert inference.largest_error({1: outputs[4:8]}, 2 * outputs, 4)[1] == pytest.approx(0.5)


def test_example_with_a_non_finite_position_is_counted_once() -> None:
    class Infinite(Positions):
        def predict(self, inputs: Any) -> Any:
            outputs = super().predict(inputs)
            outputs[inputs["y"] == 5, 1] = np.inf
            return outputs

    split = Split(inputs=make_split(10).inputs, targets=np.zeros((10, 3), np.int64))
    with pytest.raises(BadResultError, match="1 of 10 predictions are not finite"):
        inference.predict(Infinite(), split, 4, 2)


# ---- inference --------------------------------------------------------------------------------------------


def measured(clock: Clock, predict_s: float, fetch_s: float = 0.0, **protocol: Any) -> inference.Inference:
    session = Doubler(clock, predict_s=predict_s, fetch_s=fetch_s)
    result = inference.measure(session, make_split(10), 4, Protocol(**protocol))
    timed = sum(count for count, _ in result.timed.windows) + len(result.latencies_s)
    assert session.calls.count("predict") == inference.WARMUP_BATCHES + timed
    return result


def test_number_of_latencies_is_that_of_the_protocol(clock: Clock) -> None:
    result = measured(clock, 0.25, 0.125, throughput_budget_s=2.0, latency_batches=200, latency_budget_s=1000)
    assert result.latencies_s == [0.375] * 200


@pytest.mark.parametrize(("batches", "expected"), [(50, 100), (10, 100), (3, 30)])
def test_latency_sampling_lasts_a_quarter_of_the_budget_or_ten_times_the_batches(
    batches: int, expected: int, clock: Clock
) -> None:
    result = measured(clock, 0.25, throughput_budget_s=100.0, latency_batches=batches, latency_budget_s=1000)
    assert len(result.latencies_s) == expected


def test_latency_sampling_stops_at_its_budget(clock: Clock) -> None:
    result = measured(clock, 0.25, throughput_budget_s=2.0, latency_batches=662, latency_budget_s=10)
    assert result.latencies_s == [0.25] * 40


def test_throughput_sampling_stops_when_the_protocol_is_satisfied(clock: Clock) -> None:
    demands = {"window_s": 2.0, "min_steady_windows": 8, "min_steady_s": 9.0, "latency_budget_s": 1}
    assert measured(clock, 0.25, throughput_budget_s=1000.0, **demands).timed.windows == [(8, 2.0)] * 8
    assert (
        measured(clock, 0.25, throughput_budget_s=1000.0, **demands | {"min_steady_s": 25.0}).timed.windows
        == [(8, 2.0)] * 13
    )


def test_throughput_sampling_stops_at_its_budget(clock: Clock) -> None:
    result = measured(clock, 0.25, throughput_budget_s=20.0, window_s=2.0, min_steady_windows=99, latency_budget_s=1)
    assert result.timed.windows == [(8, 2.0)] * 10
    result = measured(clock, 0.25, throughput_budget_s=4.0, window_s=50.0, latency_budget_s=1)
    assert result.timed.windows == [(4, 1.0)] * 4


def test_slow_predictions_are_timed_at_least_once(clock: Clock) -> None:
    result = measured(clock, 100.0, throughput_budget_s=1.0, latency_budget_s=1.0)
    assert result.timed.windows == [(1, 100.0)]
    assert result.latencies_s == [100.0]


# ---- memory and phases ------------------------------------------------------------------------------------

CHILD = """
import sys
from harness.measure.memory import PhaseMemory
memory = PhaseMemory()
memory.enter("before")
memory.enter("large")
block = bytearray(b"x") * (64 * 2**20)
del block
memory.enter("after")
memory.finish()
print(memory.counter, *(memory.by_phase_bytes[phase] for phase in ("before", "large", "after")), sep="\\n")
"""


def phases_of_a_child() -> tuple[str, int, int, int]:
    output = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True).stdout
    counter, *peaks = output.splitlines()
    before, large, after = map(int, peaks)
    return counter, before, large, after


def test_allocation_counts_in_its_phase_only() -> None:
    counter, before, large, after = phases_of_a_child()
    if "reset at each phase" not in counter:
        pytest.skip(f"the counter cannot be reset here: {counter}")
    assert abs(large - before - 64 * MIB) < 2 * MIB
    assert abs(after - before) < 2 * MIB


SCATTERED = """
import numpy as np
from harness.measure.memory import release_free_memory, peak_bytes, reset_peak
blocks = [np.ones(1500) for _ in range(8000)]
pins = blocks[::100]
del blocks
reset_peak()
kept = peak_bytes()
release_free_memory()
reset_peak()
print(kept - peak_bytes())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has malloc_trim")
def test_freed_memory_of_small_arrays_is_returned_to_the_system() -> None:
    """All but every hundredth of 8000 blocks of 12 kB are freed and must not count afterwards."""
    if not reset_peak():
        pytest.skip("the kernel does not permit resetting the memory peak")
    output = subprocess.run([sys.executable, "-c", SCATTERED], capture_output=True, text=True, check=True).stdout
    assert int(output) > 64 * MIB


def test_peak_of_the_parent_is_not_inherited_by_the_child() -> None:
    _, before, _, _ = phases_of_a_child()
    block = bytearray(b"x") * (300 * MIB)
    assert peak_bytes() > 300 * MIB
    _, with_large_parent, _, _ = phases_of_a_child()
    del block
    assert abs(with_large_parent - before) < 4 * MIB
    assert before < 100 * MIB


def test_phase_entered_again_keeps_its_highest_peak() -> None:
    memory = PhaseMemory()
    memory.enter("a")
    with mmap.mmap(-1, 32 * MIB) as block:  # new pages: an array could reuse memory of the process
        for start in range(0, len(block), mmap.PAGESIZE):
            block[start] = 1
    memory.enter("b")
    memory.enter("a")
    memory.finish()
    if "reset" in memory.counter:
        assert memory.by_phase_bytes["a"] > memory.by_phase_bytes["b"] + 24 * MIB
    assert set(memory.by_phase_bytes) == {"a", "b"}


def test_peaks_without_a_reset_are_recorded_as_cumulative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measure.memory.reset_peak", lambda: False)
    memory = PhaseMemory()
    memory.enter("a")
    memory.enter("b")
    memory.finish()
    assert memory.counter.endswith("cumulative")
    assert memory.by_phase_bytes["a"] <= memory.by_phase_bytes["b"]


def test_phases_add_up_durations_and_keep_the_failed_phase() -> None:
    events: list[Event] = []
    phases = Phases(events.append)
    for _ in range(2):
        with phases("work"):
            time.sleep(0.01)
    assert 0.02 <= phases.seconds["work"] < 1
    with pytest.raises(ZeroDivisionError), phases("broken"):
        1 / 0  # noqa: B018
    assert phases.current == "broken"
    assert events == [PhaseStarted(phase=phase) for phase in ("work", "work", "broken")]


# ---- environment ------------------------------------------------------------------------------------------


def test_environment_describes_this_machine() -> None:
    described = environment.collect(["hypothesis", "no-such-distribution"])
    assert described.cores >= 1
    assert described.memory_bytes > 100 * MIB
    assert described.python.endswith(".".join(map(str, sys.version_info[:3])))
    assert {"harness", "numpy", "hypothesis"} <= set(described.packages)
    assert "no-such-distribution" not in described.packages
    assert all([described.os, described.kernel, described.cpu])
    assert msgspec.json.decode(msgspec.json.encode(described), type=type(described)) == described


def test_gpus_are_read_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    output = "NVIDIA H200, 143771, 570.1\nGPU with, a comma, [N/A], 570.1\n"
    monkeypatch.setattr(environment, "_output", lambda command: output)
    assert [(gpu.name, gpu.memory_bytes, gpu.driver) for gpu in environment.gpus()] == [
        ("NVIDIA H200", 143771 * MIB, "570.1"),
        ("GPU with, a comma", 0, "570.1"),
    ]
    for broken in (None, "", "No devices were found\n"):
        monkeypatch.setattr(environment, "_output", lambda command, output=broken: output)
        assert environment.gpus() == []


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=6))
def test_phases_list_every_phase_once(names: list[str]) -> None:
    phases = Phases(lambda event: None)
    for name in names:
        with phases(name):
            pass
    assert list(phases.seconds) == list(dict.fromkeys(names))
    assert set(phases.memory.by_phase_bytes) == set(names)


# ---- steps after the recipe -------------------------------------------------------------------------------


def test_sampling_continues_until_the_protocol_is_satisfied(clock: Clock) -> None:
    session = Doubler(clock, step_s=0.25)
    spec = make_spec(epochs=1, window_s=1.0, min_steady_windows=6, min_steady_s=5.0, throughput_budget_s=1000)
    result, _ = trained(session, spec)
    assert not result.is_enough()
    losses, rates = list(result.losses), session.rates
    result.sample()
    assert result.is_enough()
    assert result.losses == losses == [1 / step for step in range(1, 11)]
    assert {*rates[10:]} == {learning_rate(spec.recipe, 9, 10)}
    sampled = result.timed.windows[result.recipe_windows :]
    assert sampled
    assert all(seconds == 0.25 * steps for steps, seconds in sampled)


def test_sampling_stops_at_its_budget(clock: Clock) -> None:
    session = Doubler(clock, step_s=0.25)
    result, _ = trained(session, make_spec(epochs=1, window_s=1.0, min_steady_windows=999, throughput_budget_s=10.0))
    before = clock.now
    result.sample()
    assert 10.0 <= clock.now - before < 12.5
    assert not result.is_enough()


def test_recipe_of_one_step_is_followed_by_timed_steps(clock: Clock) -> None:
    result, _ = trained(Doubler(clock, step_s=1.0), make_spec(epochs=1, batch_size=40))
    assert (result.first_step_s, result.timed.windows) == (1.0, [])
    result.sample()
    assert result.timed.windows


def test_timed_predictions_are_kept_and_compared(clock: Clock) -> None:
    split = make_split(10)
    result = inference.measure(
        Doubler(clock, predict_s=0.25), split, 4, Protocol(throughput_budget_s=4.0, latency_budget_s=1.0)
    )
    assert sorted(result.kept) == [0, 1, 2]
    right = 2 * split.inputs["x"]
    assert inference.largest_error(result.kept, right, 4) == (10, 0.0)
    wrong = right.copy()
    wrong[9] += 1  # in the last batch, which is padded
    examples, error = inference.largest_error(result.kept, wrong, 4)
    assert examples == 10
    assert error == pytest.approx(1 / np.linalg.norm(wrong[8:]))
    assert inference.largest_error({0: np.full((4, 1), np.nan)}, right, 4)[1] == math.inf


# ---- child processes --------------------------------------------------------------------------------------

TREE = """
import subprocess, sys
from harness.measure.memory import PhaseMemory
memory = PhaseMemory()
memory.enter("alone")
memory.enter("together")
child = subprocess.Popen(
    [sys.executable, "-c", "block = b'x' * (64 * 2**20); print(flush=True); input()"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)
child.stdout.readline()
memory.enter("afterwards")
child.communicate(b"\\n")
memory.enter("end")
memory.finish()
print(*(memory.by_phase_bytes["together"], memory.tree_by_phase_bytes["together"]), sep="\\n")
print(sorted(memory.tree_by_phase_bytes))
"""


def test_memory_of_child_processes_is_recorded_separately() -> None:
    output = subprocess.run([sys.executable, "-c", TREE], capture_output=True, text=True, check=True).stdout
    own, tree, phases = output.splitlines()
    bare = subprocess.run(
        [sys.executable, "-c", "from harness.measure.memory import peak_bytes; print(peak_bytes())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert int(tree) - int(own) > 64 * MIB
    assert int(tree) - int(own) < 64 * MIB + int(bare)
    assert phases == "['together']"
