"""The files of the site: a home page, a page for each task, one with all runs, one for each run, and shared assets."""

from __future__ import annotations

import multiprocessing
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from html import escape
from importlib.resources import files as package_files
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from harness import again
from harness.files import safe_name
from harness.plan import available_cores
from harness.report.data import csv_text, json_text
from harness.report.layout import block, legend
from harness.report.plots import PLOTS, drawn
from harness.report.plots.points import panels
from harness.report.plots.theme import config
from harness.report.report import Report
from harness.report.site import overview, run_page, tables
from harness.report.site.tables import Cell
from harness.report.table import Table, one_line, rounded
from harness.store import RECORD, StoredRun, read_record
from harness.types import Failure, RunRecord, Success

if TYPE_CHECKING:
    from jinja2 import Environment

_CHUNK, _FEW, _MOST_PROCESSES, _MOST_WAITING = 40, 500, 8, 16
"""Pages made at once; runs from which on processes are worth their start; how many of these, and parts under way."""
MOST_PLOTTED = 12
"""Panels of a task's page, and of the home page, that have figures."""


def files(report: Report) -> Iterator[tuple[str, bytes]]:
    """Paths within the site and their contents."""
    pages = {
        name: f"tasks/{safe_name(name)}.html" for name in dict.fromkeys(row.text("task") for row in report.table.rows)
    }
    addresses = {run.record.run_id: f"runs/{safe_name(run.record.run_id)}.html" for run in report.runs}
    shared = {"site_title": report.title, "pages": pages}
    run_pages = _run_pages(shared, report, addresses)
    yield from islice(run_pages, 1)  # their processes work on while the other pages are made here
    yield from _assets()
    yield "index.html", _page("index.html", "", **shared, **_home(report, addresses))
    yield "table.csv", csv_text(report.table).encode()
    yield "table.json", json_text(report.table).encode()
    for task, address in pages.items():
        part = Table(report.table.columns, tuple(row for row in report.table.rows if row.text("task") == task))
        stem = address.removesuffix(".html")
        yield address, _page("task.html", "../", **shared, **_task(report, task, part, addresses))
        yield f"{stem}.csv", csv_text(part).encode()
        yield f"{stem}.json", json_text(part).encode()
    everything = _runs(report.runs, addresses, "All runs", "")
    yield "runs.html", _page("runs.html", "", **shared, title="All runs", view=everything)
    yield from run_pages


class _Job(NamedTuple):
    """The page of one run."""

    address: str
    path: Path
    """Of the run, whose record is read again there: it would go to another process at many times the cost."""
    task: str
    command: str
    siblings: dict[str, str]
    """Runs of the same row, by their names, as items of a list; one object for all of the row."""


def _jobs(report: Report, addresses: dict[str, str]) -> Iterator[_Job]:
    commands = _Commands(report)
    for row in report.table.rows:
        siblings = {
            name: f'<li><a href="{escape(addresses[name].rpartition("/")[2])}">{escape(one_line(name))}</a></li>'
            for name in row.run_ids[: tables.PAGE + 1]
        }
        for run in report.runs_of(row):
            address = addresses[run.record.run_id]
            yield _Job(address, run.path, row.text("task"), commands.of(run.record), siblings)


def _run_pages(shared: dict[str, Any], report: Report, addresses: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """In processes of their own where there are many: a page takes some milliseconds."""
    jobs = _jobs(report, addresses)
    parts = iter(lambda: list(islice(jobs, _CHUNK)), [])
    if len(report.runs) < _FEW or available_cores() == 1:
        for part in parts:
            yield from _some_pages(shared, part)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(available_cores(), _MOST_PROCESSES), mp_context=context) as pool:
        waiting: deque[Future[list[tuple[str, bytes]]]] = deque()
        for part in parts:
            waiting.append(pool.submit(_some_pages, shared, part))
            if len(waiting) > _MOST_WAITING:  # so that neither jobs nor finished pages pile up
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _some_pages(shared: dict[str, Any], jobs: list[_Job]) -> list[tuple[str, bytes]]:
    pages = []
    for job in jobs:
        run = StoredRun(job.path, read_record(job.path / RECORD))
        context = run_page.context(run, job.command, job.siblings)
        figures = _Figures()
        for key, columns in context["plots"].items():
            figures.share(key, columns)
        context["plots"] = figures.page()
        html = _page("run.html", "../", **shared, task=job.task, title=run.record.run_id, **context)
        pages.append((job.address, html))
    return pages


