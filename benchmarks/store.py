"""Measure the time and memory of commands on large results directories: ``python -m benchmarks.store [--records
10000,100000]``.

The runs of the four default tasks in ``results/reference`` are copied until the requested number of runs is reached.
The copies have new ids, seeds, tasks and datasets. Each new task has 1,000 runs, and the commands select the first
task, ``nlp-0``. Each command runs in a new process, in one of these states:

- cold: The index does not exist, and the pages of the records are removed from the system's page cache.
- new: The index does not exist, but the pages of the records are in the page cache.
- warm: The index exists, and the pages are in the page cache (median of `--rounds` processes).
- changed: 100 records were added after the index was written.

CPU times include the startup of Python and the time spent in the kernel. Memory is the peak resident set size.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
from tabulate import tabulate

from benchmarks.reference import DEFAULTS
from harness.records import RunRecord
from harness.records.store import RECORD, Store, run_id

RUNS_PER_TASK = 1000
TASK = "nlp-0"
MODEL = "bert-tiny"
BYTES = 100 * 10**6
"""Size in bytes of a record that is rejected because it is too large."""


class Usage(NamedTuple):
    """Time and memory used by one process."""

    wall_s: float
    user_s: float
    system_s: float
    peak_mib: float


def records(count: int, start: int = 0) -> Iterator[RunRecord]:
    """Yield records with different ids.

    Each block of `RUNS_PER_TASK` records has a different task, whose name is derived from the name of a default task.
    """
    sources: dict[str, list[RunRecord]] = {}
    for run in Store(DEFAULTS).load().runs:
        sources.setdefault(run.record.spec.task, []).append(run.record)
    tasks = list(sources)
    for number in range(start, start + count):
        block, position = divmod(number, RUNS_PER_TASK)
        task = tasks[block % len(tasks)]
        one = sources[task][position % len(sources[task])]
        spec = msgspec.structs.replace(
            one.spec,
            task=f"{task}-{block // len(tasks)}",
            dataset=f"{one.spec.dataset}-{position % 5}",
            seed=position // len(sources[task]),
        )
        key = spec.key
        started_at = f"2026-01-{1 + number % 28:02}T{number // 28 % 24:02}:{number % 60:02}:00Z"
        yield msgspec.structs.replace(
            one, spec=spec, key=key, run_id=run_id(spec, key, 1), repeat=1, started_at=started_at
        )


def write(directory: Path, made: Iterator[RunRecord]) -> None:
    """Write records in the format that runs use."""
    for record in made:
        folder = directory / record.run_id
        folder.mkdir(parents=True)
        (folder / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1))


def drop(directory: Path) -> None:
    """Remove the pages of the records from the page cache."""
    os.sync()
    for path in directory.glob(f"*/{RECORD}"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(arguments: list[str], cache: Path, status: tuple[int, ...] = (0,)) -> Usage:
    """Run a command and return the time and memory that it used."""
    environment = os.environ | {"HARNESS_CACHE": str(cache)}
    start = time.perf_counter()
    # Start the command from a new process, because the peak in RUSAGE_CHILDREN is the maximum over all children.
    wrapper = (
        "import json, resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, "
        "stderr=subprocess.PIPE); use = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(json.dumps([done.returncode, use.ru_utime, use.ru_stime, use.ru_maxrss, done.stderr.decode()[-500:]]))"
    )
    command = [sys.executable, "-c", wrapper, sys.executable, "-m", "harness", *arguments]
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    wall_s = time.perf_counter() - start
    code, user_s, system_s, peak_kib, stderr = msgspec.json.decode(output)
    if code not in status:
        raise SystemExit(f"harness {' '.join(arguments)}: exit status {code}: {stderr}")
    return Usage(wall_s, user_s, system_s, peak_kib / 2**10)


def commands(directory: Path) -> dict[str, list[str]]:
    """Return the commands to measure."""
    first = next(records(1)).run_id
    results = ["--results", str(directory)]
    return {
        f"report --task {TASK}": ["report", "--task", TASK, *results],
        f"report --task {TASK} --model {MODEL}": ["report", "--task", TASK, "--model", MODEL, *results],
        f"history --task {TASK} --model {MODEL}": ["history", "--all", "--task", TASK, "--model", MODEL, *results],
        "compare (two backends of one model)": [
            "compare",
            f"{TASK}-{MODEL}-torch",
            f"{TASK}-{MODEL}-tensorflow",
            *results,
        ],
        "show RUN": ["show", first, *results],
        "show (part of an id)": ["show", first[:-3], *results],
    }


def row(name: str, state: str, uses: list[Usage]) -> list[str]:
    """Return a row of the table with the medians over several processes."""
    wall_s, user_s, system_s, peak_mib = (median(values) for values in zip(*uses, strict=True))
    return [name, state, f"{wall_s:.1f}", f"{user_s:.1f}", f"{system_s:.1f}", f"{peak_mib:.0f}"]


def table(count: int, rounds: int, place: Path | None) -> list[list[str]]:
    """Return the table rows for a results directory with `count` records."""
    rows = []
    with tempfile.TemporaryDirectory(dir=place) as made:
        directory, cache = Path(made, "results"), Path(made, "cache")
        write(directory, records(count))
        time.sleep(3)  # wait, because files that have just been changed are not indexed
        for name, arguments in commands(directory).items():
            drop(directory)
            for state in ("cold", "new"):
                shutil.rmtree(cache, ignore_errors=True)
                rows.append(row(name, state, [measure(arguments, cache)]))
            rows.append(row(name, "warm", [measure(arguments, cache) for _ in range(rounds)]))
        name, arguments = next(iter(commands(directory).items()))
        measure(arguments, cache)
        write(directory, records(100, start=10 * count))
        time.sleep(3)
        rows.append(row(name, "changed", [measure(arguments, cache)]))
        large = directory / "large" / RECORD
        large.parent.mkdir()
        large.write_bytes(b" " * BYTES)
        use = measure(["show", "large", "--results", str(directory)], cache, status=(1,))
        rows.append(row("show (a record of 100 MB, which is rejected)", "warm", [use]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument("--records", default="10000,100000", help="numbers of records [10000,100000]")
    parser.add_argument("--rounds", type=int, default=5, help="number of processes per warm measurement [5]")
    parser.add_argument(
        "--directory", type=Path, help="directory for the records [the default directory for temporary files]"
    )
    options = parser.parse_args()
    for count in map(int, options.records.split(",")):
        headers = [f"command, {count} records", "state", "wall, s", "user, s", "system, s", "peak, MiB"]
        print(
            tabulate(table(count, options.rounds, options.directory), headers, tablefmt="pipe", disable_numparse=True)
        )
        print()


if __name__ == "__main__":
    main()
