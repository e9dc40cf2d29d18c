"""The class `Check` for the checks in an audit, and the class `Subject` for the audited run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from harness.checks.audit.finding import Finding
from harness.checks.parity.verdict import ParityVerdict
from harness.errors import HarnessError, RecordError
from harness.plugins.catalog import Catalog
from harness.records import SCHEMA_VERSION, Evidence, RunRecord, RunSpec, Success
from harness.records.arrays import read_arrays
from harness.records.reading import MAX_JSON_BYTES, read_stored
from harness.records.spec import key_of
from harness.records.store import ARRAYS, RECORD, StoredRun

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

NO_SAMPLES = "cannot be checked without the raw samples (arrays.npz)"


class NotCheckedError(Exception):
    """Raised when a check cannot be performed. The message gives the reason."""


class Result(NamedTuple):
    """Result of a completed check."""

    problems: Sequence[str]
    """Descriptions of the problems. The sequence is empty if the check passed."""
    detail: str
    """Observed values, which are shown if there are no problems."""


@dataclass(frozen=True)
class Subject:
    """A successful run, and the data against which its record is checked."""

    run: StoredRun
    catalog: Catalog
    others: Sequence[StoredRun] = ()
    """Other runs in the results directory of the audited run."""
    verdicts: Mapping[str, ParityVerdict] = field(default_factory=dict)
    """Parity verdicts in the results directory of the audited run, by key."""

    @property
    def record(self) -> RunRecord:
        return self.run.record

    @property
    def spec(self) -> RunSpec:
        return self.run.record.spec

    @property
    def outcome(self) -> Success:
        outcome = self.run.record.outcome
        assert isinstance(outcome, Success)
        return outcome

    @cached_property
    def arrays(self) -> Arrays | None:
        """The raw samples, or None if their file is missing. Raises `harness.RecordError` if the file cannot be
        read."""
        path = self.run.path / ARRAYS
        return read_arrays(path) if path.exists() else None

    @property
    def samples(self) -> Arrays:
        """The raw samples. Raises `NotCheckedError` if the file is missing."""
        if self.arrays is None:
            raise NotCheckedError(NO_SAMPLES)
        return self.arrays

    def scored(self, split: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the stored targets and outputs of the ``test`` or ``validation`` split.

        Raises `NotCheckedError` if they were not stored.
        """
        self.require_outputs()
        arrays = self.samples
        return arrays[f"{split}_targets"], arrays[f"{split}_outputs"]

    def require_outputs(self) -> None:
        """Raise `NotCheckedError` if the raw samples are missing or do not contain the outputs of the model."""
        if self.arrays is None:
            raise NotCheckedError(NO_SAMPLES)
        if self.outcome.scores.streamed:
            raise NotCheckedError("the outputs were not stored, because the metrics were computed batch by batch")

    def require_training(self) -> None:
        """Raise `NotCheckedError` if the run loaded trained weights instead of training a model."""
        if self.spec.weights is not None:
            raise NotCheckedError("the run loaded trained weights instead of training a model")

    @property
    def evidence(self) -> Evidence:
        """The measurements for audits.

        Raises `NotCheckedError` if the measurements are missing from a record of version 1, and `ValueError` if they
        are missing from any other record.
        """
        evidence = self.outcome.evidence
        if evidence is None and self.migrated_from == 1:
            raise NotCheckedError("the record was written by an older version, which did not record these measurements")
        if evidence is None:
            raise ValueError("the record lacks outcome.evidence")
        return evidence

    @cached_property
    def migrated_from(self) -> int | None:
        """Schema version of the file. None unless the record was migrated from an older version."""
        version = self._stored.get("schema_version")
        return version if isinstance(version, int) and version < SCHEMA_VERSION else None

    @property
    def is_old(self) -> bool:
        """True if the record was written by an older version of harness that did not store the training method and the
        metric definitions."""
        outcome = self.outcome
        if self.spec.weights is not None:
            return False
        return outcome.speed.by_steps is None and not outcome.scores.metrics and not outcome.scores.per_target

    @property
    def spec_key(self) -> str:
        """Key computed from the spec. For a migrated record, the key is computed from the original spec in the file."""
        return self.spec.key if self.migrated_from is None else key_of(self._stored["spec"])

    @cached_property
    def _stored(self) -> dict[str, Any]:
        try:
            values: dict[str, Any] = msgspec.json.decode(read_stored(self.run.path / RECORD, MAX_JSON_BYTES))
        except (OSError, ValueError, RecordError):
            return {}
        return values


@dataclass(frozen=True)
class Check:
    """A check in an audit."""

    name: str
    """Name of the check, which is the statement that the check verifies."""
    fields: tuple[str, ...]
    """Fields of the record that the check verifies, such as ``outcome.curves[].step``.

    The path of a field also refers to all fields nested in it. ``[]`` denotes any item of a list or dictionary.
    """
    function: Callable[..., Result]
    """Function that performs the check on a `Subject`. If the check requires parts of the run to be repeated, a
    `Replay` is also passed to the function."""

    def finding(self, *arguments: Any) -> Finding:
        """Perform the check.

        If inconsistent values cause an exception, the check fails.
        """
        passed: bool | None
        try:
            problems, detail = self.function(*arguments)
            passed = not problems
            detail = "; ".join(problems) or detail
        except NotCheckedError as error:
            passed, detail = None, str(error)
        except HarnessError as error:
            passed, detail = None, f"cannot be computed here: {error}"
        except Exception as error:
            passed, detail = False, f"the values are inconsistent: {type(error).__name__}: {error}"
        return Finding(check=self.name, passed=passed, detail=detail, fields=self.fields)

    def covers(self, path: str) -> bool:
        """Return True if the check compares the field `path`."""
        return any(is_part_of(path, name) for name in self.fields)


def is_part_of(path: str, name: str) -> bool:
    """Return True if the field `path` is the field `name` or is contained in it."""
    return path == name or (path.startswith(name) and path[len(name)] in ".[")
