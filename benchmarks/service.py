"""Measure what ``harness serve`` adds to inference: ``python -m benchmarks.service RUN [--sustained 300]``.

The service runs on this machine and shares its cores with the client. The same model is also loaded in this process,
where the same code processes the same examples without HTTP. The service and this process are measured alternately, in
rounds. The tables show the median and the range over the rounds.

- Latency: consecutive requests with one example each.
- Throughput: requests of 1, 8 and 32 examples over several connections, relative to batches of 32 examples in this
  process (offline).
- Sustained load (``--sustained SECONDS``): requests of one example at random times, at 80% of the throughput of such
  requests. The errors, the latency and the memory of the service are reported for each tenth of the duration.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.deploy.predict import ModelJob, model_job, opened_model, reader_of, stored_preprocessing
from harness.deploy.serving.frames import Part
from harness.deploy.serving.limits import Limits
from harness.deploy.serving.model import Preparing, answered
from harness.deploy.serving.requests import Requests
from harness.execute.trial import crashing
from harness.execute.variables import child_environment
from harness.plugins import discover
from harness.records.store import Store, StoredRun

TEXTS = (
    "a great film that I would see again",
    "the plot makes no sense at all, and the actors look as if they knew it",
    "not bad",
    "two hours of my life that I would like to have back",
)
Answering = Callable[[Sequence[str]], Any]


@contextlib.contextmanager
def service(run: str, results: Path) -> Iterator[int]:
    """Start a service, and yield its port."""
    command = [sys.executable, "-m", "harness", "serve", run, "--port", "0", "--results", str(results)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                    yield int(found[1])
                    break
            else:
                raise SystemExit("the service did not start")
        finally:
            process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def in_process(run: StoredRun, job: ModelJob) -> Iterator[Answering]:
    """Load the model in this process, and yield a function that predicts texts without HTTP."""
    preprocessing, limits = stored_preprocessing(run), Limits()
    with (
        tempfile.TemporaryDirectory() as directory,
        opened_model(job) as (prepared, session),
        session.inference(),
    ):
        requests = Requests(reader_of(preprocessing), Path(directory), limits)
        preparing = Preparing(preprocessing, requests, prepared.catalog)
        yield lambda texts: answered(session, preparing.prepared([Part(instances=list(texts))]), limits, job.info)


class Client:
    """A connection to the service over which one request is sent at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connected(cls, port: int) -> Client:
        """Open a connection."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def predict(self, texts: Sequence[str]) -> int:
        """Request the predictions of texts, and return the HTTP status."""
        body = json.dumps({"instances": list(texts)}).encode()
        head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", answer, re.IGNORECASE)
        assert length is not None
        await self._reader.readexactly(int(length[1]))
        return int(answer.split(b" ", 2)[1])


def examples(count: int) -> list[str]:
    """Return `count` texts."""
    return list(itertools.islice(itertools.cycle(TEXTS), count))


def local_s(answer: Answering, count: int, size: int) -> list[float]:
    """Return the durations of `count` consecutive calls in this process, in seconds."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        answer(examples(size))
        times.append(time.perf_counter() - start)
    return times


async def remote_s(port: int, count: int) -> list[float]:
    """Return the durations of `count` consecutive requests with one example, in seconds."""
    client = await Client.connected(port)
    times = []
    for _ in range(count):
        start = time.perf_counter()
        assert await client.predict(examples(1)) == 200
        times.append(time.perf_counter() - start)
    return times


async def remote_rate(port: int, size: int, connections: int, seconds: float) -> float:
    """Return the throughput of the service over simultaneous connections, in examples per second."""
    end, done = time.perf_counter() + seconds, 0

    async def sending() -> None:
        nonlocal done
        client = await Client.connected(port)
        while time.perf_counter() < end:
            assert await client.predict(examples(size)) == 200
            done += size

    start = time.perf_counter()
    await asyncio.gather(*(sending() for _ in range(connections)))
    return done / (time.perf_counter() - start)


