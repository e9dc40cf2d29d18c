"""Tests that the limits in the documentation are those in the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.analysis.compare import baseline
from harness.cli import streams
from harness.data import archives, download
from harness.execute import channel, child
from harness.plan import suite
from harness.plugins import events
from harness.records import arrays, reading
from harness.report.bundle import unpack

MIB, GIB = 2**20, 2**30
PAGE = (Path(__file__).parents[2] / "docs/explanation/reliability.md").read_text()
LIMITS = [
    ("| `record.json`, `audit.json`, a verdict, the manifest of a bundle | 64 MiB |", reading.MAX_JSON_BYTES, 64 * MIB),
    (
        "| `record.json`, `audit.json`, a verdict, the manifest of a bundle | 64 MiB |",
        unpack.MAX_MANIFEST_BYTES,
        64 * MIB,
    ),
    ("| `arrays.npz` | 2 GiB, on disk and in memory", reading.MAX_ARRAYS_BYTES, 2 * GIB),
    ("at most 20 times the size of the file if that is more than 64 MiB", arrays.EXPANSION, 20),
    ("at most 20 times the size of the file if that is more than 64 MiB", arrays.MIN_LIMIT_BYTES, 64 * MIB),
    ("| list of the arrays in `arrays.npz` | 10,000 arrays, 16 MiB |", arrays.MAX_ARRAYS, 10_000),
    ("| list of the arrays in `arrays.npz` | 10,000 arrays, 16 MiB |", arrays.MAX_INDEX_BYTES, 16 * MIB),
    ("| log in a results directory | 256 MiB |", reading.MAX_LOG_BYTES, 256 * MIB),
    ("| baseline file | 256 MiB |", baseline.MAX_BYTES, 256 * MIB),
    ("| suite | 16 MiB |", suite.MAX_BYTES, 16 * MIB),
    ("| bundle | 16 GiB; the extracted files are at most 200 times", unpack.MAX_BYTES, 16 * GIB),
    ("| bundle | 16 GiB; the extracted files are at most 200 times", unpack.EXPANSION, 200),
    ("200,000 files, and 256 MiB for the list of files |", unpack.MAX_FILES, 200_000),
    ("200,000 files, and 256 MiB for the list of files |", unpack.MAX_INDEX_BYTES, 256 * MIB),
    ("| archive of a dataset | 200 times the size of the archive, or 64 MiB", archives.EXPANSION, 200),
    ("| archive of a dataset | 200 times the size of the archive, or 64 MiB", archives.MIN_LIMIT_BYTES, 64 * MIB),
    ("headers of 16 MiB; a million members", archives.MAX_HEADER_BYTES, 16 * MIB),
    ("headers of 16 MiB; a million members", archives.MAX_MEMBERS, 10**6),
    ("256 MiB for the list of members of a zip archive", archives.MAX_INDEX_BYTES, 256 * MIB),
    ("256 MiB of memory for decompressing xz", archives.MAX_DICTIONARY_BYTES, 256 * MIB),
    ("| download without a declared size | 4 GiB |", download.MAX_UNDECLARED_BYTES, 4 * GIB),
    ("| download | 24 hours, at least 4 KiB per second as a mean over each minute |", download.DEADLINE_S, 24 * 3600),
    ("| download | 24 hours, at least 4 KiB per second as a mean over each minute |", download.MIN_RATE, 4096),
    ("| download | 24 hours, at least 4 KiB per second as a mean over each minute |", download.RATE_S, 60),
    ("the maximum size of a message is 64 MiB", channel.MAX_LINE_BYTES, 64 * MIB),
    ("the first and the last 4 MiB", channel.LOG_HEAD_BYTES, 4 * MIB),
    ("the first and the last 4 MiB", channel.LOG_TAIL_BYTES, 4 * MIB),
    ("more than 20,000 events at once, or more than 2,000 per second", channel.EVENT_BURST, 20_000),
    ("more than 20,000 events at once, or more than 2,000 per second", channel.EVENTS_PER_S, 2_000),
    ("pipes at most ten times per second", child.BATCH_S, 0.1),
    ("it is terminated after 20 seconds", child.EXIT_WAIT_S, 20),
    ("After 30\nseconds", child.KILL_WAIT_S, 30),
    ("queue contains 1,000 events", events.MAX_QUEUED, 1000),
    ("waits at most 5 seconds for the plugin's threads", streams.THREADS_WAIT_S, 5),
]


@pytest.mark.parametrize(("text", "actual", "documented"), LIMITS)
def test_documented_limit_is_that_of_the_code(text: str, actual: float, documented: float) -> None:
    assert " ".join(text.split()) in " ".join(PAGE.split())
    assert actual == documented
