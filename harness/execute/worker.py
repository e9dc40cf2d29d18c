"""Execution of one run in a child process, which trains the model, measures time, computes the scores, and creates the
record.

`carry_out` returns the record, and writes ``arrays.npz`` and, if requested, the weights to the call's directory. The
parent assigns the run's name and repeat number. If an exception is raised, the record contains the information
collected before the exception. If the process exits without returning a record, the parent creates the record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import math
import os
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from harness.data.install import Log, reporter
from harness.execute.child import ChildContext
from harness.execute.cores import core_shares, ordered_cores, use_cores
from harness.execute.declarations import declared_flops
from harness.execute.environment import collect
from harness.execute.exporting import executable_model
from harness.execute.failures import from_exception
from harness.execute.preparation import (
    Preparation,
    cache_data,
    check_weights,
    choose_device,
    is_cached,
    load_plugins,
    opened_session,
    preparation_of,
    prepare_data,
    starting_weights,
    weights_of,
)
from harness.execute.rank_process import in_group
from harness.execute.ranks import RankFailedError, Ranks, addresses, check_batches
from harness.interfaces import Dataset, DeviceGroup, PreparedData, Session, Split
from harness.measure import summary
from harness.measure.environment import CORE_PACKAGES, versions
from harness.measure.machine import Machine
from harness.measure.memory import release_free_memory
from harness.measure.nvml import gpu_processes
from harness.measure.phases import Emit, Phases
from harness.records import (
    CheckpointPlan,
    CheckpointUse,
    DataInfo,
    DataPrepared,
    DeviceMemory,
    Energy,
    Environment,
    EpochEnded,
    Evidence,
    Failure,
    Fetching,
    Memory,
    MetricCalled,
    ModelInfo,
    Outcome,
    PluginRef,
    Preprocessing,
    Provenance,
    RankMemory,
    RunRecord,
    RunSpec,
    Scores,
    Success,
    TimeToTarget,
    Trial,
)
from harness.records.arrays import write_arrays
from harness.records.scratch import save as save_file
from harness.records.store import ARRAYS, PREPROCESSING, WEIGHTS, indented_json, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.data.download import Report
    from harness.measure.checkpoints import Checkpoints
    from harness.measure.inference import Inference
    from harness.measure.quality.scorer import Scorable, Scorer
    from harness.measure.training import Training


FETCHING_S = 0.25
"""Minimum interval between download progress events, in seconds."""


class RunJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for a child process that executes a run."""

    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    save_weights: bool = False
    """If True, the trained canonical weights are saved next to the arrays."""
    quality_only: bool = False
    """If True, throughput and latency are not measured."""
    trial: Literal["quality", "speed"] | None = None
    """See `harness.PlannedRun.trial`."""
    step_events: bool = False
    """See `harness.PlannedRun.step_events`."""
    checkpoints: CheckpointPlan | None = None
    """See `harness.PlannedRun.checkpoints`."""
    lock_digest: str = ""
    """See `harness.PlannedRun.lock_digest`."""


@dataclass(frozen=True)
class Timed:
    """Results of training and timed inference."""

    training: Training | None
    """Results of training, or None if the run used trained weights."""
    inference: Inference
    checkpoints: CheckpointUse | None = None
    """Checkpoints of training, or None if checkpoints were not requested."""


@dataclass(frozen=True)
class Predicted:
    """Predictions for a split."""

    scorable: Scorable
    """Targets and predictions, or the scores if all metrics are streaming."""
    batches: dict[int, NDArray[Any]]
    """Predictions for some of the batches, keyed by batch index."""

    def arrays(self, split: str) -> dict[str, NDArray[Any]]:
        """Return the arrays to store, or an empty dictionary if the predictions were not kept."""
        if not isinstance(self.scorable, tuple):
            return {}
        targets, outputs = self.scorable
        return {f"{split}_outputs": outputs, f"{split}_targets": targets}


