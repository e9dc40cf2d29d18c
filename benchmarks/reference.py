"""Runs shown in the README and in ``docs/results.md``: ``python -m benchmarks.reference``.

The command executes the runs that are missing from the directories in `GROUPS`. These directories contain the default
runs of every task with both frameworks and the baseline, the runs of ``make demo``, and the runs of the ``lstm`` model.
A parity check precedes the default runs. The command then copies the verdicts of the parity checks to
``results/reference/parity``. Finally, the command writes the tables, the figure ``docs/pareto.svg`` and the overview in
``results/reference/README.md``. With ``--no-run``, only this last step is performed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from harness.checks.parity.verdict import FOLDER, ParityVerdict, keep
from harness.checks.parity.verdict import load as load_verdicts
from harness.plugins import discover
from harness.records import RunRecord
from harness.records.store import Store
from harness.report import markdown, text
from harness.report.plots.figure import figure
from harness.report.report import Report

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results" / "reference"
DEFAULTS = REFERENCE / "defaults"
TASKS = ("nlp", "vision", "speech", "regression")
FRAMEWORKS, BASELINE = ("torch", "tensorflow"), ("baseline",)
BACKENDS = (*FRAMEWORKS, *BASELINE)
SEEDS = (0, 1, 2)
END = "<!-- end -->\n"


@dataclass(frozen=True)
class Group:
    """A results directory, the commands that produce its runs, and the page that shows these runs."""

    results: Path
    commands: Sequence[Sequence[str]]
    """Arguments of ``harness run``. The options ``--task``, ``--backend`` and ``--seed`` come first."""
    page: Path
    begin: str
    """Line of the page after which the table of runs is inserted. The table extends to the line `END`."""
    shown: Callable[[Report], str]

    def records(self) -> list[RunRecord]:
        return [run.record for run in Store(self.results).load().runs]

    def report(self) -> Report:
        """Return the report on the runs. Rows are in the order of `TASKS` and `BACKENDS`."""
        runs = Store(self.results).load().runs
        runs.sort(key=lambda run: (TASKS.index(run.record.spec.task), BACKENDS.index(run.record.spec.backend)))
        verdicts = tuple(load_verdicts(self.results).values())
        return Report(runs=tuple(runs), catalog=discover(), verdicts=verdicts, title="Default runs of the four tasks")

    def missing(self) -> list[list[str]]:
        """Return the arguments of ``harness run`` for the tasks with missing runs."""
        present = {(record.spec.task, record.spec.backend, record.spec.seed) for record in self.records()}
        missing = []
        for _, tasks, _, backends, _, seeds, *rest in self.commands:
            wanted = [
                task
                for task in tasks.split(",")
                if not all(
                    (task, backend, int(seed)) in present
                    for backend in backends.split(",")
                    for seed in seeds.split(",")
                )
            ]
            if wanted:
                missing.append(["--task", ",".join(wanted), "--backend", backends, "--seed", seeds, *rest])
        return missing

    def section(self) -> str:
        """Return the part of the page between `begin` and `END`."""
        return self.shown(self.report())

    def write(self) -> None:
        _replace(self.page, self.begin, self.section())


def _replace(page: Path, begin: str, section: str) -> None:
    """Replace the part of a page between `begin` and `END`."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{page} must contain the lines {begin!r} and {END!r}")
    page.write_text(f"{before}{begin}{section}{END}{after}", encoding="utf-8")


def _command(tasks: Sequence[str], backends: Sequence[str], seeds: Sequence[int], *rest: str) -> list[str]:
    options = {"--task": tasks, "--backend": backends, "--seed": map(str, seeds)}
    return [word for option, values in options.items() for word in (option, ",".join(values))] + [*rest]


def _tables(report: Report) -> str:
    return f"{markdown.render(report.table)}\n![Quality against throughput](pareto.svg)\n\n"


def _block(report: Report) -> str:
    return f"```\n{text.render(report.table)}```\n"


GROUPS = {
    "defaults": Group(
        DEFAULTS,
        (_command(TASKS, FRAMEWORKS, SEEDS, "--parity"), _command(TASKS, BASELINE, SEEDS)),
        ROOT / "docs" / "results.md",
        "<!-- python -m benchmarks.reference -->\n",
        _tables,
    ),
    "demo": Group(
        REFERENCE / "demo",
        (_command(("nlp",), FRAMEWORKS, (0,)),),
        ROOT / "README.md",
        "<!-- make demo -->\n",
        _block,
    ),
    "lstm": Group(
        REFERENCE / "lstm",
        (_command(("nlp",), FRAMEWORKS, SEEDS, "--model", "lstm"),),
        ROOT / "docs" / "results.md",
        "<!-- python -m benchmarks.reference lstm -->\n",
        _block,
    ),
}


