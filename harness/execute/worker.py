"""The child's main: one job in, one `RunRecord` out.

``python -m harness.execute.worker JOB RECORD EVENTS_FD`` reads the job, carries out the run, writes ``arrays.npz`` and
the record, and exits with status 0. The parent assigns the run's name and repeat number. An exception becomes a record
with everything known up to that point; if the process dies without a record, the parent writes one.
"""

from __future__ import annotations

import datetime
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.data.install import Log, reporter
from harness.execute.preparation import (
    choose_device,
    explain,
    is_prepared,
    load_plugins,
    prepare_data,
    session_request,
    starting_weights,
)
from harness.interfaces import Dataset, Model, PreparedData, Session, SessionRequest
from harness.measure import summary as figures
from harness.measure.environment import CORE_PACKAGES, collect, versions
from harness.measure.machine import Machine
from harness.measure.memory import give_back
from harness.measure.phases import Emit, Phases
from harness.records import (
    DeviceMemory,
    EpochEnded,
    Event,
    Evidence,
    Failure,
    Fetching,
    ModelInfo,
    Outcome,
    PluginRef,
    Provenance,
    RunRecord,
    RunSpec,
    Success,
    TimeToTarget,
)
from harness.records.store import ARRAYS, WEIGHTS, write_json

if TYPE_CHECKING:
    from harness.data.download import Report
    from harness.measure.inference import Inference
    from harness.measure.training import Training


FETCHING_S = 0.25
"""Between two words on a download."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    save_weights: bool = False
    """Leave the trained canonical weights beside the record."""


class Run:
    """One run and what is known of it so far, so that a failure can still tell."""

    def __init__(self, job: Job, emit: Emit, directory: Path) -> None:
        self.spec = job.spec
        self._save_weights = job.save_weights
        self.provenance = Provenance(plugins=list(job.plugins))
        self.phases = Phases(emit)
        self._emit = emit
        self._directory = directory
        self._catalog = load_plugins(job.plugins)
        self.task = self._catalog.task(self.spec.task)
        self.backend = self._catalog.backend(self.spec.backend)

    def learn(self, **known: Any) -> None:
        self.provenance = msgspec.structs.replace(self.provenance, **known)

    def go(self) -> Success:
        """The straight line of a run."""
        os.environ.update(self.backend.environment)
        with self.phases("import"):
            if self.task.objective == "classification":  # or their import would count as scoring
                import sklearn.metrics  # noqa: F401
            device = choose_device(self.backend, self.spec)
            self.spec = msgspec.structs.replace(self.spec, device=device.name)
            self.learn(device_name=device.description)
            machine = Machine(device.name)
        if not is_prepared(self._catalog, self.spec):
            with self.phases("prepare"):
                prepare_data(self._catalog, self.spec)  # kept on disk: this run goes on as the next one, which finds it
            give_back()
        with self.phases("data"):
            data = prepare_data(self._catalog, self.spec)
            self.learn(dataset_digest=data.digest, data=data.info)
        model, config, request = session_request(self._catalog, self.spec, data, device)
        with self.phases("build"):
            session = self.backend.open(request)
            self._initialise(session, model, request)
        try:
            return self._measure(session, model, config, data, request, machine)
        finally:
            session.close()

    def _initialise(self, session: Session, model: Model, request: SessionRequest) -> None:
        from harness.records.arrays import digest

        weights, notes = starting_weights(model, request, self.spec)
        session.set_weights(weights)
        self.learn(initial_weights_digest=digest(weights) if weights else None, notes=session.notes() | notes)

    def _measure(
        self,
        session: Session,
        model: Model,
        config: Any,
        data: PreparedData,
        request: SessionRequest,
        machine: Machine,
    ) -> Success:
        import numpy as np

        from harness.execute.weights import check, save
        from harness.measure import inference, training
        from harness.measure.quality.scorer import scorer
        from harness.records.arrays import digest

        spec, phases = self.spec, self.phases
        metrics = [self._catalog.metric(name) for name in self.task.metrics]
        judge = scorer(data.info, self.task.metric, metrics)
        batch_size = spec.recipe.batch_size
        clock = (time.perf_counter(), time.time())
        trained = training.train(
            session, data, spec, judge, phases, self._emit, machine.read, by_steps=self.backend.trains_by_steps
        )
        with phases("inference"):
            timed = inference.measure(session, data.test, min(batch_size, len(data.test)), spec.protocol, machine.read)
        with phases("score"):
            weights = session.get_weights()
            check(weights, request.parameters)
            self.learn(final_weights_digest=digest(weights) if weights else None)
            if self._save_weights and weights:
                save(self._directory / WEIGHTS, weights)
            test = inference.predict(session, data.test, batch_size, data.info.outputs)
            validation = inference.predict(session, data.validation, batch_size, data.info.outputs)
            evaluated = digest(session.get_weights()) if weights else ""
            device_memory = _device_memory(session, machine)
        if not trained.is_enough():
            with phases("sampling"):
                trained.sample()
        with phases("score"):
            reference = self._reference(session, model, config, data)
            scores = judge.scores(
                (data.test.targets, test),
                (data.validation.targets, validation),
                None if reference is None else (data.test.targets, reference),
                data.test.groups,
            )
        seconds = (time.perf_counter() - clock[0], time.time() - clock[1])
        examples, error = inference.largest_error(timed.kept, test, timed.batch_size)
        info = ModelInfo(
            parameters=sum(int(np.prod(p.shape)) for p in request.parameters if p.trainable),
            flops_per_sample=float(model.flops_per_sample(config, data.info)),
        )
        np.savez(self._directory / ARRAYS, **_arrays(trained, timed), test_outputs=test, test_targets=data.test.targets)
        train = figures.throughput("train_throughput", trained.timed, trained.batch_size, spec.protocol, machine)
        infer = figures.throughput("inference_throughput", timed.timed, timed.batch_size, spec.protocol, machine)
        return Success(
            scores=scores,
            curves=trained.curves,
            speed=figures.speed(trained.first_step_s, train, infer, info),
            latency=figures.latency(timed),
            memory=figures.memory(phases.memory, device_memory),
            model=info,
            phases_s=phases.seconds,
            examples={"train": len(data.train), "validation": len(data.validation), "test": len(data.test)},
            flags=[*train.flags, *infer.flags],
            energy=figures.energy(train, infer, machine),
            time_to_target=self._time_to_target(trained.curves),
            evidence=Evidence(
                timed_examples=examples,
                timed_error=error,
                evaluated_weights_digest=evaluated,
                clock_s=seconds[0],
                wall_s=seconds[1],
            ),
        )

    def _time_to_target(self, curves: Sequence[EpochEnded]) -> TimeToTarget | None:
        target = self.spec.protocol.target
        if target is None and self.spec.source is None:
            target = self._catalog.dataset(self.spec.dataset).target
        if target is None:
            return None
        metric = self._catalog.metric(self.task.metric)
        return figures.time_to_target(curves, metric.name, target, higher_is_better=metric.higher_is_better)

    def _reference(self, session: Session, model: Model, config: Any, data: PreparedData) -> Any:
        """Test outputs of the model's closed-form solution, computed by the same session; None if it has none."""
        from harness.measure.inference import predict

        solution = model.solve(config, data.info, data.train)
        if solution is None:
            return None
        session.set_weights(solution)
        return predict(session, data.test, self.spec.recipe.batch_size, data.info.outputs)


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


