"""Runs that a test puts into a store."""

from __future__ import annotations

from harness.records import RunRecord
from harness.records.store import Store, StoredRun


def keep(store: Store, kept: RunRecord) -> StoredRun:
    with store.scratch() as scratch:
        (scratch / "log.txt").write_text("what it said\n")
        return store.commit(scratch, kept)
