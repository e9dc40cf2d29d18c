"""Tests of parity results in rows of the table."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sample_records import failure, record

from harness.checks.parity.marks import marks
from harness.checks.parity.verdict import subject
from harness.records import ParityMark, RunRecord, TrainedWeights
from harness.records.spec import ExportedModel


def checked(devices: int, batch_norm: str = "") -> RunRecord:
    mark = ParityMark(backend="tensorflow", passed=True, error=1e-7, verdict="a" * 64, partly="")
    made = record(devices=devices)
    notes = {"batch_norm": batch_norm} if batch_norm else {}
    return msgspec.structs.replace(
        made, parity=[mark], provenance=msgspec.structs.replace(made.provenance, notes=notes)
    )


@pytest.mark.parametrize(
    ("devices", "batch_norm", "state"), [(1, "", "same"), (2, "", "same"), (2, "local", "partly checked")]
)
def test_result_on_one_device_is_partial_for_local_batch_norm(devices: int, batch_norm: str, state: str) -> None:
    assert [mark.state for mark in marks([checked(devices, batch_norm)], [])] == [state]


def test_subject_does_not_depend_on_the_number_of_devices() -> None:
    one, two = checked(1), checked(2)
    assert one.provenance.data
    assert subject(one.spec, one.provenance.data) == subject(two.spec, one.provenance.data)


MARK = ParityMark(backend="tensorflow", passed=True, error=5e-7, verdict="a" * 64, partly="")
TRAINED = TrainedWeights(run="a", backend="torch", digest="b" * 64, dataset_digest="d" * 64, path="")


def of_backend(backend: str, *, checked: bool = True, **changes: Any) -> RunRecord:
    return msgspec.structs.replace(record(backend=backend, **changes), parity=[MARK] if checked else [])


@pytest.mark.parametrize(
    "other",
    [
        record(failure(), backend="onnxruntime"),
        record(
            backend="onnxruntime", weights=msgspec.structs.replace(TRAINED, exported=ExportedModel(exporter="torch"))
        ),
        record(backend="jax"),
    ],
    ids=["failed", "exported model", "other backend"],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_row_that_was_not_checked_does_not_hide_the_results_of_the_others(other: RunRecord, place: int) -> None:
    rivals = [of_backend("torch"), of_backend("tensorflow")]
    rivals.insert(place, other)
    if place == 0 and other.spec.backend == "jax":
        assert [mark.state for mark in marks(rivals, [])] == ["unchecked"] * 3  # the base was not checked
        return
    expected = ["same", "same"]
    expected.insert(place, "unchecked")
    assert [mark.state for mark in marks(rivals, [])] == expected


def test_row_with_weights_of_a_run_has_the_mark_of_its_backend() -> None:
    rivals = [of_backend("torch"), of_backend("tensorflow"), of_backend("torch", checked=False, weights=TRAINED)]
    assert [str(mark) for mark in marks(rivals, [])] == ["same (5e-07)"] * 3


def test_difference_is_shown_in_the_row_of_the_base() -> None:
    differing = msgspec.structs.replace(of_backend("tensorflow"), parity=[msgspec.structs.replace(MARK, passed=False)])
    assert [mark.state for mark in marks([of_backend("torch"), record(backend="jax"), differing], [])] == [
        "differs",
        "unchecked",
        "differs",
    ]
