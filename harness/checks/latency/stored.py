"""Functions that read the latency results stored next to a run's record."""

from __future__ import annotations

import re
from pathlib import Path

from harness.checks.latency.result import LatencyResult
from harness.errors import RecordError
from harness.records.reading import MAX_JSON_BYTES, decode, read_stored
from harness.records.store import StoredRun

FOLDER, RESULT = "latency", "result.json"


def stored_results(run: StoredRun) -> tuple[dict[str, LatencyResult], list[str]]:
    """Return the latency results of a run by name, such as ``server-1``, in sorted order. Also return a message for
    each result that cannot be read."""
    found: dict[str, LatencyResult] = {}
    problems = []
    try:
        paths = sorted((run.path / FOLDER).iterdir(), key=_place)
    except OSError:  # raised if the latency was not measured
        return {}, []
    for path in paths:
        if path.name.startswith("."):
            continue
        try:
            found[path.name] = decode(read_stored(path / RESULT, MAX_JSON_BYTES), LatencyResult, path / RESULT)
        except RecordError as error:
            problems.append(str(error))
    return found, problems


def _place(path: Path) -> tuple[str, int]:
    scenario, _, number = path.name.rpartition("-")
    return scenario, int(number) if re.fullmatch(r"\d{1,9}", number) else 0
