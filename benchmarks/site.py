"""Build time, memory use and load time of the HTML report: ``python -m benchmarks.site [--runs 100,10000]``.

The runs of the four default tasks in a results directory are copied with new seeds until the requested number of runs
is reached. Their arrays are hard-linked. For each number of runs, ``harness report --format html`` builds the site in a
new process, whose duration and peak memory are measured. Chromium then opens the home page and the list of all runs,
each seven times with an empty cache. The benchmark reports the time until the tables are ready and the time until the
first figure is drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import msgspec
import psutil
from tabulate import tabulate

from benchmarks.reference import DEFAULTS
from harness.records.store import ARRAYS, LOG, RECORD, Store

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FIRST_FIGURE = "document.querySelector('[data-plot] svg.marks') !== null"


def multiply(source: Path, target: Path, count: int) -> None:
    """Write `count` runs to `target` by copying the runs in `source` with new seeds."""
    runs = Store(source).load().runs
    for number in range(count):
        run = runs[number % len(runs)]
        spec = msgspec.structs.replace(run.record.spec, seed=number // len(runs))
        name = f"{run.record.run_id}-n{number}"
        record = msgspec.structs.replace(run.record, spec=spec, key=spec.key, run_id=name)
        folder = target / name
        folder.mkdir(parents=True)
        (folder / RECORD).write_bytes(msgspec.json.encode(record))
        for file in (ARRAYS, LOG):
            if (run.path / file).exists():
                os.link(run.path / file, folder / file)


def build(results: Path, site: Path) -> tuple[float, float]:
    """Build the site and return the elapsed time in seconds and the peak memory of the process tree in MiB.

    Memory is measured as proportional set size (PSS), which counts shared pages once, and is sampled twice per second.
    """
    command = [sys.executable, "-m", "harness", "report", "--results", str(results), "--format", "html"]
    start, peak = time.perf_counter(), 0
    with subprocess.Popen([*command, "--output", str(site)], stderr=subprocess.DEVNULL) as process:
        parent = psutil.Process(process.pid)
        while True:
            with contextlib.suppress(psutil.NoSuchProcess):
                tree = [parent, *parent.children(recursive=True)]
                peak = max(peak, sum(one.memory_full_info().pss for one in tree))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
                break
    if process.returncode:
        raise SystemExit("harness report failed; run it without this benchmark to see the error")
    return time.perf_counter() - start, peak / 2**20


def browse(page_file: Path, rounds: int = 7) -> tuple[float, float | None]:
    """Return the median times from the start of navigation until the tables are ready and until the first figure is
    drawn, in milliseconds.

    The time to the first figure is None if the page has no figure.
    """
    from playwright.sync_api import sync_playwright

    ready, drawn = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        for _ in range(rounds):
            page = browser.new_context().new_page()
            page.goto(page_file.resolve().as_uri(), wait_until="commit")
            page.wait_for_selector("html[data-ready]")
            ready.append(page.evaluate("performance.getEntriesByName('ready')[0].startTime"))
            if page.locator("[data-plot]").count():
                page.locator("[data-plot]").first.scroll_into_view_if_needed()
                page.wait_for_function(FIRST_FIGURE, polling="raf")
                drawn.append(page.evaluate("performance.getEntriesByName('drawn')[0].startTime"))
            page.context.close()
        browser.close()
    return median(ready), median(drawn) if drawn else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.site", description=__doc__)
    parser.add_argument("--runs", default="100,10000", help="numbers of runs, separated by commas [100,10000]")
    parser.add_argument(
        "--results", default=str(DEFAULTS), help="results directory with the runs to copy [results/reference/defaults]"
    )
    chosen = parser.parse_args()
    rows = []
    for count in sorted(map(int, chosen.runs.split(","))):
        with tempfile.TemporaryDirectory(dir=Path(chosen.results).parent, prefix=".site-") as folder:
            results, site = Path(folder) / "results", Path(folder) / "site"
            multiply(Path(chosen.results), results, count)
            seconds, peak = build(results, site)
            size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) / 1e6
            home_ready, home_drawn = browse(site / "index.html")
            all_ready, _ = browse(site / "runs.html")
            figures = [
                f"{seconds:.1f}",
                f"{peak:.0f}",
                f"{size:.2f}",
                f"{home_ready:.0f}",
                f"{home_drawn or 0:.0f}",
                f"{all_ready:.0f}",
            ]
            rows.append([str(count), *figures])
    headers = ["runs", "build, s", "peak, MiB", "site, MB", "home ready, ms", "first figure, ms", "all runs ready, ms"]
    print(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
