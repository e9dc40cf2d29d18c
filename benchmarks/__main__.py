"""Run the benchmarks, a process for each framework, and print one table of ratios."""

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
    parser.add_argument("--backend", default="torch,tensorflow", help="frameworks, separated by commas")
    parser.add_argument("--pairs", type=int, default=12, help="rounds, at least 6; each gives every ratio once")
    parser.add_argument("-k", default="", help="pytest's expression: only these benchmarks")
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    rows, status = [], 0
    for backend in options.backend.split(","):
        if importlib.util.find_spec(backend) is None:
            print(f"{backend} is not installed: left out", file=sys.stderr)
            continue
        for name in CONTENDERS[backend]:
            lacking = [module for module in NEEDS.get(name, ()) if importlib.util.find_spec(module) is None]
            if lacking:
                print(f"{name} left out: {', '.join(lacking)} is not installed (the extra bench)", file=sys.stderr)
        result = OUT / f"{backend}.json"
        result.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--override-ini=timeout=0"]
        command += [str(HERE / "test_overhead.py"), f"--framework={backend}", f"--pairs={options.pairs}"]
        command += [f"--benchmark-json={result}", "--benchmark-columns=median,iqr,rounds", "-k", options.k]
        status = subprocess.run(command, check=False).returncode or status
        if result.exists() and result.stat().st_size:
            rows += [row for found in json.loads(result.read_text())["benchmarks"] for row in rows_of(backend, found)]
    headers = ["backend", "what", "model", "contender", "samples/s", "of the bare loop", "95% range", "rounds"]
    print("\n" + tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))
    return status


def rows_of(backend: str, benchmark: dict[str, Any]) -> list[list[str]]:
    info = benchmark["extra_info"]
    return [
        [
            backend,
            info["what"],
            info["model"],
            name,
            f"{found['samples_per_s']:.0f}",
            f"{found['ratio']:.3f}",
            "" if name == "bare" else "{:.3f} to {:.3f}".format(*found["ratio_range95"]),
            str(info["pairs"]),
        ]
        for name, found in info["contenders"].items()
    ]


if __name__ == "__main__":
    sys.exit(main())
