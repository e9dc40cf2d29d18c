"""Rendering of all run pages. Each page takes milliseconds, so several processes are used if there are many runs."""

from __future__ import annotations

import gc
import multiprocessing
import re
from collections import deque
from collections.abc import Hashable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from html import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.analysis.formatting import one_line
from harness.measure.cgroup import available_cores
from harness.plan import rerun as again
from harness.records import RunRecord
from harness.records.store import RECORD, StoredRun, read_record
from harness.report.report import Report
from harness.report.site import render, run_page, tables
from harness.report.site.plot_data import Figures

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog

_CHUNK, _MIN_RUNS, _MAX_PROCESSES, _MAX_WAITING = 40, 500, 8, 64
"""Number of pages in a chunk, minimum number of runs for which processes are started, maximum number of processes, and
maximum number of chunks in progress. The last number is large enough to keep the processes busy while the other pages
are rendered."""
_OBJECTS = 10_000
"""Threshold for the garbage collector. A page creates thousands of objects, nearly all of which are freed by reference
counting."""


def run_pages(shared: dict[str, Any], report: Report, addresses: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield the path within the site and the contents of each run page."""
    jobs = _jobs(report, addresses)
    parts = iter(lambda: list(islice(jobs, _CHUNK)), [])
    if len(report.runs) < _MIN_RUNS or available_cores() == 1:
        for part in parts:
            yield from _some_pages(shared, part)
        return
    context = multiprocessing.get_context("spawn")
    count = min(available_cores(), _MAX_PROCESSES)
    with ProcessPoolExecutor(count, context, gc.set_threshold, (_OBJECTS,)) as pool:
        waiting: deque[Future[list[tuple[str, bytes]]]] = deque()
        for _ in range(count):  # start the processes while the first job waits for the table
            waiting.append(pool.submit(_some_pages, shared, []))
        for part in parts:
            waiting.append(pool.submit(_some_pages, shared, part))
            if len(waiting) > _MAX_WAITING:  # limit the number of finished pages in memory
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


class _Job(NamedTuple):
    """Input for one run page."""

    address: str
    path: Path
    """Directory of the run. Reading the record again is much cheaper than sending it to another process."""
    task: str
    command: str
    siblings: dict[str, str]
    """Runs in the same row as HTML list items, by run id. All runs in the row share this object."""


def _jobs(report: Report, addresses: dict[str, str]) -> Iterator[_Job]:
    for row in report.table.rows:
        siblings = {
            name: f'<li><a href="{escape(addresses[name].rpartition("/")[2])}">{escape(one_line(name))}</a></li>'
            for name in row.run_ids[: tables.PAGE + 1]
        }
        commands: dict[Hashable, str] = {}
        for run in report.runs_of(row):
            address = addresses[run.record.run_id]
            command = _command(run.record, report.catalog, commands)
            yield _Job(address, run.path, row.text("task"), command, siblings)


def _command(record: RunRecord, catalog: Catalog, known: dict[Hashable, str]) -> str:
    """Return the command for reproducing a run.

    `known` caches the commands for one row. Most runs in a row differ only in seed and split. Others also differ in the
    device option or in the paths of data, weights and plugins.
    """
    spec, plugins = record.spec, record.provenance.plugins
    places = (spec.dataset, spec.source and spec.source.path, spec.pretrained and spec.pretrained.path)
    alike = (spec.device, *places, *plugins)
    if alike not in known:
        known[alike] = again.command(spec, plugins, catalog)
    line = re.sub(r"--seed \d+", f"--seed {spec.seed}", known[alike], count=1)
    return re.sub(r"--split \d+", f"--split {spec.split}", line, count=1)


def _some_pages(shared: dict[str, Any], jobs: list[_Job]) -> list[tuple[str, bytes]]:
    pages = []
    for job in jobs:
        run = StoredRun(job.path, read_record(job.path / RECORD))
        context = run_page.context(run, job.command, job.siblings)
        figures = Figures()
        for key, columns in context["plots"].items():
            figures.share(key, columns)
        context["plots"] = figures.page()
        html = render.page("run.html", "../", **shared, task=job.task, title=run.record.run_id, **context)
        pages.append((job.address, html))
    return pages
