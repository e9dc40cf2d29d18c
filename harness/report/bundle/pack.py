"""Creation of bundles."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from harness.analysis.differences import machine_of
from harness.checks.parity.verdict import FOLDER
from harness.deploy.explanations import GRADIENT_ARRAYS, GRADIENTS, PERMUTATION
from harness.errors import RecordError
from harness.plan.rerun import suite
from harness.plugins.environments import LOCK as ENVIRONMENT_LOCK
from harness.plugins.environments import MAX_LOCK_BYTES
from harness.records import RunRecord, Success
from harness.records.files import replacing, safe_name
from harness.records.reading import MAX_ARRAYS_BYTES, MAX_JSON_BYTES, MAX_LOG_BYTES, is_stored, read_stored
from harness.records.store import ARRAYS, AUDIT, LOG, RECORD
from harness.report.bundle.manifest import MANIFEST, RECORDS, BundleEntry, BundleManifest
from harness.report.csv_json import csv_text, json_text
from harness.report.markdown import escape, render
from harness.report.report import Report
from harness.report.site.build import files as site_files
from harness.tuning.study import FOLDER as STUDIES
from harness.tuning.study import STUDY

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Timestamp of every entry. The timestamp is fixed, so that bundling the same contents twice produces identical
archives."""


def pack(report: Report, path: Path, version: str) -> str:
    """Write a bundle and return the SHA-256 digest of its manifest, which identifies the bundle.

    `version` is the version of harness. Raises `harness.RecordError` if a file cannot be read or written.
    """
    entries: dict[str, BundleEntry] = {}
    try:
        with (
            replacing(path) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive,
        ):
            for inside, content in _files(report):
                archive.writestr(_entry(inside), content)
                entries[inside] = BundleEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            manifest = BundleManifest(
                harness_version=version,
                made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                title=report.title,
                runs=len(report.runs),
                files=entries,
            )
            encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
            archive.writestr(_entry(MANIFEST), encoded)
    except OSError as error:
        raise RecordError(f"{error.filename or path}: {error.strerror}; the bundle was not written") from None
    return hashlib.sha256(encoded).hexdigest()


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


def _files(report: Report) -> Iterator[tuple[str, bytes]]:
    specs = [run.record.spec for run in report.runs if isinstance(run.record.outcome, Success)]
    yield "README.md", _readme(report).encode()
    yield "suite.toml", suite(specs, report.catalog).encode()
    yield "environment.json", _environments(report)
    yield "digests.json", _digests(report)
    for run in report.runs:
        folder = f"{RECORDS}/{safe_name(run.record.run_id)}"
        # Encode the record instead of copying its file, so that it is always saved with the current schema version.
        yield f"{folder}/{RECORD}", msgspec.json.format(msgspec.json.encode(run.record), indent=1)
        for name, limit in (
            (ARRAYS, MAX_ARRAYS_BYTES),
            (LOG, MAX_LOG_BYTES),
            (AUDIT, MAX_JSON_BYTES),
            (ENVIRONMENT_LOCK, MAX_LOCK_BYTES),
            (PERMUTATION, MAX_JSON_BYTES),
            (GRADIENTS, MAX_JSON_BYTES),
            (GRADIENT_ARRAYS, MAX_ARRAYS_BYTES),
        ):
            if is_stored(run.path / name):
                yield f"{folder}/{name}", read_stored(run.path / name, limit)
    for verdict in report.verdicts:
        yield f"{RECORDS}/{FOLDER}/{safe_name(verdict.key)}.json", msgspec.json.encode(verdict)
    for study in report.studies:
        content = msgspec.json.format(msgspec.json.encode(study), indent=1)
        yield f"{RECORDS}/{STUDIES}/{safe_name(study.name)}/{STUDY}", content
    yield "report/report.md", render(report.table).encode()
    yield "report/table.csv", csv_text(report.table).encode()
    yield "report/table.json", json_text(report.table).encode()
    for inside, content in site_files(report):
        yield f"site/{inside}", content


def _environments(report: Report) -> bytes:
    runs_by_environment: dict[bytes, list[str]] = {}
    for run in report.runs:
        environment = msgspec.structs.replace(run.record.environment, load_1min=None)
        runs_by_environment.setdefault(msgspec.json.encode(environment), []).append(run.record.run_id)
    listed = [
        {"environment": msgspec.Raw(environment), "runs": runs} for environment, runs in runs_by_environment.items()
    ]
    return msgspec.json.format(msgspec.json.encode(listed), indent=1)


def _digests(report: Report) -> bytes:
    names = ("dataset_digest", "initial_weights_digest", "final_weights_digest", "plugins")
    digests = {
        run.record.run_id: {"key": run.record.key} | {name: getattr(run.record.provenance, name) for name in names}
        for run in report.runs
    }
    return msgspec.json.format(msgspec.json.encode(digests), indent=1)


def _machine(record: RunRecord) -> str:
    machine = machine_of(record)
    gpu = "no GPU" if machine["gpu"] == "none" else machine["gpu"]
    return f"{machine['cpu']}, {machine['cores']} {'core' if machine['cores'] == '1' else 'cores'}, {gpu}"


def _readme(report: Report) -> str:
    machines = dict.fromkeys(escape(_machine(run.record)) for run in report.runs)
    return (
        f"# {escape(report.title)}\n\n"
        f"This bundle contains {len(report.runs)} runs, measured by `harness` on: {'; '.join(machines)}.\n\n"
        "Read the report in `site/index.html` or `report/report.md`. Reproduce the runs with\n\n"
        f"    harness reproduce THIS.zip{' --create-envs' * any(run.record.spec.env for run in report.runs)}\n\n"
        "This command verifies every file against `manifest.json`, runs the same specs and reports which results\n"
        "agree. Alternatively, run `harness run --suite suite.toml`. The records are in `records/`. Other commands\n"
        "can use this folder as a results directory, for example `harness report --results records`.\n\n"
        + render(report.table)
    )
