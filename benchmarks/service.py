"""Measure the overhead of ``harness serve``: ``python -m benchmarks.service RUN [--sustained 300]``.

The service and the client run on this machine and share its cores. For comparison, a process without a service
(offline) computes the outputs for the same texts, with the same model, code and number of threads. Each round consists
of four measurements, in the order offline, service, service, offline. The tables show the median over the rounds with a
confidence interval, whose confidence level is at least 95% (`harness.measure.steady.median_interval`).

- Latency: one request at a time, with one text each.
- Throughput: requests of 1, 8 and 32 texts over several connections, relative to offline batches of 32 texts. All
  pending requests together contain 128 texts. The table also shows the CPU time that each process spends per text. The
  client, the HTTP process and the model's process share the cores of the machine, so the sum of their CPU times per
  text limits the throughput.
- Sustained load (``--sustained SECONDS``): requests of one text at random times, at 80% of the throughput measured for
  such requests. For each tenth of the duration, the benchmark reports the errors, the latency and the memory of the
  service.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
from tabulate import tabulate

from benchmarks.service_client import Load, closed_loop, random_arrivals
from benchmarks.service_offline import BATCH_SIZE, Offline, opened
from harness.measure.steady import median_interval

SIZES = (1, 8, 32)
OPEN_TEXTS = 4 * BATCH_SIZE
"""Total number of texts in all pending requests. While the model processes two batches, the responses for two other
batches and the next requests are handled.
"""
T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """A running service and its processes, keyed by name."""

    port: int
    processes: dict[str, psutil.Process]

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU time of each process, and of this process (the client), in seconds."""
        times = {name: process.cpu_times() for name, process in self.processes.items()}
        return {"client": time.process_time(), **{name: spent.user + spent.system for name, spent in times.items()}}

    def memory_mib(self) -> list[float]:
        """Return the current memory of the HTTP process and of the model's process, in MiB."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            text = answer.read().decode()
        pattern = r'harness_resident_memory_bytes{{process="{}"}} (\S+)'
        found = [re.search(pattern.format(name), text) for name in ("http", "model")]
        return [float(match[1]) / 2**20 for match in found if match is not None]


@contextlib.contextmanager
def serving(run: str, results: Path, threads: int) -> Iterator[Service]:
    """Start a service."""
    command = [sys.executable, "-m", "harness", "serve", run, "--port", "0", "--threads", str(threads)]
    command += ["--results", str(results)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                    http = psutil.Process(process.pid)
                    (model,) = (child for child in http.children() if "child_main" in " ".join(child.cmdline()))
                    yield Service(int(found[1]), {"HTTP": http, "model": model})
                    break
            else:
                raise SystemExit("the service did not start")
        finally:
            process.send_signal(signal.SIGTERM)


def run_client(client: Coroutine[Any, Any, T]) -> T:
    """Run the client, using uvloop's event loop if uvloop is installed."""
    factory = None
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(client)


def load_of(service: Service, size: int, seconds: float, connections: int) -> Load:
    """Measure the service. Exit with an error if a request failed."""
    load = run_client(closed_loop(service.port, size, connections, seconds))
    if load.failed:
        raise SystemExit(f"{load.failed} of {len(load.latencies_s)} requests failed")
    return load


def latencies(service: Service, offline: Offline, rounds: int, seconds: float) -> list[tuple[Any, ...]]:
    """Return a table of the latency for one text."""
    found: list[tuple[float, float]] = []
    for _ in range(rounds):
        inside, over_http = [], []
        for is_service in (False, True, True, False):
            if is_service:
                over_http += load_of(service, 1, seconds, 1).latencies_s
            else:
                inside += offline.measure(1, seconds)[0]
        found.append((1e3 * statistics.median(inside), 1e3 * statistics.median(over_http)))
    columns = {
        "offline": [inside for inside, _ in found],
        "service": [over_http for _, over_http in found],
        "added by the service": [over_http - inside for inside, over_http in found],
    }
    return [(name, *summary(values, ".3f")) for name, values in columns.items()]


