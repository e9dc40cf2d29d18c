"""Tests that an audit notices a change of any field of a record, unless the field is listed as uncheckable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from audited_runs import completed, grouped_catalog, make, served, with_other_models
from record_changes import changes
from toy_plugin import install_toy

from harness.checks.audit import from_record, replay
from harness.checks.audit.check import Check, Subject, is_part_of
from harness.checks.audit.fields import UNCHECKABLE, is_listed, record_fields
from harness.checks.audit.finding import Finding
from harness.checks.parity.verdict import load as load_verdicts
from harness.errors import RecordError
from harness.execute.variables import thread_environment
from harness.plugins.catalog import Catalog
from harness.records import RunRecord
from harness.records.store import StoredRun, decode_record


class Audited(NamedTuple):
    """A run, and a function that performs checks on a changed copy of its record."""

    run: StoredRun
    catalog: Catalog
    repeated: replay.Replay | None
    """None if the run cannot be repeated."""

    def findings(self, record: RunRecord, checks: list[Check]) -> Iterator[Finding]:
        subject = Subject(StoredRun(self.run.path, record), self.catalog, verdicts=load_verdicts(self.run.path.parent))
        for check in checks:
            yield check.finding(subject, self.repeated) if check in replay.CHECKS else check.finding(subject)

    def checks(self, path: str) -> list[Check]:
        """Return the checks of the field and of all fields that it contains, except for those that measure time."""
        known = [*from_record.CHECKS, *(replay.CHECKS[:-1] if self.repeated else ())]
        return [check for check in known if check.covers(path) or any(is_part_of(name, path) for name in check.fields)]

    def can_judge(self, path: str) -> bool:
        """Return whether all checks of a field can be performed."""
        return self.repeated is not None or not any(check.covers(path) for check in replay.CHECKS)


class Outcome(NamedTuple):
    """Result of changing every field of every example."""

    seen: set[str]
    """Paths that were changed."""
    readable: set[str]
    """Paths of which at least one change gave a valid record."""
    unnoticed: list[tuple[str, str, str]]
    """Run, path and kind of each change that no check noticed."""


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Audited]]:
    """Yield a classification with groups, a regression with a closed form, a quality-only run, a run with every
    optional field, a run with trained weights, and copies that refer to a teacher and to an exported model."""
    folder = tmp_path_factory.mktemp("audited")
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        for name, value in thread_environment(1).items():  # as in the child process of a replay
            patch.setenv(name, value)
        catalog = grouped_catalog(folder)
        classes = make("toy-grouped", catalog, folder / "results", ["protocol.target=0.6"])
        numbers = make("toy-regress", catalog, folder / "results")
        quality = make("toy-regress", catalog, folder / "quality", quality_only=True)
        optional = completed(classes)
        inference = served(classes, catalog)
        with (
            replay.opened(classes.record, catalog.refs_for(classes.record.spec)) as one,
            replay.opened(numbers.record, catalog.refs_for(numbers.record.spec)) as other,
            replay.opened(inference.record, catalog.refs_for(inference.record.spec)) as third,
        ):
            yield [
                Audited(classes, catalog, one),
                Audited(numbers, catalog, other),
                Audited(quality, catalog, None),
                Audited(optional, catalog, None),
                Audited(inference, catalog, third),
                Audited(with_other_models(classes), catalog, None),
                Audited(with_other_models(inference), catalog, None),
            ]


@pytest.fixture(scope="module")
def outcome(audited: list[Audited]) -> Outcome:
    seen: set[str] = set()
    readable: set[str] = set()
    unnoticed = []
    for one in audited:
        original = msgspec.json.decode(msgspec.json.encode(one.run.record))
        for change in changes(original):
            if not one.can_judge(change.path):
                continue
            seen.add(change.path)
            try:
                record = decode_record(msgspec.json.encode(change.record), Path("record.json"))
            except RecordError:
                continue  # the record cannot be read
            if record == one.run.record:
                continue
            readable.add(change.path)
            checks = one.checks(change.path)
            if not any(finding.passed is False for finding in one.findings(record, checks)):
                unnoticed.append((one.run.record.run_id, change.path, change.kind))
    return Outcome(seen, readable, unnoticed)


def test_audit_of_unchanged_runs_finds_nothing(audited: list[Audited]) -> None:
    for one in audited:
        checks = [*from_record.CHECKS, *(replay.CHECKS[:-1] if one.repeated else ())]
        failed = [finding for finding in one.findings(one.run.record, checks) if finding.passed is False]
        assert failed == []


def test_audit_changed_field_is_noticed_or_listed(outcome: Outcome) -> None:
    missed = [entry for entry in outcome.unnoticed if not any(is_listed(entry[1], name) for name in UNCHECKABLE)]
    assert missed == []


@pytest.mark.parametrize("entry", UNCHECKABLE)
def test_audit_listed_field_has_an_unnoticed_change(entry: str, outcome: Outcome) -> None:
    """If an entry fails here, an audit notices every change of the field: remove it from the list."""
    missed = {path for _, path, _ in outcome.unnoticed}
    listed = {path for path in outcome.readable if is_listed(path, entry)}
    assert listed
    assert listed <= missed


def test_audit_every_field_was_changed(outcome: Outcome) -> None:
    structs = {path for path, kind in record_fields().items() if isinstance(kind, msgspec.inspect.StructType)}
    assert set(record_fields()) - structs <= outcome.seen


def test_audit_fields_of_checks_exist() -> None:
    named = {name for check in (*from_record.CHECKS, *replay.CHECKS) for name in check.fields}
    entries = {name.removesuffix(".*") for name in UNCHECKABLE}
    assert named | entries <= set(record_fields())


def test_audit_every_field_is_covered_or_listed() -> None:
    checks = (*from_record.CHECKS, *replay.CHECKS)
    uncovered = [
        path
        for path, kind in record_fields().items()
        if not isinstance(kind, msgspec.inspect.StructType)
        and not any(check.covers(path) for check in checks)
        and not any(is_listed(path, entry) for entry in UNCHECKABLE)
    ]
    assert uncovered == ["schema_version"]