@dataclass(frozen=True)
class Scored:
    """Predictions of the trained model and their scores."""

    scores: Scores
    arrays: dict[str, NDArray[Any]]
    """Targets and outputs of the splits, to be stored. The dictionary is empty if all metrics are streaming."""
    batches: dict[int, NDArray[Any]]
    """Predictions kept for batches of the test split during timed inference."""
    evaluated_weights_digest: str
    """Digest of the session's weights after prediction. The digest is empty for a model without canonical weights."""
    device_memory: DeviceMemory | None


def carry_out(job: RunJob, context: ChildContext) -> RunRecord:
    """Execute one run and return its record. If an exception is raised, the record's outcome is a `Failure`."""
    start = time.perf_counter()
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    reporter.set(lambda dataset: _fetching(dataset, context.send))
    run: Run | None = None
    environment = collect()  # Collect the environment before the run, so that the load average excludes the run.

    def record(outcome: Outcome) -> RunRecord:
        packages = run.packages() if run else environment.packages
        return RunRecord(
            run_id="",
            key="",
            repeat=0,
            started_at=started_at,
            quality_only=job.quality_only,
            wall_s=time.perf_counter() - start,
            spec=run.spec if run else job.spec,
            environment=msgspec.structs.replace(environment, packages=packages),
            provenance=run.provenance if run else Provenance(plugins=list(job.plugins)),
            outcome=outcome,
        )

    def give_up(failure: Failure) -> None:
        phase = run.phases.current if run else ""
        context.end(record(msgspec.structs.replace(failure, phase=failure.phase or phase)))

    try:
        run = Run(job, context, environment, started_at, give_up)
        return record(run.go())
    except RankFailedError as error:
        traceback.print_exc()
        return record(msgspec.structs.replace(error.failure, phase=run.phases.current if run else ""))
    except Exception as error:
        traceback.print_exc()
        return record(from_exception(error, run.backend, run.phases.current) if run else from_exception(error))


