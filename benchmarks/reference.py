"""Default runs of every task with both frameworks and the baseline: ``python -m benchmarks.reference``.

The command executes the runs that are missing from ``results/reference``, with three seeds, and a parity check between
the frameworks. It then writes the tables of ``docs/results.md`` and the figure ``docs/pareto.svg`` from the records.
With ``--no-run``, it only writes them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from harness.checks.parity.verdict import load as load_verdicts
from harness.plugins import discover
from harness.records.store import Store
from harness.report.markdown import render
from harness.report.plots.figure import figure
from harness.report.report import Report

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "reference"
DATASETS = {"nlp": "cldr-langid", "vision": "digits", "speech": "espeak-digits", "regression": "diabetes"}
FRAMEWORKS, BASELINE = ("torch", "tensorflow"), ("baseline",)
BACKENDS = (*FRAMEWORKS, *BASELINE)
SEEDS = (0, 1, 2)
BEGIN, END = "<!-- python -m benchmarks.reference -->\n", "<!-- end -->\n"


def report() -> Report:
    """Return the report on the reference runs, in the order of `DATASETS` and `BACKENDS`."""
    runs = [run for run in Store(RESULTS).load().runs if run.record.spec.dataset in DATASETS.values()]
    order = list(DATASETS)
    runs.sort(key=lambda run: (order.index(run.record.spec.task), BACKENDS.index(run.record.spec.backend)))
    verdicts = tuple(load_verdicts(RESULTS).values())
    return Report(runs=tuple(runs), catalog=discover(), verdicts=verdicts, title="Default runs of the four tasks")


def missing(backends: tuple[str, ...]) -> list[str]:
    """Return the tasks that have no run for at least one of the backends."""
    present = {(r.record.spec.dataset, r.record.spec.backend, r.record.spec.seed) for r in report().runs}
    return [
        task
        for task, dataset in DATASETS.items()
        if not all((dataset, backend, seed) in present for backend in backends for seed in SEEDS)
    ]


def section() -> str:
    """Return the part of ``docs/results.md`` between `BEGIN` and `END`."""
    return f"{render(report().table)}\n![Quality against throughput](pareto.svg)\n\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reference", description=__doc__)
    parser.add_argument(
        "--no-run", action="store_true", help="write the tables and the figure without running anything"
    )
    selected = parser.parse_args()
    for backends, more in ((FRAMEWORKS, ["--parity"]), (BASELINE, [])):
        wanted = [] if selected.no_run else missing(backends)
        if wanted:
            command = [sys.executable, "-m", "harness", "run", "--task", ",".join(wanted), *more]
            command += ["--backend", ",".join(backends), "--seed", ",".join(map(str, SEEDS))]
            subprocess.run([*command, "--results", str(RESULTS)], check=True)
    page = ROOT / "docs" / "results.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{page} lacks the lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}{section()}{END}{after}", encoding="utf-8")
    (ROOT / "docs" / "pareto.svg").write_bytes(figure(report(), "pareto", ".svg"))


if __name__ == "__main__":
    main()
