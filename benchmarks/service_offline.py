"""The offline part of `benchmarks.service`, which runs the model in a process without a service.

The code for reading and preparing the texts and for computing the outputs is the same as in the service.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.service_client import texts
from harness.execute.variables import thread_environment

BATCH_SIZE = 32


class Offline:
    """A process that computes the outputs for texts on request."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def measure(self, size: int, seconds: float) -> tuple[list[float], float]:
        """Compute the outputs for batches of `size` texts one after the other. Return the duration of each batch and
        the CPU time of the process, in seconds.
        """
        self._connection.send((size, seconds))
        times, cpu_s = self._connection.recv()
        return times, cpu_s


@contextlib.contextmanager
def opened(run: str, results: Path, threads: int) -> Iterator[Offline]:
    """Start the process, with a model that uses `threads` CPU threads."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    before = dict(os.environ)
    os.environ.update(thread_environment(threads))  # read by the numerical libraries when the process loads them
    process = context.Process(target=_answer, args=(theirs, run, results, threads), daemon=True)
    process.start()
    os.environ.clear()
    os.environ.update(before)
    theirs.close()
    with ours:
        assert ours.recv() == "ready"
        yield Offline(ours)
    process.join(10)


def _answer(connection: Connection, run_id: str, results: Path, threads: int) -> None:
    from msgspec.structs import replace

    from harness.deploy.predict import model_job, opened_model, reader_of, stored_preprocessing
    from harness.deploy.serving.frames import Part
    from harness.deploy.serving.limits import Limits
    from harness.deploy.serving.model import Preparing, answered
    from harness.deploy.serving.requests import Requests
    from harness.execute.trial import crashing
    from harness.plugins import discover
    from harness.records.store import Store

    run = Store(results).find(run_id)
    preprocessing, limits = stored_preprocessing(run), Limits(batch_size=BATCH_SIZE)
    job = model_job(run, discover((), crashing), preprocessing.info)
    job = replace(job, spec=replace(job.spec, threads=threads))
    with (
        tempfile.TemporaryDirectory() as directory,
        opened_model(job) as (prepared, session),
        session.inference(),
        contextlib.suppress(EOFError),
    ):
        requests = Requests(reader_of(preprocessing), Path(directory), limits)
        preparing = Preparing(preprocessing, requests, prepared.catalog)
        connection.send("ready")
        while True:
            size, seconds = connection.recv()
            content, times = texts(size), []
            cpu_s, end = time.process_time(), time.perf_counter() + seconds
            while (start := time.perf_counter()) < end:
                answered(session, preparing.prepared([Part(instances=content)]), limits, job.info)
                times.append(time.perf_counter() - start)
            connection.send((times, time.process_time() - cpu_s))