class _Commands:
    """What repeats a run. Runs that differ in their seed or split only share the work of finding it."""

    def __init__(self, report: Report) -> None:
        self._catalog = report.catalog
        self._known: dict[str, str] = {}

    def of(self, record: RunRecord) -> str:
        spec = record.spec
        if spec.group_key not in self._known:
            self._known[spec.group_key] = again.command(spec, record.provenance.plugins, self._catalog)
        line = re.sub(r"--seed \d+", f"--seed {spec.seed}", self._known[spec.group_key], count=1)
        return re.sub(r"--split \d+", f"--split {spec.split}", line, count=1)


def _home(report: Report, addresses: dict[str, str]) -> dict[str, Any]:
    found = overview.contests(report)
    failures = [run for run in report.runs if isinstance(run.record.outcome, Failure)]
    figures = _Figures()
    fronts = [
        (panel.title, figures.add_all(f"pareto-{panel.number}", drawn("pareto", panel)))
        for panel in panels(report)[:MOST_PLOTTED]
    ]
    return {
        "title": report.title,
        "summary": _summary(report),
        "problems": report.problems[:20],
        "backends": report.backends,
        "contests": found,
        "figures": {name: title for name, title in overview.FIGURES.items() if any(name in c.verdicts for c in found)},
        "scoreboard": overview.scoreboard(found),
        "panels": fronts,
        "plots": figures.page(),
        "failures": _failures(failures, addresses, ""),
        "more_failures": max(0, len(failures) - tables.PAGE),
    }


def _task(report: Report, task: str, part: Table, addresses: dict[str, str]) -> dict[str, Any]:
    ids = {name for row in part.rows for name in row.run_ids}
    runs = [run for run in report.runs if run.record.run_id in ids]
    links = {index: f"../{addresses[row.run_ids[0]]}" for index, row in enumerate(part.rows)}
    shown = block(part, part.rows)
    found: list[tuple[str, list[tuple[str, str]]]] = []
    figures = _Figures()
    within = Report(part, tuple(runs), report.catalog, report.verdicts)
    for panel in panels(within)[:MOST_PLOTTED]:
        here = [
            titled
            for name in PLOTS
            if name != "confusion"  # the pages of the runs have them
            for titled in figures.add_all(f"{name}-{panel.number}", drawn(name, panel))
        ]
        found.append((panel.block.heading, here))
    failures = [run for run in runs if isinstance(run.record.outcome, Failure)]
    slug = safe_name(task)
    return {
        "title": task,
        "task": task,
        "heading": shown.heading,
        "view": tables.comparison(shown, "comparison", f"{task}: the comparison", links, slug),
        "legend": legend([shown]),
        "flags": shown.flags,
        "panels": found,
        "left_out": max(0, len(panels(within)) - MOST_PLOTTED),
        "plots": figures.page(),
        "runs": _runs(runs, addresses, f"Runs of {task}", "../"),
        "failures": _failures(failures, addresses, "../"),
        "more_failures": max(0, len(failures) - tables.PAGE),
    }


def _runs(runs: Iterable[StoredRun], addresses: dict[str, str], caption: str, root: str) -> tables.View:
    headers = (
        "run",
        "dataset",
        "model",
        "backend",
        "device",
        "precision",
        "seed",
        "quality",
        "training (samples/s)",
        "inference (samples/s)",
        "status",
        "started",
    )
    rows = []
    for run in runs:
        record = run.record
        spec, outcome = record.spec, record.outcome
        if isinstance(outcome, Success):
            quality = outcome.scores.test.get(outcome.scores.primary)
            speed = outcome.speed
            figures = [_number(x) for x in (quality, speed.train_samples_per_s, speed.inference_samples_per_s)]
            status = Cell("flagged" if outcome.flags else "ok", None, "", "flagged" if outcome.flags else "")
        else:
            figures = [_number(None)] * 3
            status = Cell(outcome.kind, None, "", "failed")
        names = (spec.dataset, spec.model, spec.backend, spec.device, spec.precision)
        link = Cell(one_line(record.run_id), None, "", "", root + addresses[record.run_id])
        rows.append([link, *map(Cell, map(one_line, names)), spec.seed, *figures, status, record.started_at])
    return tables.plain("runs", caption, headers, rows, controls=True)


