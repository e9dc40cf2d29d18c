"""Tests that audits compare the data of older records only as far as these contain them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import sample_records

from harness.checks.audit.check import Subject
from harness.checks.audit.replay import as_recorded
from harness.checks.parity.verdict import subject as subject_of
from harness.plugins import load
from harness.records import DataInfo, Evidence, SplitInfo
from harness.records.store import StoredRun

replace = msgspec.structs.replace
EVIDENCE = Evidence(timed_examples=1, timed_error=0.0, evaluated_weights_digest="", clock_s=1.0, wall_s=1.0)
BASE = sample_records.record().provenance.data
assert BASE is not None
RECOMPUTED = replace(
    BASE,
    details={"vocab_size": 10, "unknown_share_test": 0.5},
    warnings=("known", "new"),
    splits={"train": SplitInfo(examples=3)},
)


def compared(tmp_path: Path, recorded: DataInfo, evidence: Evidence | None) -> DataInfo:
    record = sample_records.record(replace(sample_records.success(), evidence=evidence))
    record = replace(record, provenance=replace(record.provenance, data=recorded))
    return as_recorded(RECOMPUTED, Subject(StoredRun(tmp_path, record), load([]), verdicts={}))


@pytest.mark.parametrize("evidence", [None, EVIDENCE])
def test_facts_that_an_older_record_lacks_are_not_compared(tmp_path: Path, evidence: Evidence | None) -> None:
    old = replace(BASE, details={"vocab_size": 11}, warnings=("known",))
    assert compared(tmp_path, old, evidence) == replace(
        RECOMPUTED, details={"vocab_size": 10}, warnings=("known",), splits={}
    )


@pytest.mark.parametrize(
    ("recorded", "evidence"),
    [
        ({"splits": {"train": SplitInfo(examples=4)}}, None),
        ({"splits": {"train": SplitInfo(examples=4)}}, EVIDENCE),
        ({}, replace(EVIDENCE, arrays_digest="a" * 64)),  # a record of this version whose facts were deleted
    ],
)
def test_facts_of_a_recent_record_are_all_compared(
    tmp_path: Path, recorded: dict[str, Any], evidence: Evidence | None
) -> None:
    assert compared(tmp_path, replace(BASE, **recorded), evidence) == RECOMPUTED


def test_verdicts_do_not_depend_on_facts_about_the_splits() -> None:
    spec = sample_records.spec()
    described = replace(BASE, warnings=("a",), splits={"train": SplitInfo(examples=3)})
    assert subject_of(spec, described) == subject_of(spec, BASE)
    assert subject_of(spec, replace(BASE, outputs=7)) != subject_of(spec, BASE)
