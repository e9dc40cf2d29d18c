"""One run in a child process: train, time, score, and assemble the record.

`carry_out` returns the record and writes ``arrays.npz`` and, if requested, the weights to the call's directory. The
parent assigns the run's name and repeat number. If an exception is raised, the record contains the information
collected before the exception. If the process ends without a record, the parent creates a record.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from harness.data.install import Log, reporter
from harness.execute.child import ChildContext
from harness.execute.environment import collect
from harness.execute.failures import from_exception
from harness.execute.preparation import (
    Preparation,
    cache_data,
    choose_device,
    is_cached,
    load_plugins,
    opened_session,
    preparation_of,
    prepare_data,
    starting_weights,
)
from harness.interfaces import Dataset, PreparedData, Session
from harness.measure import summary
from harness.measure.environment import CORE_PACKAGES, versions
from harness.measure.machine import Machine
from harness.measure.memory import release_free_memory
from harness.measure.nvml import gpu_processes
from harness.measure.phases import Emit, Phases
from harness.records import (
    DataPrepared,
    DeviceMemory,
    EpochEnded,
    Evidence,
    Failure,
    Fetching,
    MetricCalled,
    ModelInfo,
    PluginRef,
    Provenance,
    RunRecord,
    RunSpec,
    Scores,
    Success,
    TimeToTarget,
)
from harness.records.arrays import write_arrays
from harness.records.scratch import save as save_file
from harness.records.store import ARRAYS, WEIGHTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.data.download import Report
    from harness.measure.inference import Inference
    from harness.measure.quality.scorer import Scorer
    from harness.measure.training import Training


FETCHING_S = 0.25
"""Minimum interval between download progress events, in seconds."""


class RunJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a child process that executes a run."""

    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    save_weights: bool = False
    """If True, the trained canonical weights are saved next to the arrays."""


@dataclass(frozen=True)
class Timed:
    """Results of training and timed inference."""

    training: Training
    inference: Inference


@dataclass(frozen=True)
class Scored:
    """Predictions of the trained model and their scores."""

    scores: Scores
    test_outputs: NDArray[Any]
    validation_outputs: NDArray[Any]
    evaluated_weights_digest: str
    """Digest of the session's weights after the predictions, or an empty string for a model without canonical weights.
    """
    device_memory: DeviceMemory | None


def carry_out(job: RunJob, context: ChildContext) -> RunRecord:
    """Execute one run and return its record. If an exception is raised, the record's outcome is a `Failure`."""
    start = time.perf_counter()
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    reporter.set(lambda dataset: _fetching(dataset, context.send))
    run: Run | None = None
    outcome: Success | Failure
    environment = collect()  # Collect the environment before the run, so that the load average excludes the run.
    try:
        run = Run(job, context)
        outcome = run.go()
    except Exception as error:
        traceback.print_exc()
        outcome = from_exception(error, run.backend, run.phases.current) if run else from_exception(error)
    if run is not None:
        packages = versions((*CORE_PACKAGES, *run.backend.packages))
        environment = msgspec.structs.replace(environment, packages=packages)
    return RunRecord(
        run_id="",
        key="",
        repeat=0,
        started_at=started_at,
        wall_s=time.perf_counter() - start,
        spec=run.spec if run else job.spec,
        environment=environment,
        provenance=run.provenance if run else Provenance(plugins=list(job.plugins)),
        outcome=outcome,
    )


