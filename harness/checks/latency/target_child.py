"""The child process that measures a service over HTTP. This process loads the run's data, but does not import a
framework."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from harness.checks.latency import loadgen
from harness.checks.latency.bodies import bodies
from harness.checks.latency.child import LATENCIES, MAX_BYTES, START, late, searched
from harness.checks.latency.result import LatencyResult, Measured, Served, Settings, percentiles_ms
from harness.checks.latency.search import LATE
from harness.checks.latency.target import (
    CONNECTIONS,
    Answers,
    Client,
    Target,
    capacity_qps,
    limited,
    outputs,
    peak_memory,
)
from harness.data.user_files.dataset import dataset_of
from harness.data.user_files.new_data import columns_of
from harness.errors import HarnessError
from harness.execute.child import ChildContext
from harness.execute.environment import collect
from harness.execute.preparation import load_and_prepare, load_plugins
from harness.interfaces import PreparedData
from harness.measure.distance import relative
from harness.measure.machine import Machine, difference
from harness.measure.quality.scorer import Scorer, scorer
from harness.records import DataInfo, PluginRef, RunSpec
from harness.records.arrays import read_arrays, write_arrays
from harness.records.store import ARRAYS

if TYPE_CHECKING:
    from numpy.typing import NDArray

CALIBRATION_S = 1.0
"""Duration of the measurement of the service's capacity, in seconds."""
SAME_LABELS, SAME_OUTPUTS = 0.99, 1e-2
"""Minimum fraction of answers whose label matches the run's prediction, and maximum norm-wise relative difference
between the regression outputs of the service and the run. If the answers differ more, the service is assumed not to
serve the run's model."""


class TargetJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a child process that measures a service."""

    run_id: str
    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    run: str
    """Path of the run's directory."""
    dataset_digest: str
    settings: Settings
    backend: str
    """Name of the backend that the service uses."""
    device: str
    threads: int
    """Number of CPU threads of the served model."""
    find_qps: bool


class Quality:
    """Comparison of a service's answers with the targets and with the run's predictions."""

    def __init__(self, data: PreparedData, judge: Scorer, predicted: NDArray[Any]) -> None:
        self._data, self._judge, self._predicted = data, judge, predicted

    def values(self, answers: Answers) -> dict[str, Any]:
        """Return the fields of `Served` that describe the quality of the answers. Raises `harness.HarnessError` if an
        answer has the wrong format."""
        info = self._data.info
        indices, found = outputs(answers, info, names(info))
        targets, predicted = self._data.test.targets[indices], self._predicted[indices]
        score, run_score = (self._score(targets, values) for values in (found, predicted))
        is_regression = info.objective == "regression"
        same = None if is_regression or not len(indices) else float((found.argmax(1) == predicted.argmax(1)).mean())
        return {
            "examples": len(np.unique(indices)),
            "metric": self._judge.primary,
            "score": score,
            "run_score": run_score,
            "same_labels": same,
            "error": relative(found, predicted) if is_regression and len(indices) else None,
        }

    def _score(self, targets: NDArray[Any], values: NDArray[Any]) -> float | None:
        if not len(targets):
            return None
        return self._judge.quick(targets, values)[self._judge.primary]

    def problem(self, answers: Answers) -> str:
        """Return the reason why the answers cannot come from the run's model, or an empty string."""
        if not answers.contents:
            return "the service did not answer any query"
        found = self.values(answers)
        if found["same_labels"] is not None and found["same_labels"] < SAME_LABELS:
            return f"only {found['same_labels']:.1%} of the answers have the label that the run predicted"
        if found["error"] is not None and not found["error"] <= SAME_OUTPUTS:
            return f"the answers differ from the run's predictions by {found['error']:.1e}"
        return ""


def names(info: DataInfo) -> tuple[str, ...]:
    """Return the names of the outputs in the service's answers."""
    return info.label_names or tuple(map(str, range(info.outputs)))


