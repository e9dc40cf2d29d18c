"""Tests of records with values that no run can have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sample_records import record, success

from harness.errors import RecordError
from harness.records.store import decode_record


def outcome_of(plain: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = plain["outcome"]
    return found


def a_slice(plain: dict[str, Any]) -> dict[str, Any]:
    """Return the slice of a record, with counts that are possible."""
    found: dict[str, Any] = outcome_of(plain)["scores"]["slices"][0]
    found.update(class_support=[40, 40], class_predicted=[42, 38], class_correct=[32, 30])
    return found


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "a large number": lambda plain: outcome_of(plain)["speed"].update(train_samples_per_s=1e300),
    "a tiny number": lambda plain: outcome_of(plain)["scores"]["test"].update(accuracy=1e-310),
    "a large negative number": lambda plain: plain.update(wall_s=-1e200),
    "a matrix that is not square": lambda plain: outcome_of(plain)["scores"].update(confusion=[[1, 2, 3], [4, 5, 6]]),
    "a ragged matrix": lambda plain: outcome_of(plain)["scores"].update(confusion=[[1, 2], [3]]),
    "negative counts": lambda plain: outcome_of(plain)["scores"].update(confusion=[[-1]]),
    "counts of a slice that do not add up": lambda plain: a_slice(plain).update(class_predicted=[30, 49]),
    "counts of a slice for too few classes": lambda plain: a_slice(plain).update(class_correct=[30]),
    "counts of a slice for too many classes": lambda plain: a_slice(plain).update(
        class_support=[40, 40, 0], class_predicted=[42, 38, 0], class_correct=[32, 30, 0]
    ),
    "a slice with more hits than examples": lambda plain: a_slice(plain).update(class_correct=[41, 30]),
    "a slice with too many misses": lambda plain: a_slice(plain).update(class_correct=[0, 0], class_predicted=[80, 0]),
    "negative examples": lambda plain: outcome_of(plain)["examples"].update(train=-1),
    "negative windows": lambda plain: outcome_of(plain)["speed"]["inference"].update(warmup_windows=-1),
    "no devices": lambda plain: plain["spec"].update(devices=0),
    "too many outputs": lambda plain: plain["provenance"].update(data=data(outputs=2**60)),
    "no outputs": lambda plain: plain["provenance"].update(data=data(outputs=0)),
    "too few names": lambda plain: plain["provenance"].update(data=data(outputs=3, label_names=["a"])),
    "counts without splits": lambda plain: plain["provenance"].update(data=data(counts="tokens")),
    "counts without a test split": lambda plain: plain["provenance"].update(
        data=data(counts="tokens", splits={"train": {"examples": 1}})
    ),
    "counts in a split without examples": lambda plain: plain["provenance"].update(
        data=data(counts="tokens", splits={"train": {"examples": 1}, "test": {"examples": 0, "counted": 5.0}})
    ),
    "a split with a negative size": lambda plain: plain["provenance"].update(
        data=data(splits={"train": {"examples": -1}})
    ),
    "a split with a negative count": lambda plain: plain["provenance"].update(
        data=data(splits={"train": {"examples": 1, "counted": -1.0}})
    ),
    "a split with a large count": lambda plain: plain["provenance"].update(
        data=data(splits={"train": {"examples": 1, "counted": 1e300}})
    ),
    "an input without an end": lambda plain: plain["provenance"].update(
        data=data(inputs={"x": {"shape": [2**40, 2**40], "dtype": "float32"}})
    ),
}


def data(**changes: Any) -> dict[str, Any]:
    return {"kind": "text", "inputs": {}, "objective": "regression", "outputs": 1} | changes


def test_decode_record_with_counts_of_a_slice_is_accepted() -> None:
    plain = msgspec.json.decode(msgspec.json.encode(record(success())))
    a_slice(plain)
    decode_record(msgspec.json.encode(plain), Path("record.json"))


@pytest.mark.parametrize("wrong", WRONG)
def test_decode_record_with_impossible_value_raises(wrong: str) -> None:
    plain = msgspec.json.decode(msgspec.json.encode(record(success())))
    decode_record(msgspec.json.encode(plain), Path("record.json"))
    WRONG[wrong](plain)
    with pytest.raises(RecordError, match=r"record\.json: not a valid record: "):
        decode_record(msgspec.json.encode(plain), Path("record.json"))
