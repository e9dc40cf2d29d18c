"""What a parity check found: its record, what it is bound to, and where it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from harness.checks.parity.report import ParityReport
from harness.errors import RecordError
from harness.records import DataInfo, Failure, ParityMark, PluginRef, RunRecord, RunSpec
from harness.records.store import write_json

SCHEMA_VERSION = 1
FOLDER = "parity"
STEPS = 50
"""Training steps of a check that counts."""


class Stage(Struct, frozen=True, kw_only=True):
    """One stage's comparison. Errors are relative and norm-wise; None where there is nothing finite to compare."""

    name: str
    passed: bool
    error: float | None
    where: str
    """The parameter, example or step where the error is largest."""
    tolerance: float
    source: str
    """Where the tolerance comes from."""
    from_reference: dict[str, float | None] = {}
    """Backend -> its own largest error against the float64 reference."""
    remark: str = ""
    """What the comparison left out, and why."""


class ParityVerdict(Struct, frozen=True, kw_only=True):
    schema_version: int = SCHEMA_VERSION
    key: str
    """SHA-256 over `subject` and `sides`; empty where a backend failed."""
    subject: str = ""
    """Digest of what was computed; see `subject`."""
    sides: tuple[str, ...] = ()
    """Digest of who computed it, for each of `backends`; see `side`."""
    checked_at: str
    """UTC, ISO 8601."""
    wall_s: float
    spec: RunSpec
    """What was checked; its backend is the first of `backends`."""
    backends: tuple[str, str]
    devices: tuple[str, str]
    reference: str | None
    """Backend that computed the float64 reference on the CPU; None where none can."""
    steps: int
    parameters: int
    """Trainable scalars."""
    passed: bool
    stages: list[Stage]
    explanation: str
    """Of the first stage that failed; or why the check could not be made."""
    failure: Failure | None = None
    """Of a backend that could not compute its evidence."""
    packages: dict[str, dict[str, str]] = {}
    """Backend -> versions."""
    notes: dict[str, dict[str, str]] = {}
    """Backend -> what it set: threads, TF32, autocast, determinism."""

    @property
    def error(self) -> float | None:
        """The error that tables show: the logits'."""
        return next((stage.error for stage in self.stages if stage.name == "logits"), None)

    def mark(self, backend: str) -> ParityMark:
        """For the record of a run of the *other* backend of the two."""
        return ParityMark(backend=backend, passed=self.passed, error=self.error, verdict=self.key)


# ---- what a verdict is bound to ----------------------------------------------------------------------------


def subject(spec: RunSpec, data: DataInfo) -> str:
    """What was computed: everything of the spec but backend, seed, number of epochs, how speed is measured and where
    the user's own data lay."""
    values = msgspec.to_builtins(spec)
    for name in ("backend", "seed", "protocol", "task_options", "dataset_options", "source"):
        del values[name]
    del values["recipe"]["epochs"]
    return _digest([values, data])


def side(backend: str, device_name: str | None, packages: Mapping[str, str], plugins: Iterable[PluginRef]) -> str:
    """Who computed it: the backend with the versions of its libraries and plugins."""
    versions = sorted((ref.distribution, ref.name, ref.version) for ref in plugins)
    return _digest([backend, device_name, dict(packages), versions])


def verdict_key(subject: str, sides: Iterable[str]) -> str:
    return _digest([subject, sorted(sides)])


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def side_of_record(record: RunRecord) -> str:
    provenance = record.provenance
    return side(record.spec.backend, provenance.device_name, record.environment.packages, provenance.plugins)


def side_of_report(report: ParityReport, plugins: Iterable[PluginRef]) -> str:
    return side(report.spec.backend, report.device_name, report.packages, plugins)


# ---- on disk ----------------------------------------------------------------------------------------------


def keep(verdict: ParityVerdict, results: Path) -> Path:
    """Write the verdict, replacing an earlier one of the same key. Raises `harness.RecordError`."""
    spec = verdict.spec
    stem = f"{spec.task}-{spec.model}-{'-'.join(verdict.backends)}-{spec.precision}-{verdict.key[:8]}"
    path = results / FOLDER / f"{stem}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"{path.parent}: cannot be written: {error.strerror}") from None
    write_json(path, verdict)
    return path


def load(results: Path) -> dict[str, ParityVerdict]:
    """Every readable verdict by its key; one of another schema version or damaged is passed over, as if unchecked."""
    found = {}
    for path in sorted((results / FOLDER).glob("*.json")):
        try:
            verdict = msgspec.json.decode(path.read_bytes(), type=ParityVerdict)
        except (OSError, ValueError, RecursionError):
            continue
        if verdict.schema_version == SCHEMA_VERSION:
            found[verdict.key] = verdict
    return found