def _device_memory(session: Session, machine: Machine) -> DeviceMemory | None:
    """What the framework tells, and the driver's account of the process."""
    machine.read()
    told = session.device_memory()
    if told is None or told.driver_peak_bytes is not None:
        return told
    return msgspec.structs.replace(told, driver_peak_bytes=machine.gpu_peak_bytes)


def _fetching(dataset: Dataset, emit: Emit) -> Report:
    """Tells the log, and the parent a few times a second."""
    log, told = Log(dataset), -math.inf

    def report(name: str, done: int, total: int | None) -> None:
        nonlocal told
        log(name, done, total)
        if time.monotonic() - told >= FETCHING_S or done == total:
            told = time.monotonic()
            emit(Fetching(dataset=dataset.name, file=name, done_bytes=done, total_bytes=total))

    return report


def _failure(error: Exception, run: Run | None) -> Failure:
    kind, message = explain(error, run.backend if run else None)
    return Failure(kind=kind, message=message, phase=run.phases.current if run else "")


def main(job_path: str, record_path: str, events_fd: int) -> None:
    os.set_inheritable(events_fd, False)
    start = time.perf_counter()
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    job = msgspec.json.decode(Path(job_path).read_bytes(), type=Job)

    def emit(event: Event) -> None:
        os.write(events_fd, msgspec.json.encode(event) + b"\n")

    reporter.set(lambda dataset: _fetching(dataset, emit))
    run: Run | None = None
    outcome: Outcome
    environment = collect()  # before the run, so that the load average is not our own
    try:
        run = Run(job, emit, Path(record_path).parent)
        outcome = run.go()
    except Exception as error:
        outcome = _failure(error, run)
        import traceback

        traceback.print_exc()
    if run is not None:
        packages = versions((*CORE_PACKAGES, *run.backend.packages))
        environment = msgspec.structs.replace(environment, packages=packages)
    record = RunRecord(
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
    write_json(Path(record_path), record)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
