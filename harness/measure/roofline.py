"""Cache of measured rooflines, with one file for each combination of backend, device, precision, thread count, hardware
and versions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from harness.data.cache import cache_dir
from harness.errors import HarnessError, RecordError
from harness.records import Environment, Roofline, RunRecord
from harness.records.files import replacing
from harness.records.reading import load_named


def lookup(record: RunRecord, packages: tuple[str, ...]) -> Roofline | None:
    """Return the cached roofline that applies to a run.

    Return None if the roofline has not been measured or the file is damaged.

    The roofline and the run must have the same backend, device, precision, thread count, hardware and versions of
    `packages`. The record must specify a device.
    """
    spec, environment = record.spec, record.environment
    known = {name: version for name, version in environment.packages.items() if name in packages}
    hardware = hardware_of(environment, spec.device, record.provenance.device_name or "")
    path = _path(spec.backend, spec.device, spec.precision, spec.threads, hardware, known)
    try:
        return load_named(path, Roofline)
    except RecordError:
        return None


def save(roofline: Roofline) -> None:
    """Write a roofline to the cache. Raises `harness.HarnessError` if the file cannot be written."""
    path = _path(
        roofline.backend, roofline.device, roofline.precision, roofline.threads, roofline.hardware, roofline.versions
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(roofline), indent=1))
    except OSError as error:
        raise HarnessError(
            f"{path}: cannot write the file: {error.strerror}; set HARNESS_CACHE to a writable directory"
        ) from None


def _path(backend: str, device: str, precision: str, threads: int, hardware: str, packages: Mapping[str, str]) -> Path:
    identity = msgspec.json.encode([backend, device, precision, threads, hardware, packages], order="sorted")
    return cache_dir() / "rooflines" / f"{backend}-{hashlib.sha256(identity).hexdigest()[:16]}.json"


def hardware_of(environment: Environment, device: str, description: str) -> str:
    """Return the name of the CPU if the device is ``cpu``. For other devices, return the backend's description."""
    return environment.cpu if device == "cpu" else description
