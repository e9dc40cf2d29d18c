"""Measure the time needed to prepare SST-2, and the memory needed to train on a dataset that does not fit into memory.

``python -m benchmarks.data sst2`` measures how long it takes to prepare SST-2 and to load it from the cache. Each
measurement runs in a separate process and excludes import time. ``python -m benchmarks.data large [--gigabytes 5]``
creates images in a temporary folder, trains on them with ``harness run``, and prints the peak host memory from the
record.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

SIDE, CLASSES = 64, 10
IMAGE_BYTES = SIDE * SIDE * 3 * 4
"""Size of a prepared float32 image."""

TIMED = """
import sys, time
import numpy, tokenizers, scipy.special
from harness.data import prepared, prepared_cache, user_files
from harness.data.install import installed
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.execute.preparation import prepare_data
catalog = discover()
installed(catalog.dataset("sst2"))
(spec,) = expand(Selection(tasks=("nlp",), datasets=("sst2",), backends=(sys.argv[1],)), catalog)
start = time.perf_counter()
data = prepare_data(catalog, spec)
seconds = time.perf_counter() - start
assert len(data.train) + len(data.validation) == 67349
print(seconds)
"""


def sst2(backend: str, repeats: int) -> None:
    """Print how long it takes to prepare SST-2 and to load it from the cache."""
    first: list[float] = []
    again: list[float] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "HARNESS_CACHE": cache}
            for seconds in (first, again):
                command = [sys.executable, "-c", TIMED, backend]
                done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                seconds.append(float(done.stdout))
    for action, seconds in (("prepared", first), ("loaded from the cache", again)):
        spread = f"{min(seconds):.2f} to {max(seconds):.2f} s"
        print(f"sst2 {action}: median {median(seconds):.2f} s ({spread}, {repeats} repeats)")


def large(gigabytes: float, backend: str) -> None:
    """Train on generated images and print the peak host memory."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, results = Path(temporary) / "images", Path(temporary) / "results"
        count = _draw_images(folder, int(gigabytes * 1e9 / IMAGE_BYTES))
        command = [sys.executable, "-m", "harness", "run", "--task", "vision", "--model", "mlp", "--backend", backend]
        command += ["--dataset", str(folder), "--results", str(results), "--set", "recipe.epochs=2", "--threads", "1"]
        subprocess.run(command, env={**os.environ, "HARNESS_CACHE": f"{temporary}/cache"}, check=True)
        (path,) = results.glob("*/record.json")
        outcome = json.loads(path.read_bytes())["outcome"]
    peaks = {name: size / 1e9 for name, size in outcome["memory"]["host_peak_by_phase_bytes"].items()}
    print(f"{count} images, {count * IMAGE_BYTES / 1e9:.2f} GB of arrays; peak host memory by phase:")
    for name, size in peaks.items():
        print(f"  {name:10} {size:6.2f} GB  {outcome['phases_s'][name]:7.1f} s")


def _draw_images(folder: Path, count: int) -> int:
    """Write noise images centered on a class-dependent gray level and return the number of images."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(CLASSES):
        (folder / f"class-{number}").mkdir(parents=True)
    for index in range(count):
        number = index % CLASSES
        gray = rng.normal(60 + 15 * number, 40, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(gray).save(folder / f"class-{number}" / f"{index:06}.png", compress_level=0)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--backend", default="torch", help="backend to use [torch]")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sst2").add_argument("--repeats", type=int, default=5, help="number of repeats [5]")
    commands.add_parser("large").add_argument(
        "--gigabytes", type=float, default=5.0, help="size of the arrays in GB [5]"
    )
    options = parser.parse_args()
    if options.command == "sst2":
        sst2(options.backend, options.repeats)
    else:
        large(options.gigabytes, options.backend)


if __name__ == "__main__":
    main()
