"""Tests that the page on audits lists all checks and all fields that cannot be checked."""

from __future__ import annotations

import pytest


def test_page_has_every_check_and_limit() -> None:
    checks = pytest.importorskip("benchmarks.audit_checks")
    page = checks.PAGE.read_text(encoding="utf-8")
    assert checks.updated(page) == page, "run: python -m benchmarks.audit_checks"
