"""Run the loop benchmarks and print a table of relative throughputs. Each framework runs in a separate process."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.contender import CONTENDERS, NEEDS

HERE = Path(__file__).parent
OUT = HERE.parent / ".benchmarks"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--backend", default="torch,tensorflow", help="frameworks, separated by commas [torch,tensorflow]"
    )
    parser.add_argument("--pairs", type=int, default=12, help="number of rounds, at least 6 [12]")
    parser.add_argument("--threads", type=int, help="number of threads used by the framework [same as in runs]")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="measure wall time, or the CPU time of the process, which depends less on other processes [wall]",
    )
    parser.add_argument("-k", default="", help="run only the benchmarks that match this pytest expression")
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    rows, status = [], 0
    for backend in options.backend.split(","):
        if importlib.util.find_spec(backend) is None:
            print(f"skipped {backend}: not installed", file=sys.stderr)
            continue
        for name in CONTENDERS[backend]:
            lacking = [module for module in NEEDS.get(name, ()) if importlib.util.find_spec(module) is None]
            if lacking:
                print(
                    f"skipped {name}: {', '.join(lacking)} not installed; run: pip install 'ml-harness[bench]'",
                    file=sys.stderr,
                )
        result = OUT / f"{backend}.json"
        result.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--override-ini=timeout=0"]
        command += [str(HERE / "test_overhead.py"), f"--framework={backend}", f"--pairs={options.pairs}"]
        command += [f"--clock={options.clock}"] + ([f"--threads={options.threads}"] if options.threads else [])
        command += [f"--benchmark-json={result}", "--benchmark-columns=median,iqr,rounds", "-k", options.k]
        status = subprocess.run(command, check=False).returncode or status
        if result.exists() and result.stat().st_size:
            benchmarks = json.loads(result.read_text())["benchmarks"]
            rows += [row for benchmark in benchmarks for row in rows_of(backend, benchmark)]
    headers = ["backend", "phase", "model", "contender", "samples/s", "relative to bare", "range", "rounds"]
    print("\n" + tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))
    return status


def rows_of(backend: str, benchmark: dict[str, Any]) -> list[list[str]]:
    """Return the table rows for one benchmark, one row per contender."""
    info = benchmark["extra_info"]
    return [
        [
            backend,
            info["phase"],
            info["model"],
            name,
            f"{result['samples_per_s']:.0f}",
            f"{result['ratio']:.3f}",
            "" if name == "bare" else "{:.3f} to {:.3f}".format(*result["ratio_range"]),
            str(info["pairs"]),
        ]
        for name, result in info["contenders"].items()
    ]


if __name__ == "__main__":
    sys.exit(main())