OVERVIEW = "<!-- python -m benchmarks.reference: overview -->\n"
RESULTS = "../../docs/results.md"
SHOWN = {
    "defaults": (f"[Results]({RESULTS}#default-runs), [Compare versions](../../docs/how-to/compare-versions.md)", ""),
    "demo": ("[README](../../README.md)", ""),
    "lstm": (f"[Results]({RESULTS}#lstm)", ""),
    "uci": (f"[Results]({RESULTS}#published-results), rows `uci-*`", "python -m benchmarks.published run"),
    "published": (f"[Results]({RESULTS}#published-results), other rows", "python -m benchmarks.published run"),
    FOLDER: (
        f"[Results]({RESULTS}#default-runs), column `parity`",
        f"harness parity --task {','.join(TASKS)} --backend {','.join(FRAMEWORKS)} --results results/reference",
    ),
}
"""Mapping from the name of each results directory to a page and a command. The page shows the runs in the directory,
and the command produced these runs. For directories in `GROUPS`, which defines their commands, the command is an empty
string.
"""


def verdicts() -> list[ParityVerdict]:
    """Return the parity verdicts that the records of the default runs refer to."""
    named = {mark.verdict for record in GROUPS["defaults"].records() for mark in record.parity}
    return [verdict for key, verdict in load_verdicts(DEFAULTS).items() if key in named]


def overview() -> str:
    """Return a table that shows when and on which machine the runs in each results directory were executed."""
    rows = []
    for name, (shown, command) in SHOWN.items():
        if name == FOLDER:
            kept = load_verdicts(REFERENCE).values()
            if not kept:
                continue
            days = sorted(verdict.checked_at[:10] for verdict in kept)
            period = " to ".join(dict.fromkeys([days[0], days[-1]]))
            rows.append(
                [f"`{name}`", shown, f"`{command}`", f"{len(kept)} verdicts", "–", period, "–", "as `defaults`"]
            )
            continue
        records = [run.record for run in Store(REFERENCE / name).load().runs]
        if not records:
            continue
        loads = [record.environment.load_1min or 0.0 for record in records]
        dates = sorted({record.started_at[:10] for record in records})
        rows.append(
            [
                f"`{name}`",
                shown,
                f"`{command or f'python -m benchmarks.reference {name}'}`",
                str(len(records)),
                str(len({record.spec.seed for record in records})),
                " to ".join(dict.fromkeys([dates[0], dates[-1]])),
                f"{min(loads):.1f} to {max(loads):.1f}",
                "; ".join(dict.fromkeys(map(_machine, records))),
            ]
        )
    headers = ["directory", "shown in", "made by", "runs", "seeds", "date (UTC)", "load at the start", "machine"]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True) + "\n"


def _machine(record: RunRecord) -> str:
    environment = record.environment
    gpus = ", ".join(gpu.name for gpu in environment.gpus) or "no GPU"
    memory_gib = environment.memory_bytes / 2**30
    parts = [f"{environment.cores} cores of {environment.cpu}", f"{memory_gib:.0f} GiB", gpus]
    return ", ".join([*parts, environment.os, environment.python])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reference", description=__doc__)
    parser.add_argument("groups", nargs="*", help="execute only these groups of runs [all]")
    parser.add_argument(
        "--no-run", action="store_true", help="write the tables and the figure without running anything"
    )
    chosen = parser.parse_args()
    for name in chosen.groups or GROUPS:
        group = GROUPS[name]
        for arguments in [] if chosen.no_run else group.missing():
            command = [sys.executable, "-m", "harness", "run", *arguments, "--results", str(group.results)]
            subprocess.run(command, check=True)
        if group.records():
            group.write()
    shutil.rmtree(REFERENCE / FOLDER, ignore_errors=True)
    for verdict in verdicts():
        keep(verdict, REFERENCE)
    _replace(REFERENCE / "README.md", OVERVIEW, overview())
    (ROOT / "docs" / "pareto.svg").write_bytes(figure(GROUPS["defaults"].report(), "pareto", ".svg"))


if __name__ == "__main__":
    main()
