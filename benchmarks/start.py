"""Startup time of the command line: ``python -m benchmarks.start``.

``harness --help`` and ``harness list tasks`` are compared with an empty Python program, ``pytest --version`` and
``accelerate --help``. Each command runs in a new process, and each round reverses the order of the commands.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median

import numpy as np
from tabulate import tabulate

from harness.measure.steady import median_interval

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "harness --help": ["-m", "harness", "--help"],
    "harness list tasks": ["-m", "harness", "list", "tasks"],
    "pytest --version": ["-m", "pytest", "--version"],
    "accelerate --help": ["-m", "accelerate.commands.accelerate_cli", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="number of rounds, at least 6 [20]")
    rounds = max(6, parser.parse_args().rounds)
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name in reversed(COMMANDS) if number % 2 else COMMANDS:
            arguments = COMMANDS[name]
            start = time.perf_counter()
            done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr.decode(errors='replace')}")
            if number:  # discard the first round, which only fills the disk cache
                seconds[name].append(time.perf_counter() - start)
    bare, rows = seconds["python -c pass"], []
    for name, times in seconds.items():
        extra = np.array([1e3 * (t - b) for t, b in zip(times, bare, strict=True)])
        low, high = median_interval(extra) or (np.nan, np.nan)
        rows.append([name, f"{1e3 * median(times):.0f}", f"{np.median(extra):.0f}", f"{low:.0f} to {high:.0f}"])
    headers = ["command", "ms", "more than python, ms", "range"]
    print(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
