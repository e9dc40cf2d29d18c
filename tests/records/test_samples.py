"""Tests of the conversion of raw samples."""

from __future__ import annotations

import msgspec
import numpy as np
from sample_records import record, success

from harness.records.samples import train_windows


def test_train_windows_of_version_1_exclude_the_first_step() -> None:
    """Records of schema version 1 have no windows after the recipe's steps."""
    outcome = success()
    assert outcome.speed.train
    steady = msgspec.structs.replace(outcome.speed.train, warmup_windows=2)
    speed = msgspec.structs.replace(outcome.speed, train=steady)
    made = record(msgspec.structs.replace(outcome, speed=speed))
    arrays = {"train_window_steps": np.array([1, 1, 2, 4, 4]), "train_window_s": np.array([9.0, 1.0, 2.0, 4.0, 4.0])}
    windows = train_windows(made, arrays)
    assert windows is not None
    assert windows.seconds.tolist() == [1.0, 2.0, 4.0, 4.0]
    assert windows.steady_from == 2