async def sustained(port: int, rate: float, seconds: float) -> list[tuple[Any, ...]]:
    """Send requests at random times. Return the results for each tenth of the duration."""
    waiting: asyncio.Queue[float] = asyncio.Queue()
    latencies: list[float] = []
    statuses: list[int] = []

    async def sending() -> None:
        client = await Client.connected(port)
        while True:
            due = await waiting.get()
            statuses.append(await client.predict(examples(1)))
            latencies.append(time.perf_counter() - due)

    senders = [asyncio.create_task(sending()) for _ in range(64)]
    draw, due, rows = random.Random(0), time.perf_counter(), []
    for tenth in range(1, 11):
        end = due + seconds / 10
        while due < end:
            due += draw.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            waiting.put_nowait(due)
        ordered = sorted(latencies)
        failed = sum(status != 200 for status in statuses)
        p50, p99 = (1e3 * ordered[int(len(ordered) * q)] for q in (0.5, 0.99))
        http, model = await asyncio.to_thread(memory_mib, port)
        rows.append((f"{tenth * seconds / 10:.0f} s", len(statuses), failed, p50, p99, http, model))
        latencies.clear()
        statuses.clear()
    for sender in senders:
        sender.cancel()
    return rows


def memory_mib(port: int) -> tuple[float, float]:
    """Return the current memory of the HTTP process and of the model's process, in MiB."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    http, model = (
        float(re.search(rf'harness_resident_memory_bytes{{process="{name}"}} (\S+)', text)[1])  # type: ignore[index]
        for name in ("http", "model")
    )
    return http / 2**20, model / 2**20


def spread(values: Sequence[float]) -> tuple[float, str]:
    """Return the median, and the range for a table."""
    return statistics.median(values), f"{min(values):.3g} to {max(values):.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("run", help="id of a run on text data whose weights were saved")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results directory [results]")
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds [7]")
    parser.add_argument("--sustained", type=float, default=0.0, help="duration of the sustained load, in seconds [0]")
    options = parser.parse_args()
    catalog = discover((), crashing)
    run = Store(options.results).find(options.run)
    job = model_job(run, catalog, stored_preprocessing(run).info)
    os.environ.update(child_environment(job.spec))
    with service(options.run, options.results) as port, in_process(run, job) as answer:
        latency: list[tuple[float, float]] = []
        rates: dict[int, list[float]] = {1: [], 8: [], 32: []}
        relative: dict[int, list[float]] = {1: [], 8: [], 32: []}
        local_s(answer, 200, 1), local_s(answer, 50, 32), asyncio.run(remote_s(port, 200))
        for _ in range(options.rounds):
            inside, over_http = local_s(answer, 500, 1), asyncio.run(remote_s(port, 500))
            latency.append((1e3 * statistics.median(inside), 1e3 * statistics.median(over_http)))
            for size, rate in rates.items():
                offline = 32 / statistics.fmean(local_s(answer, 60, 32))
                rate.append(asyncio.run(remote_rate(port, size, max(4, 64 // size), 2.0)))
                relative[size].append(rate[-1] / offline)
        rows = [
            ("in process", *spread([inside for inside, _ in latency])),
            ("service", *spread([over_http for _, over_http in latency])),
            ("added by the service", *spread([over_http - inside for inside, over_http in latency])),
        ]
        print(tabulate(rows, ("one example", "p50 in ms", "rounds"), floatfmt=".3f", tablefmt="pipe"), "\n")
        table = [(size, *spread(rates[size]), *spread(relative[size])) for size in rates]
        headers = ("examples in a request", "examples/s", "rounds", "relative to offline", "rounds")
        print(tabulate(table, headers, floatfmt=("", ".0f", "", ".2f", ""), tablefmt="pipe"), "\n")
        if options.sustained:
            load = 0.8 * statistics.median(rates[1])
            print(f"{load:.0f} requests/s for {options.sustained:g} s")
            found = asyncio.run(sustained(port, load, options.sustained))
            columns = ("after", "requests", "failed", "p50 ms", "p99 ms", "HTTP MiB", "model MiB")
            print(tabulate(found, columns, floatfmt=".1f", tablefmt="pipe"))


if __name__ == "__main__":
    main()