def _failures(runs: list[StoredRun], addresses: dict[str, str], root: str) -> tables.View | None:
    rows = []
    for run in runs[: tables.PAGE]:
        assert isinstance(run.record.outcome, Failure)
        link = Cell(one_line(run.record.run_id), None, "", "", root + addresses[run.record.run_id])
        outcome = run.record.outcome
        rows.append([link, outcome.kind, outcome.phase, one_line(outcome.message, 400)])
    return tables.plain("failures", "Failed runs", ("run", "kind", "phase", "reason"), rows) if rows else None


def _number(value: float | None) -> Cell:
    return tables.number(value, "" if value is None else rounded(value, None)[0])


def _summary(report: Report) -> dict[str, Any]:
    records = [run.record for run in report.runs]
    started = sorted(record.started_at for record in records)
    versions = {
        f"{name} {version}"
        for record in records
        for name, version in record.environment.packages.items()
        if name in report.catalog.backends or name in ("torch", "tensorflow", "jax", "keras")
    }
    return {
        "runs": len(records),
        "failed": sum(isinstance(record.outcome, Failure) for record in records),
        "tasks": list(dict.fromkeys(record.spec.task for record in records)),
        "backends": report.backends,
        "machines": list(dict.fromkeys(_machine(record) for record in records)),
        "versions": sorted(versions),
        "commits": list(dict.fromkeys(record.environment.git_commit or "no checkout" for record in records)),
        "since": started[0][:10] if started else "",
        "until": started[-1][:10] if started else "",
    }


def _machine(record: RunRecord) -> str:
    environment = record.environment
    gpus = [gpu.name for gpu in environment.gpus]
    return ", ".join(
        [f"{environment.cpu} ({environment.cores} cores)", f"{environment.memory_bytes / 2**30:.0f} GiB", *gpus]
    )


class _Figures:
    """Figures of a page: their data once each, by columns, which is smaller and which the page's script takes apart."""

    def __init__(self) -> None:
        self.data: dict[str, dict[str, list[Any]]] = {}
        self.figures: dict[str, dict[str, Any]] = {}

    def add_all(self, name: str, titled: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
        """Charts with their titles; returns the keys that the page finds them by, and the titles."""
        found = []
        for place, (title, chart) in enumerate(titled):
            found.append((f"{name}-{place}", title))
            self.add(f"{name}-{place}", chart)
        return found

    def add(self, key: str, chart: Any) -> None:
        """As wide as its place on the page; the script gives the colours."""
        spec = chart.to_dict(validate=False)
        spec.pop("config", None)
        datasets = spec.pop("datasets", {})
        for name, rows in datasets.items():
            self.data[name] = {column: [_short(row.get(column)) for row in rows] for column in rows[0]} if rows else {}
        spec |= {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
        self.figures[key] = {"spec": spec, "data": list(datasets)}

    def share(self, key: str, columns: dict[str, Any]) -> None:
        """A figure whose specification the pages of all runs have in common; equal data are kept once."""
        name = next((name for name, known in self.data.items() if known is columns), f"d{len(self.data)}")
        self.data[name] = columns
        self.figures[key] = {"data": [name]}

    def page(self) -> dict[str, Any]:
        return {"data": self.data, "figures": self.figures} if self.figures else {}


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _assets() -> Iterator[tuple[str, bytes]]:
    import vl_convert

    from harness.report.plots.run_charts import specifications

    folder = package_files("harness.report.site") / "assets"
    for name in ("site.css", "site.js"):
        yield f"assets/{name}", (folder / name).read_bytes()
    bundle = vl_convert.javascript_bundle(None)  # type: ignore[arg-type]  # the default, which the stub lacks
    yield "assets/vega.js", bundle.encode()
    shared = {"themes": {"light": config(), "dark": config(dark=True)}, "runs": specifications()}
    yield "assets/plots.js", b"window.harnessPlots = " + _json(shared).encode() + b";\n"


def _page(template: str, root: str, **context: Any) -> bytes:
    """`root` leads from the page to the home page's directory."""
    html: str = _environment().get_template(template).render(root=root, **context)
    return html.encode(errors="replace")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("harness.report.site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = lambda value: Markup(_json(value))
    environment.filters["line"] = one_line
    return environment


def _json(value: Any) -> str:
    """JSON that may stand in a script element: no tag can begin or end in it."""
    text = msgspec.json.encode(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