def measure_target(job: TargetJob, context: ChildContext) -> LatencyResult:
    """Measure a service with examples from the run's test split, and save the latencies and LoadGen's logs."""
    settings = job.settings
    target = Target.with_token(settings.target or "", settings.query_timeout_s)
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    environment = collect()
    catalog = load_plugins(job.plugins)
    task, dataset = catalog.task(job.spec.task), dataset_of(job.spec, catalog)
    raw, data = load_and_prepare(task, dataset, job.spec.dataset_options, job.spec.task_options)
    if data.digest != job.dataset_digest:
        raise HarnessError(
            "the data differ from those of the run; restore the version of the data that the run used, or train again"
        )
    columns = columns_of(job.spec.dataset_options, data.reading) if task.kind == "table" else ()
    content_type, sent = bodies(task.kind, _some(raw.test.inputs), raw.details, data.reading, columns)
    quality = Quality(
        data,
        scorer(data.info, catalog.primary_metric(job.spec).name, catalog.metrics_of(job.spec)),
        read_arrays(Path(job.run) / ARRAYS)["test_outputs"],
    )
    taken: dict[float | None, Answers] = {}
    machine = Machine("cpu")
    with contextlib.ExitStack() as stack:
        clients = [Client(target, content_type, sent, Answers()) for _ in range(CONNECTIONS)]
        for client in clients:
            stack.callback(client.close)
        stack.enter_context(limited(clients))
        capacity = capacity_qps(clients[:16], len(sent), CALIBRATION_S)

        def run(settings: Settings, logs: Path) -> tuple[Measured, list[float]]:
            answers = taken[settings.target_qps] = Answers(may_reject=job.find_qps)
            for client in clients:
                client.answers = answers
            first, *others = [checked(client) for client in clients]
            single = msgspec.structs.replace(settings, batch_size=1)  # the service collects the queries into batches
            return loadgen.run(first, len(sent), single, 1 / capacity, logs, others, answers.failed_s, abandon=True)

        before = machine.read()
        search = None
        if job.find_qps:
            measured, latencies, search = searched(
                settings,
                run,
                START * capacity,
                context.directory,
                lambda: clients[0].answers.failed_s,
                lambda: quality.problem(clients[0].answers),
            )
            settings = msgspec.structs.replace(settings, target_qps=search.qps or search.probes[-1].target_qps)
        else:
            measured, latencies = run(settings, context.directory)
        flags = machine.suspicions(difference(before, machine.read()))
    answers = taken[settings.target_qps]
    write_arrays(context.directory / LATENCIES, {"latencies_s": np.array(latencies)})
    return LatencyResult(
        run_id=job.run_id,
        settings=settings,
        measured=_judged(measured, latencies, settings, answers, quality.problem(answers)),
        samples_per_s=None,
        percentiles_ms=percentiles_ms(latencies),
        mean_ms=1e3 * fmean(latencies),
        weights="trained",
        device=job.device,
        started_at=started_at,
        environment=environment,
        flags=[f"{kind.replace('_', ' ')}: {detail}" for kind, detail in flags],
        served=Served(
            backend=job.backend,
            threads=job.threads,
            failures=dict(answers.failures),
            late=late(latencies, answers.failed_s, settings),
            memory_bytes=peak_memory(target),
            parts_ms=answers.parts_ms(),
            capacity_qps=capacity,
            **quality.values(answers),
        ),
        search=search,
    )


def checked(client: Client) -> loadgen.Answer:
    """Return the method `Client.answer`, which then raises `harness.HarnessError` if too many queries have failed."""

    def answer(samples: Sequence[int]) -> int:
        failed = client.answer(samples)
        if failed:
            client.answers.check()
        return failed

    return answer


def _judged(measured: Measured, latencies: list[float], settings: Settings, answers: Answers, problem: str) -> Measured:
    """Mark the result as invalid for reasons that LoadGen cannot detect: failed queries and wrong answers."""
    reasons = [problem] if problem else []
    if answers.failures and late(latencies, answers.failed_s, settings) > LATE * len(latencies):
        reasons.append(f"some queries failed and are counted as late ({answers.listed_failures()})")
    valid = measured.valid if not reasons else False
    return msgspec.structs.replace(measured, valid=valid, reasons=[*measured.reasons, *reasons])


def _some(inputs: Any) -> dict[str, Any]:
    """Return the first examples, up to a total size of `MAX_BYTES`."""
    found = {}
    count = min(len(array) for array in inputs.values())
    size = sum(_bytes(array) for array in inputs.values()) / max(1, count)
    most = max(1, int(MAX_BYTES / max(1, size)))
    for name, array in inputs.items():
        found[name] = array[:most]
    return found


def _bytes(array: Any) -> int:
    if array.dtype != object:
        return int(array.nbytes)
    return sum(getattr(item, "nbytes", len(item) if hasattr(item, "__len__") else 8) for item in array)
