"""Verdicts of parity checks, including their schema, scope and storage."""

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
from harness.records.files import make_directory
from harness.records.reading import MAX_JSON_BYTES, decode, read_stored
from harness.records.recipe import LOOP_FIELDS, without_added_defaults
from harness.records.store import write_json

SCHEMA_VERSION = 3
FOLDER = "parity"


class Stage(Struct, frozen=True, kw_only=True):
    """Comparison of one stage.

    Errors are relative errors in the 2-norm. In the ``dropout`` stage, errors are multiples of the standard error.
    Non-finite errors are stored as None.
    """

    name: str
    passed: bool
    error: float | None
    where: str
    """Parameter, example or step with the largest error."""
    tolerance: float
    source: str
    """Justification for the tolerance."""
    from_reference: dict[str, float | None] = {}
    """Largest error of each backend relative to the float64 reference."""
    remark: str = ""
    """Description of the values that were excluded from the comparison, and the reason."""
    partly: str = ""
    """Reason why the stage is only a partial check, or an empty string for a complete check."""


class ParityVerdict(Struct, frozen=True, kw_only=True):
    """Result of a parity check between two backends."""

    schema_version: int = SCHEMA_VERSION
    key: str
    """SHA-256 of `subject` and `sides`, or an empty string if a backend failed."""
    subject: str = ""
    """Digest of the computation, returned by the function `subject`."""
    sides: tuple[str, ...] = ()
    """Digests of `backends` and their libraries, computed by `side`."""
    checked_at: str
    """Time of the check (UTC, ISO 8601)."""
    wall_s: float
    """Duration of the check, in seconds."""
    spec: RunSpec
    """Specification of the checked run, with the first backend in `backends`."""
    backends: tuple[str, str]
    """Names of the backends, including any named environments; see `RunSpec.backend_in_env`."""
    devices: tuple[str, str]
    reference: str | None
    """Backend that computed the float64 reference on the CPU, or None if no backend supports it."""
    steps: int
    """Number of training steps in the loss curve."""
    parameters: int
    """Number of trainable scalar parameters."""
    passed: bool
    stages: list[Stage]
    explanation: str
    """Explanation of the first failed stage, or the reason why the check could not be performed."""
    failure: Failure | None = None
    """Failure of a backend that could not complete its computations, or None if both backends succeeded."""
    packages: dict[str, dict[str, str]] = {}
    """Package versions for each backend."""
    notes: dict[str, dict[str, str]] = {}
    """Settings used by each backend, such as threads, TF32, autocast and determinism."""

    @property
    def partly(self) -> str:
        """Reasons why the check covers only part of the computation, or an empty string for a complete check."""
        return "; ".join(f"{stage.name}: {stage.partly}" for stage in self.stages if stage.partly)

    @property
    def state(self) -> str:
        """The result: ``same``, ``partly checked`` or ``differs``."""
        if not self.passed:
            return "differs"
        return "partly checked" if self.partly else "same"

    @property
    def error(self) -> float | None:
        """Error in the logits, as shown in tables, or None if unknown."""
        return next((stage.error for stage in self.stages if stage.name == "logits"), None)

    def mark(self, backend: str) -> ParityMark:
        """Return the result of the check for the record of a run whose backend was compared with `backend`."""
        return ParityMark(backend=backend, passed=self.passed, partly=self.partly, error=self.error, verdict=self.key)


# ---- the computation to which a verdict applies -------------------------------------------------------------


def subject(spec: RunSpec, data: DataInfo) -> str:
    """Return a digest of the computation.

    The digest includes the description of the data and the spec. The digest does not depend on the backend, the seed,
    the measurement protocol, the number of threads or devices, the options or location of the data, the primary metric,
    or recipe fields that do not affect training steps. Threads affect only the order in which terms are summed, whose
    effect the tolerances cover. A check uses a single device. For runs on several devices,
    `harness.checks.parity.marks` limits the result of the check.
    """
    values = msgspec.to_builtins(spec)
    values.pop("weights")  # Parity does not depend on whether the weights are trained or initial weights.
    teacher = values.pop("teacher")
    if teacher is not None:
        values["teacher"] = {**teacher, "path": ""}
    for name in (
        "backend",
        "env",
        "devices",
        "threads",
        "seed",
        "protocol",
        "task_options",
        "dataset_options",
        "source",
        "metric",
    ):
        del values[name]
    values["recipe"] = {k: v for k, v in without_added_defaults(values["recipe"]).items() if k not in LOOP_FIELDS}
    described = msgspec.to_builtins(data)
    for name in ("warnings", "splits", "columns", "counts"):  # exclude fields that do not affect the computation
        del described[name]
    return _digest([values, described])


def side(backend: str, device_name: str | None, packages: Mapping[str, str], plugins: Iterable[PluginRef]) -> str:
    """Return a digest of the backend, its device, and the versions of its libraries and plugins."""
    versions = sorted((ref.distribution, ref.name, ref.version) for ref in plugins)
    return _digest([backend, device_name, dict(packages), versions])


def verdict_key(subject: str, sides: Iterable[str]) -> str:
    """Return the key of a verdict. The key does not depend on the order of the two backends."""
    return _digest([subject, sorted(sides)])


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def side_of_record(record: RunRecord) -> str:
    provenance = record.provenance
    return side(record.spec.backend, provenance.device_name, record.environment.packages, provenance.plugins)


def side_of_report(report: ParityReport, plugins: Iterable[PluginRef]) -> str:
    return side(report.spec.backend, report.device_name, report.packages, plugins)


# ---- storage ----------------------------------------------------------------------------------------------


def keep(verdict: ParityVerdict, results: Path) -> Path:
    """Write the verdict to the results directory and return the file's path.

    An earlier verdict with the same key is replaced. Raises `harness.RecordError` if the file cannot be written.
    """
    spec = verdict.spec
    backends = "-".join(verdict.backends).replace(" in ", "-")
    stem = f"{spec.task}-{spec.model}-{backends}-{spec.precision}-{verdict.key[:8]}"
    path = results / FOLDER / f"{stem}.json"
    try:
        make_directory(path.parent)
    except OSError as error:
        raise RecordError(f"{path.parent}: cannot be written: {error.strerror}") from None
    write_json(path, verdict)
    return path


def load(results: Path) -> dict[str, ParityVerdict]:
    """Return a mapping from keys to the verdicts in a results directory.

    Verdicts are skipped if they are damaged, are links, or have a different schema version.
    """
    verdicts = {}
    for path in sorted((results / FOLDER).glob("*.json")):
        try:
            verdict = decode(read_stored(path, MAX_JSON_BYTES), ParityVerdict, path)
        except RecordError:
            continue
        if verdict.schema_version == SCHEMA_VERSION:
            verdicts[verdict.key] = verdict
    return verdicts
