"""Run the benchmarks, a process for each framework, and print one table of ratios."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from tabulate import tabulate

HERE = Path(__file__).parent
OUT = HERE.parent / ".benchmarks"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--backend", default="torch,tensorflow", help="frameworks, separated by commas")
    parser.add_argument("--pairs", type=int, default=12, help="pairs of rounds for each ratio (at least 6)")
    parser.add_argument("-k", default="", help="pytest's expression: only these benchmarks")
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    rows, status = [], 0
    for backend in options.backend.split(","):
        if importlib.util.find_spec(backend) is None:
            print(f"{backend} is not installed: left out", file=sys.stderr)
            continue
        result = OUT / f"{backend}.json"
        result.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--override-ini=timeout=0"]
        command += [str(HERE / "test_overhead.py"), f"--framework={backend}", f"--pairs={options.pairs}"]
        command += [f"--benchmark-json={result}", "--benchmark-columns=median,iqr,rounds", "-k", options.k]
        status = subprocess.run(command, check=False).returncode or status
        if result.exists() and result.stat().st_size:
            rows += [row(backend, benchmark) for benchmark in json.loads(result.read_text())["benchmarks"]]
    headers = [
        "backend",
        "what",
        "model",
        "bare samples/s",
        "harness samples/s",
        "harness / bare",
        "95% range",
        "pairs",
    ]
    print("\n" + tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))
    return status


def row(backend: str, benchmark: dict[str, object]) -> list[str]:
    info = benchmark["extra_info"]
    assert isinstance(info, dict)
    low, high = info["ratio_range95"]
    return [
        backend,
        info["what"],
        info["model"],
        f"{info['bare_samples_per_s']:.0f}",
        f"{info['harness_samples_per_s']:.0f}",
        f"{info['ratio']:.3f}",
        f"{low:.3f} to {high:.3f}",
        str(info["pairs"]),
    ]


if __name__ == "__main__":
    sys.exit(main())
