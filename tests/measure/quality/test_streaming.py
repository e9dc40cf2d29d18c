"""Tests of streaming metrics: values, slices, intervals and errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from harness.errors import BadResultError, PluginError
from harness.interfaces import Metric
from harness.measure.quality.intervals import of_mean
from harness.measure.quality.scorer import NOT_HELD, Scorer, scorer
from harness.records import DataInfo

INFO = DataInfo(kind="points", inputs={}, objective="classification", outputs=3)
RNG = np.random.default_rng(0)
TARGETS = RNG.integers(0, 3, 50)
OUTPUTS = RNG.normal(size=(50, 3)).astype(np.float32) + np.eye(3, dtype=np.float32)[TARGETS]
GROUPS = {"half": np.where(np.arange(50) < 25, "first", "second"), "parity": np.arange(50) % 2}


def hits(targets: Any, outputs: Any, info: DataInfo) -> Any:
    return outputs.argmax(axis=1) == targets


class Rate:
    def __init__(self, info: DataInfo) -> None:
        self.info, self.right, self.count = info, 0, 0

    def update(self, targets: Any, outputs: Any) -> None:
        self.right += int(hits(targets, outputs, self.info).sum())
        self.count += len(targets)

    def compute(self) -> float | None:
        return self.right / self.count


class Scaling(Rate):
    def update(self, targets: Any, outputs: Any) -> None:
        outputs *= 2


class Noting(Rate):
    def update(self, targets: Any, outputs: Any) -> None:
        self.info.details["examples"] = len(targets)
        super().update(targets, outputs)


class Unbounded(Rate):
    def compute(self) -> float | None:
        return 2.0


class Undefined(Rate):
    def compute(self) -> float | None:
        return None


def judge(function: str, *, per_example: str = "") -> Scorer:
    metric = Metric(
        name="own",
        objective="classification",
        function=f"{__name__}:{function}",
        per_example=per_example and f"{__name__}:{per_example}",
        higher_is_better=True,
        summary="a plugin's metric",
        bounds=(0.0, 1.0),
        streaming=True,
    )
    return scorer(msgspec.structs.replace(INFO, details={}), "own", [metric])


def batches(size: int = 16) -> Iterator[Any]:
    for start in range(0, len(OUTPUTS), size):
        yield OUTPUTS[start : start + size]


def test_scores_of_batches_equal_those_of_the_whole_split() -> None:
    rater = judge("Rate", per_example="hits")
    found = rater.scores(*[rater.streamed(TARGETS, batches(), GROUPS)] * 2, None, {})
    whole = rater.scores(*[(TARGETS, OUTPUTS)] * 2, None, GROUPS)
    assert (found.test, found.validation) == (whole.test, whole.validation)
    uncounted: dict[str, Any] = {"class_support": [], "class_predicted": [], "class_correct": []}
    assert found.slices == [msgspec.structs.replace(one, **uncounted) for one in whole.slices]
    assert (
        found.intervals == whole.intervals == {"own": of_mean(hits(TARGETS, OUTPUTS, INFO).astype(float), (0.0, 1.0))}
    )
    assert (found.streamed, whole.streamed) == (True, False)
    assert (found.per_class, found.confusion) == ([], [])


def test_quick_scores_of_batches_equal_those_of_the_whole_split() -> None:
    rater = judge("Rate")
    assert rater.quick_streamed(TARGETS, batches()) == pytest.approx(rater.quick(TARGETS, OUTPUTS), rel=1e-12)


def test_metric_without_values_per_example_has_no_interval() -> None:
    rater = judge("Rate")
    found = rater.scores(*[rater.streamed(TARGETS, batches(), {})] * 2, None, {})
    assert (found.intervals, found.no_interval) == ({}, {"own": NOT_HELD})


def test_only_one_batch_of_outputs_is_held() -> None:
    import gc
    import weakref

    alive: list[Any] = []

    def fresh() -> Iterator[Any]:
        for outputs in batches(10):
            gc.collect()
            assert sum(each() is not None for each in alive) <= 1
            copy = outputs.copy()
            alive.append(weakref.ref(copy))
            yield copy

    judge("Rate", per_example="hits").streamed(TARGETS, fresh(), GROUPS)
    assert len(alive) == 5


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("Scaling", PluginError, "the metric 'own' failed: .*read-only.*copy the arrays before changing them"),
        ("Noting", PluginError, "the metric 'own' changed the description of the data"),
        ("Unbounded", BadResultError, "the metric 'own' is 2, outside its declared bounds 0 to 1"),
        ("hits", PluginError, "the metric 'own' failed"),
    ],
)
def test_streamed_metric_that_fails_is_named(function: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        judge(function).streamed(TARGETS, batches(), {})


def test_undefined_primary_metric_is_an_error() -> None:
    rater = judge("Undefined")
    with pytest.raises(BadResultError, match="'own' returned None for the test split"):
        rater.scores(*[rater.streamed(TARGETS, batches(), {})] * 2, None, {})


def test_one_metric_that_needs_all_outputs_prevents_streaming() -> None:
    accuracy = Metric(
        name="accuracy",
        objective="classification",
        function="harness.measure.quality.metrics:accuracy",
        higher_is_better=True,
        summary="",
    )
    own = Metric(
        name="own",
        objective="classification",
        function=f"{__name__}:Rate",
        higher_is_better=True,
        summary="",
        streaming=True,
    )
    both = scorer(INFO, "own", [own, accuracy])
    assert (judge("Rate").streams, both.streams) == (True, False)
    assert both.score(TARGETS, OUTPUTS)["own"] == both.score(TARGETS, OUTPUTS)["accuracy"]
