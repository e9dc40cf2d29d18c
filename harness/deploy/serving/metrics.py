"""Prometheus metrics of a service."""

from __future__ import annotations

from collections.abc import Callable

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from harness.measure.memory import peak_of

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
EXAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
PATHS = ("/", "/predict", "/model", "/health", "/ready", "/metrics", "/openapi.json", "/docs")


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("harness_requests", "Number of requests.", ["path", "status"], registry=self.registry)
        self._seconds = Histogram(
            "harness_request_seconds",
            "Duration of successful predictions, in seconds.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._batches = Histogram(
            "harness_batch_examples", "Number of examples in a batch.", buckets=EXAMPLES, registry=self.registry
        )
        self.restarts = Counter(
            "harness_model_restarts", "Number of times the model's process was restarted.", registry=self.registry
        )
        self._waiting = Gauge("harness_waiting_examples", "Number of waiting examples.", registry=self.registry)
        self._memory = {
            what: Gauge(
                f"harness_{what}_memory_bytes",
                f"{title} memory of a process, in bytes.",
                ["process"],
                registry=self.registry,
            )
            for what, title in (("resident", "Resident"), ("peak", "Peak resident"))
        }

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request. Requests for unknown paths are counted together."""
        self._requests.labels(path if path in PATHS else "other", str(status)).inc()
        if path == "/predict" and status == 200:
            self._seconds.observe(seconds)

    def batch(self, examples: int) -> None:
        """Count a batch."""
        self._batches.observe(examples)

    def watch_waiting(self, examples: Callable[[], int]) -> None:
        """Set the function that returns the number of waiting examples."""
        self._waiting.set_function(examples)

    def read_memory(self, processes: dict[str, int]) -> None:
        """Read the memory usage of the processes with these ids."""
        for name, pid in processes.items():
            try:
                resident, peak = psutil.Process(pid).memory_info().rss, peak_of(pid)
            except psutil.Error:  # raised if the process has ended
                continue
            self._memory["resident"].labels(name).set(resident)
            self._memory["peak"].labels(name).set(peak or resident)
