"""Render all run pages. Rendering a page takes several milliseconds. If there are many runs, multiple processes are
used."""

from __future__ import annotations

import dataclasses
import gc
import math
import tempfile
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from harness.analysis.formatting import one_line
from harness.errors import HarnessError
from harness.execute.child import ChildContext, calls_in_children
from harness.measure.cgroup import available_cores
from harness.plan import rerun as again
from harness.plan.selection import Selection
from harness.records import Failure, RunRecord
from harness.records.files import write_new
from harness.records.store import RECORD, StoredRun, read_record
from harness.report.report import Report
from harness.report.site import render, run_page, tables
from harness.report.site.plot_data import Figures

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog

_MIN_RUNS, _MAX_PROCESSES = 500, 8
"""Child processes are used if there are at least `_MIN_RUNS` runs. The number of child processes is limited to
`_MAX_PROCESSES`."""
_OBJECTS = 10_000
"""Threshold for the garbage collector. Rendering a page creates thousands of objects, most of which are freed by
reference counting."""


class Page(Struct, frozen=True):
    """Input for one run page."""

    address: str
    run: str
    """Directory of the run. Rereading the record in the child process is much faster than sending it there."""
    run_id: str
    repeat: int
    """Run id and repeat number in the report. Both values may differ from those in the record if runs from several
    results directories are combined."""
    command: str


class PagesOfRow(Struct, frozen=True):
    """Input for the pages of all runs in one row of the table."""

    task: str
    siblings: dict[str, str]
    """HTML list items for the runs in the same row, by run id."""
    pages: list[Page]


class PagesJob(Struct, frozen=True, kw_only=True):
    """A job for a child process that writes run pages to files."""

    folder: str
    """Directory to which the pages are written."""
    shared: dict[str, Any]
    rows: list[PagesOfRow]


@contextmanager
def run_pages(
    shared: dict[str, Any], report: Report, addresses: dict[str, str]
) -> Iterator[Iterator[tuple[str, bytes]]]:
    """Yield an iterator over ``(path, contents)`` tuples, one for each page. Paths are relative to the site's folder.

    If there are many runs, child processes start rendering pages when the context is entered.
    """
    rows = list(_rows(report, addresses))
    count = min(available_cores(), _MAX_PROCESSES)
    if len(report.runs) < _MIN_RUNS or count == 1:
        yield _rendered(shared, rows)
        return
    with tempfile.TemporaryDirectory(prefix="harness-site-") as folder:
        jobs = [PagesJob(folder=folder, shared=shared, rows=share) for share in _shares(rows, count)]
        with calls_in_children(write_pages, jobs, timeout_s=math.inf, environment={}) as calls:
            yield (
                (address, Path(folder, Path(address).name).read_bytes())
                for call in calls
                for address in _written(call.result())
            )


def write_pages(job: PagesJob, context: ChildContext) -> list[str]:
    """Write the run pages to the job's folder and return their addresses. This function is called in a child
    process."""
    gc.set_threshold(_OBJECTS)
    written = []
    for address, content in _rendered(job.shared, job.rows):
        write_new(Path(job.folder, Path(address).name), content)
        written.append(address)
    return written


def _written(result: list[str] | Failure) -> list[str]:
    if isinstance(result, Failure):
        error = HarnessError(f"the run pages of the site cannot be rendered: {result.message}")
        error.add_note(result.log_tail)
        raise error
    return result


def _rows(report: Report, addresses: dict[str, str]) -> Iterator[PagesOfRow]:
    for row in report.table.rows:
        siblings = {
            name: f'<li><a href="{escape(addresses[name].rpartition("/")[2])}">{escape(one_line(name))}</a></li>'
            for name in row.run_ids[: tables.PAGE + 1]
        }
        selections: dict[Hashable, Selection] = {}
        pages = [
            Page(
                addresses[run.record.run_id],
                str(run.path),
                run.record.run_id,
                run.record.repeat,
                _command(run.record, report.catalog, selections),
            )
            for run in report.runs_of(row)
        ]
        yield PagesOfRow(row.text("task"), siblings, pages)


def _shares(rows: list[PagesOfRow], count: int) -> list[list[PagesOfRow]]:
    """Distribute the pages evenly among `count` processes."""
    shares: list[list[PagesOfRow]] = [[] for _ in range(count)]
    before = 0
    for row in rows:
        for number, share in enumerate(shares):
            share.append(replace(row, pages=row.pages[(number - before) % count :: count]))
        before += len(row.pages)
    return shares


def _command(record: RunRecord, catalog: Catalog, known: dict[Hashable, Selection]) -> str:
    """Return the command for reproducing a run.

    `known` caches the selections for the runs in one row. Most runs in the same row differ only in seed and split. Some
    also differ in the device option or in the paths of data, weights and plugins.
    """
    spec, plugins = record.spec, record.provenance.plugins
    places = (spec.dataset, spec.source and spec.source.path, spec.pretrained and spec.pretrained.path)
    alike = (spec.device, *places, *plugins)
    if alike not in known:
        known[alike] = again.selection(spec, catalog)
    splits = () if spec.split is None else (spec.split,)
    return again.command_for(dataclasses.replace(known[alike], seeds=(spec.seed,), splits=splits), plugins)


def _rendered(shared: dict[str, Any], rows: list[PagesOfRow]) -> Iterator[tuple[str, bytes]]:
    for row in rows:
        for page in row.pages:
            try:
                content = _html(shared, row, page)
            except HarnessError:  # the message already names the file
                raise
            except Exception as error:
                raise RuntimeError(f"{page.address} cannot be rendered: {error!r}") from error
            yield page.address, content


def _html(shared: dict[str, Any], row: PagesOfRow, page: Page) -> bytes:
    record = replace(read_record(Path(page.run) / RECORD), run_id=page.run_id, repeat=page.repeat)
    run = StoredRun(Path(page.run), record)
    context = run_page.context(run, page.command, row.siblings)
    figures = Figures()
    for key, columns in context["plots"].items():
        figures.share(key, columns)
    context["plots"] = figures.page()
    return render.page("run.html", "../", **shared, task=row.task, title=run.record.run_id, **context)