class Run:
    """A run and the information collected so far. The information is recorded even if the run fails."""

    def __init__(
        self,
        job: RunJob,
        context: ChildContext,
        environment: Environment,
        started_at: str,
        give_up: Callable[[Failure], None],
    ) -> None:
        self.spec, self._job = job.spec, job
        self._environment, self._started_at = environment, started_at
        self._give_up = give_up
        self._ranks: Ranks | None = None
        self._save_weights, self._quality_only, self._trial = job.save_weights, job.quality_only, job.trial
        self._step_events = job.step_events
        self.provenance = Provenance(plugins=list(job.plugins))
        self.phases = Phases(context.send)
        self._emit: Emit = context.send
        self._announce = lambda metric: context.send(MetricCalled(metric=metric))
        self._directory = context.directory
        self._catalog = load_plugins(job.plugins)
        self.task = self._catalog.task(self.spec.task)
        self.backend = self._catalog.backend(self.spec.backend)

    def packages(self) -> dict[str, str]:
        """Return the versions of the core packages and of the backend's packages."""
        return versions((*CORE_PACKAGES, *self.backend.packages))

    def learn(self, **known: Any) -> None:
        """Set the given fields of the run's provenance."""
        self.provenance = msgspec.structs.replace(self.provenance, **known)

    def go(self) -> Success | Trial:
        """Execute the stages of the run in order."""
        from harness.data.protect import Unchanged
        from harness.measure.quality.scorer import scorer

        shares = core_shares(ordered_cores(), self.spec.devices)
        if self.spec.devices > 1:
            use_cores(shares[0])
        prepared, machine = self._prepare()
        if self.spec.devices > 1:
            check_batches(prepared.data, self.spec)
            prepared = in_group(prepared, DeviceGroup(rank=0, addresses=addresses(self.spec.devices)))
            self._ranks = Ranks(prepared, shares, self._give_up)
        unchanged = Unchanged(prepared.data)
        metrics, primary = self._catalog.metrics_of(self.spec), self._catalog.primary_metric(self.spec)
        judge = scorer(prepared.data.info, primary.name, metrics, self._announce)
        with contextlib.ExitStack() as stack:
            with self.phases("build"):
                weights, notes = starting_weights(prepared)
                if self._ranks is not None:
                    stack.enter_context(self._ranks.running(self.provenance.plugins, weights))
                    machine.add_group(self._ranks.pids_on_own_cores)
                session = stack.enter_context(self._opened(prepared, weights, notes))
            if self._trial is not None:
                trial = self._try(prepared, session, machine, judge)
                unchanged.check(prepared.data, self.backend.name)
                if self._ranks is not None:
                    self._ranks.finish()
                return trial
            clock_s, wall_s = time.perf_counter(), time.time()
            timed = self._train_and_time(prepared, session, machine, judge)
            scored = self._score(prepared, session, machine, judge, timed)
            clock_s, wall_s = time.perf_counter() - clock_s, time.time() - wall_s
            unchanged.check(prepared.data, self.backend.name)
            if self._ranks is not None:
                self._ranks.finish()
            return self._summarize(prepared, machine, timed, scored, clock_s, wall_s)

    def _prepare(self) -> tuple[Preparation, Machine]:
        """Import the framework, choose the device and prepare the data."""
        os.environ.update(self.backend.environment)
        if self.backend.executes:
            with self.phases("export"):  # Cached on disk: in the phase "data", the model is read from the cache.
                executable_model(self.spec, self._catalog)
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
        if self._trial is not None:
            data = _without_test(data)
        return preparation_of(self.spec, self._catalog, device, data, executable_model), machine

    @contextlib.contextmanager
    def _opened(self, prepared: Preparation, weights: Mapping[str, Any], notes: Mapping[str, str]) -> Iterator[Session]:
        """Open a session with the initial weights and close it on exit. `notes` are added to the session's notes."""
        from harness.records.arrays import digest

        self.learn(initial_weights_digest=digest(weights) if weights else None)
        with opened_session(prepared, weights) as session:
            shared = self._ranks.notes() if self._ranks is not None else {}
            added = {**prepared.notes, **notes, **shared, **_gpu_settings(self.spec.device)}
            self.learn(notes=session.notes() | added)
            with self._ranks.noted() if self._ranks is not None else contextlib.nullcontext():
                yield session

    def _try(self, prepared: Preparation, session: Session, machine: Machine, judge: Scorer) -> Trial:
        """Train on the training split, and score on the validation split. The test split of `prepared` is empty."""
        from harness.execute.networks import wrong_outputs_named
        from harness.measure import training
        from harness.records.arrays import digest

        spec, data, by_steps = self.spec, prepared.data, self.backend.trains_by_steps
        with wrong_outputs_named(session, data, spec):
            trained = training.train(
                session,
                data,
                spec,
                judge,
                self.phases,
                self._emit,
                machine.read,
                by_steps=by_steps,
                group=self._ranks,
                step_events=self._step_events,
                timed=self._trial == "speed",
            )
        with self.phases("score"):
            weights = weights_of(session, prepared)
            check_weights(weights, prepared)
            self.learn(final_weights_digest=digest(weights) if weights else None)
            predicted = _predicted(session, data.validation, spec, data.info, judge)
            scores = judge.values(predicted.scorable)
        rate = None
        if self._trial == "speed":
            if not trained.is_enough():
                with self.phases("sampling"):
                    trained.sample()  # Sample after the predictions, because sampling continues training.
            measured = summary.throughput("train_throughput", trained.timed, trained.batch_size, spec.protocol, machine)
            rate = measured.samples_per_s
        arrays = {**_training_arrays(trained), **predicted.arrays("validation")}
        save_file(self._directory, ARRAYS, lambda path: write_arrays(path, arrays))
        return Trial(
            state="complete",
            metric=judge.primary,
            curves=trained.curves,
            validation=scores,
            train_samples_per_s=rate,
            model=_model_info(prepared),
            phases_s=self.phases.seconds,
            examples={name: count for name, count in _examples(data).items() if name != "test"},
        )

    def _train_and_time(self, prepared: Preparation, session: Session, machine: Machine, judge: Scorer) -> Timed:
        from harness.data.batches import output_shape
        from harness.execute.networks import wrong_outputs_named
        from harness.measure import inference, training

        spec, data, phases = self.spec, prepared.data, self.phases
        trained = checkpoints = None
        if spec.weights is None:
            checkpoints = self._checkpoints()
            with wrong_outputs_named(session, data, spec):
                trained = training.train(
                    session,
                    data,
                    spec,
                    judge,
                    phases,
                    self._emit,
                    machine.read,
                    by_steps=self.backend.trains_by_steps,
                    group=self._ranks,
                    step_events=self._step_events,
                    timed=not self._quality_only,
                    checkpoints=checkpoints,
                )
        use = None if checkpoints is None else checkpoints.use()
        batch_size = min(spec.recipe.batch_size, len(data.test))
        if self._quality_only:
            return Timed(trained, inference.not_measured(batch_size), use)
        max_kept = inference.MAX_KEPT
        if judge.streams and not spec.protocol.save_outputs:
            max_kept = inference.most_kept(output_shape(data.test.targets, batch_size, data.info.outputs))
        with phases("inference"):
            measured = inference.measure(session, data.test, batch_size, spec.protocol, machine.read, max_kept)
        return Timed(trained, measured, use)

    def _checkpoints(self) -> Checkpoints | None:
        """Return the checkpoints of this run, or None if checkpoints are not requested."""
        from harness.measure.checkpoints import Checkpoints
        from harness.records.checkpoint import Identity

        plan, requested, known = self._job.checkpoints, self._job.spec, self.provenance
        if plan is None:
            return None
        environment = msgspec.structs.replace(
            self._environment,
            packages=self.packages(),
            lock_digest=self._job.lock_digest,
            cores=plan.machine_cores or self._environment.cores,
        )
        identity = Identity(
            key=requested.key,
            spec=requested,
            device=self.spec.device,
            plugins=list(self._job.plugins),
            environment=environment,
            dataset_digest=known.dataset_digest or "",
            initial_weights_digest=known.initial_weights_digest or "",
            teacher_logits=known.notes.get("teacher_logits", ""),
        )
        return Checkpoints(plan, identity, self._started_at, self.phases)

    def _score(self, prepared: Preparation, session: Session, machine: Machine, judge: Scorer, timed: Timed) -> Scored:
        from harness.data.protect import read_only_split
        from harness.execute.weights import save
        from harness.measure.quality.slices import with_intersections
        from harness.records.arrays import digest

        data, spec = prepared.data, self.spec
        with self.phases("score"):
            weights = weights_of(session, prepared)
            if not self.backend.executes:
                check_weights(weights, prepared)
            self.learn(final_weights_digest=digest(weights) if weights else None)
            if self._save_weights and weights:
                save_file(self._directory, WEIGHTS, lambda path: save(path, weights))
                self._save_preprocessing(data)
            groups = with_intersections(data.test.groups, spec.slice_columns)
            test = _predicted(session, data.test, spec, data.info, judge, timed.inference.kept, groups)
            validation = _predicted(session, data.validation, spec, data.info, judge)
            evaluated = digest(session.get_weights()) if weights else ""
            device_memory = _device_memory(session, machine)
        if timed.training is not None and not (self._quality_only or timed.training.is_enough()):
            with self.phases("sampling"):
                timed.training.sample()  # Sample after the predictions, because sampling continues training.
        with self.phases("score"):
            reference = None
            solution = None
            if not self.backend.executes:  # otherwise, the weights cannot be changed
                solution = prepared.model.solve(prepared.request.config, data.info, read_only_split(data.train))
            if solution is not None:
                session.set_weights(solution)
                reference = _predicted(session, data.test, spec, data.info, judge).scorable
            scores = judge.scores(test.scorable, validation.scorable, reference, groups)
        arrays = test.arrays("test") | validation.arrays("validation")
        return Scored(scores, arrays, test.batches, evaluated, device_memory)

    def _save_preprocessing(self, data: PreparedData) -> None:
        preprocessing = Preprocessing(
            task=self.task.name,
            input_kind=self.task.kind,
            task_options=self.spec.task_options,
            dataset_options=self.spec.dataset_options if self.spec.source is not None else {},
            info=data.info,
            fitted=dict(data.fitted),
            reading=dict(data.reading),
        )
        self.learn(preprocessing_digest=hashlib.sha256(indented_json(preprocessing)).hexdigest())
        save_file(self._directory, PREPROCESSING, lambda path: write_json(path, preprocessing))

    def _summarize(
        self, prepared: Preparation, machine: Machine, timed: Timed, scored: Scored, clock_s: float, wall_s: float
    ) -> Success:
        from harness.measure.inference import largest_error
        from harness.records.arrays import digest

        data, protocol, trained, inference = prepared.data, self.spec.protocol, timed.training, timed.inference
        examples, error = largest_error(inference.kept, scored.batches)
        model = _model_info(prepared)
        arrays = _arrays(trained, inference) | scored.arrays
        if data.test.rows is not None:
            arrays["test_rows"] = data.test.rows
        save_file(self._directory, ARRAYS, lambda path: write_arrays(path, arrays))
        by_steps = None if trained is None else self.backend.trains_by_steps
        train = None
        if self._quality_only:
            speed, flags, energy = summary.no_speed(by_steps=by_steps), [], Energy()
        else:
            if trained is not None:
                train = summary.throughput("train_throughput", trained.timed, trained.batch_size, protocol, machine)
            infer = summary.throughput("inference_throughput", inference.timed, inference.batch_size, protocol, machine)
            first_step_s = None if trained is None else trained.first_step_s
            speed = summary.speed(first_step_s, train, infer, model, by_steps=by_steps)
            flags = [
                *(train.flags if train is not None else ()),
                *summary.interruptions(timed.checkpoints),
                *infer.flags,
            ]
            energy = summary.energy(train, infer, machine)
        return Success(
            scores=scored.scores,
            curves=trained.curves if trained is not None else [],
            speed=speed,
            latency=summary.latency(inference),
            memory=self._memory(scored.device_memory),
            model=model,
            phases_s=self.phases.seconds,
            examples=_examples(data),
            flags=flags,
            energy=self._energy(energy),
            time_to_target=self._time_to_target(trained.curves) if trained is not None else None,
            selection=trained.selection(scored.scores.primary) if trained is not None and by_steps else None,
            evidence=Evidence(
                timed_examples=examples,
                timed_error=error,
                evaluated_weights_digest=scored.evaluated_weights_digest,
                clock_s=clock_s,
                wall_s=wall_s,
                arrays_digest=digest(arrays),
            ),
            checkpoints=timed.checkpoints,
        )

    def _memory(self, device: DeviceMemory | None) -> Memory:
        measured = summary.memory(self.phases.memory, device)
        if self._ranks is None:
            return measured
        worker = RankMemory(host_peak_bytes=measured.host_peak_bytes, device=device)
        return msgspec.structs.replace(measured, ranks=self._ranks.memory(worker, self.phases.memory))

    def _energy(self, energy: Energy) -> Energy:
        """Return the measured energy. If the run used several GPUs, their energy is not recorded."""
        if self.spec.devices == 1 or energy.gpu is None:
            return energy
        reason = f"the run used {self.spec.devices} GPUs, but only the energy of the first one is measured"
        return msgspec.structs.replace(energy, gpu=None, gpu_source=reason)

    def _time_to_target(self, curves: Sequence[EpochEnded]) -> TimeToTarget | None:
        target = self.spec.protocol.target
        if target is None and self.spec.source is None and not self.spec.metric:  # targets are for the task's metric
            target = self._catalog.dataset(self.spec.dataset).target
        if target is None:
            return None
        metric = self._catalog.primary_metric(self.spec)
        return summary.time_to_target(curves, metric.name, target, higher_is_better=metric.higher_is_better)


