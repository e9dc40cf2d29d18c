"""The child's main: one job in, one `RunRecord` out.

``python -m harness.worker JOB RECORD EVENTS_FD`` reads the job, does the run as a straight line, writes the record (its
name and repeat number are the parent's to give) beside ``arrays.npz``, and ends with status 0. An exception is a record
too, with all that was known by then; what ends the process leaves none, and the parent explains it.
"""

from __future__ import annotations

import datetime
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.data.install import Log, reporter
from harness.measure.environment import CORE_PACKAGES, collect, versions
from harness.measure.memory import give_back
from harness.measure.phases import Emit, Phases
from harness.preparation import (
    choose_device,
    explain,
    is_prepared,
    load_plugins,
    prepare_data,
    session_request,
    starting_weights,
)
from harness.protocols import Dataset, Model, PreparedData, Session, SessionRequest
from harness.store import ARRAYS, WEIGHTS, write_json
from harness.types import (
    Event,
    Failure,
    Fetching,
    Latency,
    Memory,
    ModelInfo,
    Outcome,
    PluginRef,
    Provenance,
    RunRecord,
    RunSpec,
    Speed,
    Success,
)

if TYPE_CHECKING:
    from harness.data.download import Report


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
            return self._measure(session, model, config, data, request)
        finally:
            session.close()

    def _initialise(self, session: Session, model: Model, request: SessionRequest) -> None:
        from harness.weights import digest

        weights, notes = starting_weights(model, request, self.spec)
        session.set_weights(weights)
        self.learn(initial_weights_digest=digest(weights), notes=session.notes() | notes)

    def _measure(
        self, session: Session, model: Model, config: Any, data: PreparedData, request: SessionRequest
    ) -> Success:
        import numpy as np

        from harness.measure import inference, training
        from harness.metrics import scorer
        from harness.weights import check, digest, save

        spec, phases = self.spec, self.phases
        metrics = [self._catalog.metric(name) for name in self.task.metrics]
        judge = scorer(data.info, self.task.metric, metrics)
        batch_size = spec.recipe.batch_size
        trained = training.train(session, data, spec, judge, phases, self._emit)
        with phases("inference"):
            timed = inference.measure(session, data.test, min(batch_size, len(data.test)), spec.protocol)
        with phases("score"):
            weights = session.get_weights()
            check(weights, request.parameters)
            self.learn(final_weights_digest=digest(weights))
            if self._save_weights:
                save(self._directory / WEIGHTS, weights)
            test = inference.predict(session, data.test, batch_size, data.info.outputs)
            validation = inference.predict(session, data.validation, batch_size, data.info.outputs)
            device_memory = session.device_memory()
            reference = self._reference(session, model, config, data)
            scores = judge.scores(
                (data.test.targets, test),
                (data.validation.targets, validation),
                None if reference is None else (data.test.targets, reference),
                data.test.groups,
            )
        steady = trained.steady()
        info = ModelInfo(
            parameters=sum(int(np.prod(p.shape)) for p in request.parameters if p.trainable),
            flops_per_sample=float(model.flops_per_sample(config, data.info)),
        )
        np.savez(
            self._directory / ARRAYS,
            train_window_steps=np.array([steps for steps, _ in trained.windows]),
            train_window_s=np.array([seconds for _, seconds in trained.windows]),
            train_losses=np.array(trained.losses),
            inference_window_batches=np.array([count for count, _ in timed.windows]),
            inference_window_s=np.array([seconds for _, seconds in timed.windows]),
            latencies_s=np.array(timed.latencies_s),
            test_outputs=test,
            test_targets=data.test.targets,
        )
        return Success(
            scores=scores,
            curves=trained.curves,
            speed=_speed(trained, timed, steady, info),
            latency=_latency(timed),
            memory=Memory(
                host_peak_bytes=max(peak for name, peak in phases.memory.by_phase_bytes.items() if name != "prepare"),
                host_peak_by_phase_bytes=phases.memory.by_phase_bytes,
                host_counter=phases.memory.counter,
                device=device_memory,
            ),
            model=info,
            phases_s=phases.seconds,
            examples={"train": len(data.train), "validation": len(data.validation), "test": len(data.test)},
        )

    def _reference(self, session: Session, model: Model, config: Any, data: PreparedData) -> Any:
        """Test outputs of the model's closed-form solution, computed by the same session; None if it has none."""
        from harness.measure.inference import predict

        solution = model.solve(config, data.info, data.train)
        if solution is None:
            return None
        session.set_weights(solution)
        return predict(session, data.test, self.spec.recipe.batch_size, data.info.outputs)


def _speed(trained: Any, timed: Any, steady: list[tuple[int, float]], info: ModelInfo) -> Speed:
    from statistics import median

    train = [steps * trained.batch_size / seconds for steps, seconds in steady]
    infer = [count * timed.batch_size / seconds for count, seconds in timed.windows]
    train_rate = median(train) if train else None
    return Speed(
        train_samples_per_s=train_rate,
        inference_samples_per_s=median(infer),
        first_step_s=trained.first_step_s,
        train_windows=len(train),
        inference_windows=len(infer),
        train_flops_per_s=None if train_rate is None else train_rate * 3 * info.flops_per_sample,
    )


def _latency(timed: Any) -> Latency:
    from harness.stats import percentile

    samples_ms = [1e3 * seconds for seconds in timed.latencies_s]
    return Latency(
        batch_size=timed.batch_size,
        samples=len(samples_ms),
        p50_ms=percentile(samples_ms, 50),
        p90_ms=percentile(samples_ms, 90),
        p99_ms=percentile(samples_ms, 99),
    )


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
