"""Checks that use only the record, its raw samples and the other runs in its results directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.checks.audit import identity, memory, quality, related, siblings, speed, training
from harness.checks.audit.check import Check, Subject
from harness.checks.audit.finding import Finding
from harness.checks.parity.verdict import ParityVerdict
from harness.plugins.catalog import Catalog
from harness.records.store import StoredRun

CHECKS: tuple[Check, ...] = (
    *identity.CHECKS,
    *training.CHECKS,
    *speed.CHECKS,
    *quality.CHECKS,
    *memory.CHECKS,
    *related.CHECKS,
    *siblings.CHECKS,
)


def on_record(
    run: StoredRun, others: Sequence[StoredRun], verdicts: Mapping[str, ParityVerdict], catalog: Catalog
) -> Iterator[Finding]:
    """Yield the findings for a successful run. `others` and `verdicts` contain the other runs and the parity verdicts
    in the results directory of the run."""
    subject = Subject(run, catalog, others, verdicts)
    for check in CHECKS:
        yield check.finding(subject)