def _predicted(
    session: Session,
    split: Split,
    spec: RunSpec,
    info: DataInfo,
    judge: Scorer,
    wanted: Collection[int] = (),
    groups: Mapping[str, NDArray[Any]] = {},
) -> Predicted:
    """Compute the predictions for a split.

    If all metrics are streaming and the protocol does not request the outputs, the split and its slices are scored
    batch by batch. In this case, only the predictions for the batches in `wanted` are kept. `groups` defines the
    slices.
    """
    from harness.measure.inference import in_batches, predict, predict_batches

    size = spec.recipe.batch_size
    if not judge.streams or spec.protocol.save_outputs:
        outputs = predict(session, split, size, info.outputs)
        return Predicted((split.targets, outputs), in_batches(wanted, outputs, size))
    held: dict[int, NDArray[Any]] = {}

    def batches() -> Iterator[NDArray[Any]]:
        for number, outputs in enumerate(predict_batches(session, split, size, info.outputs)):
            if number in wanted:
                held[number] = outputs
            yield outputs

    return Predicted(judge.streamed(split.targets, batches(), groups), held)


def _examples(data: PreparedData) -> dict[str, int]:
    return {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}


def _without_test(data: PreparedData) -> PreparedData:
    """Return the data with an empty test split.

    A trial must not use the test examples.
    """
    import numpy as np

    return dataclasses.replace(data, test=data.test.take(np.arange(0)))


