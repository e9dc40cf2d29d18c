"""The manifest of a bundle."""

from __future__ import annotations

from msgspec import Struct

BUNDLE_VERSION = 1
MANIFEST = "manifest.json"
RECORDS = "records"


class BundleEntry(Struct, frozen=True, kw_only=True):
    bytes: int
    sha256: str


class BundleManifest(Struct, frozen=True, kw_only=True):
    bundle_version: int = BUNDLE_VERSION
    harness_version: str
    made_at: str
    """UTC, ISO 8601."""
    title: str
    runs: int
    files: dict[str, BundleEntry]
    """By path within the bundle, with ``/``; all but the manifest itself."""