class Run:
    """A run, and the information that has been collected so far, which is recorded even if the run fails."""

    def __init__(self, job: RunJob, context: ChildContext) -> None:
        self.spec = job.spec
        self._save_weights = job.save_weights
        self.provenance = Provenance(plugins=list(job.plugins))
        self.phases = Phases(context.send)
        self._emit: Emit = context.send
        self._announce = lambda metric: context.send(MetricCalled(metric=metric))
        self._directory = context.directory
        self._catalog = load_plugins(job.plugins)
        self.task = self._catalog.task(self.spec.task)
        self.backend = self._catalog.backend(self.spec.backend)

    def learn(self, **known: Any) -> None:
        """Set fields of the provenance."""
        self.provenance = msgspec.structs.replace(self.provenance, **known)

    def go(self) -> Success:
        """Execute the stages of the run in order."""
        from harness.data.protect import Unchanged
        from harness.measure.quality.scorer import scorer

        prepared, machine = self._prepare()
        unchanged = Unchanged(prepared.data)
        metrics = self._catalog.metrics_of(self.task.name)
        judge = scorer(prepared.data.info, self.task.metric, metrics, self._announce)
        with contextlib.ExitStack() as stack:
            with self.phases("build"):
                session = stack.enter_context(self._opened(prepared))
            clock_s, wall_s = time.perf_counter(), time.time()
            timed = self._train_and_time(prepared, session, machine, judge)
            scored = self._score(prepared, session, machine, judge, timed)
            clock_s, wall_s = time.perf_counter() - clock_s, time.time() - wall_s
            unchanged.check(prepared.data, self.backend.name)
            return self._summarize(prepared, machine, timed, scored, clock_s, wall_s)

    def _prepare(self) -> tuple[Preparation, Machine]:
        """Import the framework, choose the device and prepare the data."""
        os.environ.update(self.backend.environment)
        with self.phases("import"):
            if self.task.objective == "classification":
                # Import now, so that import time is not attributed to scoring.
                import sklearn.metrics  # noqa: F401
            before = gpu_processes() if self.spec.device != "cpu" else {}
            device = choose_device(self.backend, self.spec)
            self.spec = msgspec.structs.replace(self.spec, device=device.name)
            self.learn(device_name=device.description)
            machine = Machine(device.name, gpu_uuid=device.uuid, gpu_processes=before)
        if not is_cached(self._catalog, self.spec):
            with self.phases("prepare"):
                # Cached on disk: from here on, this run behaves like one that hits the cache.
                cache_data(self._catalog, self.spec)
            release_free_memory()
        with self.phases("data"):
            data = prepare_data(self._catalog, self.spec)
            self.learn(dataset_digest=data.digest, data=data.info)
        self._emit(
            DataPrepared(dataset=self.spec.dataset, examples=_examples(data), warnings=data.info.warnings),
        )
        return preparation_of(self.spec, self._catalog, device, data), machine

    @contextlib.contextmanager
    def _opened(self, prepared: Preparation) -> Iterator[Session]:
        """Open a session with the initial weights, and close it at the end."""
        from harness.records.arrays import digest

        weights, notes = starting_weights(prepared)
        self.learn(initial_weights_digest=digest(weights) if weights else None)
        with opened_session(prepared, weights) as session:
            self.learn(notes=session.notes() | notes | _gpu_settings(self.spec.device))
            yield session

    def _train_and_time(self, prepared: Preparation, session: Session, machine: Machine, judge: Scorer) -> Timed:
        from harness.measure import inference, training

        spec, data, phases = self.spec, prepared.data, self.phases
        by_steps = self.backend.trains_by_steps
        trained = training.train(session, data, spec, judge, phases, self._emit, machine.read, by_steps=by_steps)
        with phases("inference"):
            batch_size = min(spec.recipe.batch_size, len(data.test))
            return Timed(trained, inference.measure(session, data.test, batch_size, spec.protocol, machine.read))

    def _score(self, prepared: Preparation, session: Session, machine: Machine, judge: Scorer, timed: Timed) -> Scored:
        from harness.data.protect import read_only_split
        from harness.execute.weights import check, save
        from harness.measure.inference import predict
        from harness.records.arrays import digest

        data, batch_size, outputs = prepared.data, self.spec.recipe.batch_size, prepared.data.info.outputs
        with self.phases("score"):
            weights = session.get_weights()
            check(weights, prepared.request.parameters)
            self.learn(final_weights_digest=digest(weights) if weights else None)
            if self._save_weights and weights:
                save_file(self._directory, WEIGHTS, lambda path: save(path, weights))
            test = predict(session, data.test, batch_size, outputs)
            validation = predict(session, data.validation, batch_size, outputs)
            evaluated = digest(session.get_weights()) if weights else ""
            device_memory = _device_memory(session, machine)
        if not timed.training.is_enough():
            with self.phases("sampling"):
                timed.training.sample()  # Sample after the predictions, because sampling continues training.
        with self.phases("score"):
            reference = None
            solution = prepared.model.solve(prepared.request.config, data.info, read_only_split(data.train))
            if solution is not None:
                session.set_weights(solution)
                reference = data.test.targets, predict(session, data.test, batch_size, outputs)
            scores = judge.scores(
                (data.test.targets, test), (data.validation.targets, validation), reference, data.test.groups
            )
        return Scored(scores, test, validation, evaluated, device_memory)

    def _summarize(
        self, prepared: Preparation, machine: Machine, timed: Timed, scored: Scored, clock_s: float, wall_s: float
    ) -> Success:
        import numpy as np

        from harness.measure.inference import largest_error
        from harness.records.arrays import digest

        data, protocol, trained, inference = prepared.data, self.spec.protocol, timed.training, timed.inference
        examples, error = largest_error(inference.kept, scored.test_outputs, inference.batch_size)
        model = ModelInfo(
            parameters=sum(int(np.prod(p.shape)) for p in prepared.request.parameters if p.trainable),
            flops_per_sample=float(prepared.model.flops_per_sample(prepared.request.config, data.info)),
        )
        arrays = _arrays(trained, inference) | {
            "test_outputs": scored.test_outputs,
            "test_targets": data.test.targets,
            "validation_outputs": scored.validation_outputs,
            "validation_targets": data.validation.targets,
        }
        save_file(self._directory, ARRAYS, lambda path: write_arrays(path, arrays))
        train = summary.throughput("train_throughput", trained.timed, trained.batch_size, protocol, machine)
        infer = summary.throughput("inference_throughput", inference.timed, inference.batch_size, protocol, machine)
        return Success(
            scores=scored.scores,
            curves=trained.curves,
            speed=summary.speed(trained.first_step_s, train, infer, model, by_steps=self.backend.trains_by_steps),
            latency=summary.latency(inference),
            memory=summary.memory(self.phases.memory, scored.device_memory),
            model=model,
            phases_s=self.phases.seconds,
            examples=_examples(data),
            flags=[*train.flags, *infer.flags],
            energy=summary.energy(train, infer, machine),
            time_to_target=self._time_to_target(trained.curves),
            evidence=Evidence(
                timed_examples=examples,
                timed_error=error,
                evaluated_weights_digest=scored.evaluated_weights_digest,
                clock_s=clock_s,
                wall_s=wall_s,
                arrays_digest=digest(arrays),
            ),
        )

    def _time_to_target(self, curves: Sequence[EpochEnded]) -> TimeToTarget | None:
        target = self.spec.protocol.target
        if target is None and self.spec.source is None:
            target = self._catalog.dataset(self.spec.dataset).target
        if target is None:
            return None
        metric = self._catalog.metric(self.task.metric)
        return summary.time_to_target(curves, metric.name, target, higher_is_better=metric.higher_is_better)


