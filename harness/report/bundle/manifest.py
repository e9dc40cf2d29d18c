"""The manifest of a bundle."""

from __future__ import annotations

from msgspec import Struct

BUNDLE_VERSION = 1
MANIFEST = "manifest.json"
RECORDS = "records"


class BundleEntry(Struct, frozen=True, kw_only=True):
    """Size in bytes and SHA-256 digest of a file in a bundle."""

    bytes: int
    sha256: str


class BundleManifest(Struct, frozen=True, kw_only=True):
    """Contents of ``manifest.json``."""

    bundle_version: int = BUNDLE_VERSION
    harness_version: str
    made_at: str
    """Creation time (UTC, ISO 8601)."""
    title: str
    runs: int
    """Number of runs in the bundle."""
    files: dict[str, BundleEntry]
    """All files except the manifest, keyed by their paths within the bundle. Path components are separated by ``/``."""