def throughput(service: Service, offline: Offline, size: int, rounds: int, seconds: float) -> tuple[Any, ...]:
    """Return a row with the throughput for requests of `size` texts."""
    rates: dict[str, list[float]] = {"offline": [], "service": []}
    cpu_us: dict[str, list[float]] = {"client": [], "HTTP": [], "model": [], "offline": []}
    for _ in range(rounds):
        texts, spent_s = {"offline": 0, "service": 0}, {"offline": 0.0, "service": 0.0}
        cpu_s = dict.fromkeys(cpu_us, 0.0)
        for kind in ("offline", "service", "service", "offline"):
            if kind == "offline":
                times, used_s = offline.measure(BATCH_SIZE, seconds)
                texts[kind] += BATCH_SIZE * len(times)
                spent_s[kind] += sum(times)
                cpu_s[kind] += used_s
            else:
                before = service.cpu_s()
                load = load_of(service, size, seconds, max(1, OPEN_TEXTS // size))
                texts[kind] += size * len(load.latencies_s)
                spent_s[kind] += load.seconds
                for name, used_s in service.cpu_s().items():
                    cpu_s[name] += used_s - before[name]
        for kind, values in rates.items():
            values.append(texts[kind] / spent_s[kind])
        for name, used_s in cpu_s.items():
            cpu_us[name].append(1e6 * used_s / texts["offline" if name == "offline" else "service"])
    relative = [served / computed for served, computed in zip(rates["service"], rates["offline"], strict=True)]
    medians = [f"{statistics.median(values):.0f}" for values in (*rates.values(), *cpu_us.values())]
    return size, *medians[:2], *summary(relative, ".2f"), *medians[2:]


def summary(values: Sequence[float], form: str) -> tuple[str, str]:
    """Return the median and its confidence interval, or the range if there are fewer than six values."""
    low, high = median_interval(np.array(values)) or (min(values), max(values))
    return format(statistics.median(values), form), f"{low:{form}} to {high:{form}}"


def sustained(service: Service, rate: float, seconds: float) -> list[tuple[Any, ...]]:
    """Return a table of the results of a sustained load, with one row for each tenth of the duration."""
    rows: list[tuple[Any, ...]] = [("0 s", 0, 0, "", "", *service.memory_mib())]

    def add(load: Load) -> None:
        ordered = sorted(load.latencies_s)
        p50, p99 = (f"{1e3 * ordered[int(len(ordered) * q)]:.1f}" for q in (0.5, 0.99))
        after = f"{len(rows) * seconds / 10:.0f} s"
        rows.append((after, len(ordered), load.failed, p50, p99, *service.memory_mib()))

    run_client(random_arrivals(service.port, rate, seconds, add))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("run", help="id of a run that has saved weights and uses text data")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results directory [results]")
    parser.add_argument(
        "--threads", type=int, default=1, help="number of CPU threads of the model, offline and in the service [1]"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of texts per request [1 8 32]")
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds, at least 6 for an interval [7]")
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of each measurement, in seconds [2]")
    parser.add_argument("--sustained", type=float, default=0.0, help="duration of the sustained load, in seconds [0]")
    options = parser.parse_args()
    run, results, threads = options.run, options.results, options.threads
    with serving(run, results, threads) as service, opened(run, results, threads) as offline:
        for size in options.sizes:  # warm-up
            load_of(service, size, 0.5, 4)
        offline.measure(1, 0.5), offline.measure(BATCH_SIZE, 0.5)
        table = latencies(service, offline, options.rounds, options.seconds / 4)
        print(tabulate(table, ("one text", "p50 in ms", "interval"), tablefmt="pipe", disable_numparse=True), "\n")
        rows = [throughput(service, offline, size, options.rounds, options.seconds) for size in options.sizes]
        cpu = [f"CPU µs per text: {name}" for name in ("client", "HTTP", "model", "offline")]
        headers = ("texts in a request", "offline, texts/s", "service, texts/s", "ratio", "interval", *cpu)
        print(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True), "\n")
        if options.sustained:
            load = load_of(service, 1, 10.0, OPEN_TEXTS)
            rate = 0.8 * len(load.latencies_s) / load.seconds
            print(f"{rate:.0f} requests/s for {options.sustained:g} s\n")
            found = sustained(service, rate, options.sustained)
            columns = ("after", "requests", "failed", "p50 ms", "p99 ms", "HTTP MiB", "model MiB")
            print(tabulate(found, columns, floatfmt=".1f", tablefmt="pipe"))


if __name__ == "__main__":
    main()
