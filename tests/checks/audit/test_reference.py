"""Tests that the audits of the reference results, which include records of schema version 1, find no problems."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.checks.audit.from_record import on_record
from harness.checks.parity.verdict import load as load_verdicts
from harness.plugins import discover, load
from harness.records.store import ARRAYS, Store, StoredRun

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
NO_SAMPLES = "cannot be checked without the raw samples (arrays.npz)"


def some_runs(group: str) -> list[StoredRun]:
    """Return one run of each dataset, model and backend."""
    runs = Store(REFERENCE / group).load().runs
    specs = [run.record.spec for run in runs]
    return list({(s.dataset, s.model, s.backend): run for s, run in zip(specs, runs, strict=True)}.values())


@pytest.mark.plugins("nlp", "vision", "speech", "regression", "torch", "tensorflow", "baselines")
@pytest.mark.parametrize("group", ["defaults", "demo", "lstm", "uci", "published"])
def test_audit_of_reference_results_finds_nothing(group: str) -> None:
    catalog, verdicts = discover(), load_verdicts(REFERENCE / group)
    runs = some_runs(group)
    assert runs
    for run in runs:
        findings = list(on_record(run, [], verdicts, catalog))
        assert [finding for finding in findings if finding.passed is False] == []
        lacking = [finding.check for finding in findings if finding.detail == NO_SAMPLES]
        assert bool(lacking) != (run.path / ARRAYS).exists()


@pytest.mark.parametrize("group", ["defaults", "demo", "lstm", "published"])
def test_audit_without_plugins_finds_nothing(group: str) -> None:
    """A check that needs a plugin is not performed, and the others follow from the record alone."""
    for run in some_runs(group):
        findings = list(on_record(run, [], load_verdicts(REFERENCE / group), load([])))
        assert [finding for finding in findings if finding.passed is False] == [], run.path