def _examples(data: PreparedData) -> dict[str, int]:
    return {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}


def _arrays(trained: Training, timed: Inference) -> dict[str, Any]:
    import numpy as np

    train, sampled = trained.timed.windows[: trained.recipe_windows], trained.timed.windows[trained.recipe_windows :]
    return {
        "train_batch_size": np.array(trained.batch_size),
        "train_window_steps": np.array([1, *(window.batches for window in train)]),
        "train_window_s": np.array([trained.first_step_s, *(window.seconds for window in train)], np.float64),
        "train_losses": np.array(trained.losses),
        "sampling_window_steps": np.array([window.batches for window in sampled], np.int64),
        "sampling_window_s": np.array([window.seconds for window in sampled], np.float64),
        "inference_window_batches": np.array([window.batches for window in timed.timed.windows]),
        "inference_window_s": np.array([window.seconds for window in timed.timed.windows]),
        "latencies_s": np.array(timed.latencies_s),
    }


def _gpu_settings(device: str) -> dict[str, str]:
    """Return the environment variables that determine which GPU the name of a CUDA device refers to."""
    names = ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES") if device.startswith("cuda") else ()
    return {name: os.environ[name] for name in names if name in os.environ}


def _device_memory(session: Session, machine: Machine) -> DeviceMemory | None:
    """Return the memory that the framework reports, with the peak that the driver reports for this process if the
    framework does not report one."""
    machine.read()
    memory = session.device_memory()
    if memory is None or memory.driver_peak_bytes is not None:
        return memory
    return msgspec.structs.replace(memory, driver_peak_bytes=machine.gpu_peak_bytes)


def _fetching(dataset: Dataset, emit: Emit) -> Report:
    """Return a function that reports download progress to the log and, a few times per second, to the parent."""
    log, sent_at = Log(dataset), -math.inf

    def report(name: str, done: int, total: int | None) -> None:
        nonlocal sent_at
        log(name, done, total)
        if time.monotonic() - sent_at >= FETCHING_S or done == total:
            sent_at = time.monotonic()
            emit(Fetching(dataset=dataset.name, file=name, done_bytes=done, total_bytes=total))

    return report
