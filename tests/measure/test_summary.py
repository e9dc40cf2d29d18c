"""Tests of the values that a record contains."""

from __future__ import annotations

import pytest

from harness.measure.summary import time_to_target
from harness.records import EpochEnded


def epoch(number: int, score: float | None) -> EpochEnded:
    return EpochEnded(
        epoch=number, epochs=9, step=number, train_s=2.0 * number, train_loss=1.0, validation={"m": score}
    )


@pytest.mark.parametrize(
    ("scores", "higher", "expected"),
    [
        ([0.1, 0.6, 0.4, 0.7], True, (4.0, 2)),
        ([9.0, 5.0, 0.5, 0.1], False, (6.0, 3)),
        ([0.5], True, (2.0, 1)),
        ([0.1, None, 0.2], True, (None, None)),
    ],
)
def test_time_to_target_is_that_of_the_first_epoch_that_reaches_it(
    scores: list[float | None], higher: bool, expected: tuple[float | None, int | None]
) -> None:
    curves = [epoch(number, score) for number, score in enumerate(scores, 1)]
    result = time_to_target(curves, "m", 0.5, higher_is_better=higher)
    assert (result.train_s, result.epoch) == expected
    assert (result.metric, result.target) == ("m", 0.5)