def _model_info(prepared: Preparation) -> ModelInfo:
    return ModelInfo(
        parameters=sum(math.prod(p.shape) for p in prepared.request.parameters if p.trainable),
        flops_per_sample=declared_flops(prepared.model, prepared.request.config, prepared.data.info),
    )


def _training_arrays(trained: Training) -> dict[str, Any]:
    """Return the raw training measurements."""
    import numpy as np

    train, sampled = trained.all_windows(), trained.timed.windows[trained.recipe_windows :]
    return {
        "train_batch_size": np.array(trained.batch_size),
        "train_window_steps": np.array([window.batches for window in train]),
        "train_window_s": np.array([window.seconds for window in train], np.float64),
        "train_losses": np.array(trained.losses),
        "sampling_window_steps": np.array([window.batches for window in sampled], np.int64),
        "sampling_window_s": np.array([window.seconds for window in sampled], np.float64),
    }


def _arrays(trained: Training | None, timed: Inference) -> dict[str, Any]:
    import numpy as np

    return (_training_arrays(trained) if trained is not None else {}) | {
        "inference_window_batches": np.array([window.batches for window in timed.timed.windows], np.int64),
        "inference_window_s": np.array([window.seconds for window in timed.timed.windows], np.float64),
        "latencies_s": np.array(timed.latencies_s, np.float64),
    }


def _gpu_settings(device: str) -> dict[str, str]:
    """Return the environment variables that determine which GPU a CUDA device name refers to."""
    names = ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES") if device.startswith("cuda") else ()
    return {name: os.environ[name] for name in names if name in os.environ}


def _device_memory(session: Session, machine: Machine) -> DeviceMemory | None:
    """Return the memory usage that the framework reports.

    If the value does not include the driver's peak, add the driver's peak for this process.
    """
    machine.read()
    memory = session.device_memory()
    if memory is None or memory.driver_peak_bytes is not None:
        return memory
    return msgspec.structs.replace(memory, driver_peak_bytes=machine.gpu_peak_bytes)


def _fetching(dataset: Dataset, emit: Emit) -> Report:
    """Return a function that reports download progress to the log and, a few times per second, to the parent
    process."""
    log, sent_at = Log(dataset), -math.inf

    def report(name: str, done: int, total: int | None) -> None:
        nonlocal sent_at
        log(name, done, total)
        if time.monotonic() - sent_at >= FETCHING_S or done == total:
            sent_at = time.monotonic()
            emit(Fetching(dataset=dataset.name, file=name, done_bytes=done, total_bytes=total))

    return report
