"""Tests of parity results in rows of the table."""

from __future__ import annotations

import msgspec
import pytest
from sample_records import record

from harness.checks.parity.marks import marks
from harness.checks.parity.verdict import subject
from harness.records import ParityMark, RunRecord


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
