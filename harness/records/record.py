"""`RunRecord`, the record of a run, whose outcome is a `Success` or a `Failure`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from harness.records.checkpointing import CheckpointUse
from harness.records.events import EpochEnded
from harness.records.spec import DataInfo, PluginRef, Precision, RunSpec

SCHEMA_VERSION = 2

FailureKind = Literal["oom", "timeout", "crash", "error", "unsupported", "bad_result", "interrupted"]


EXECUTOR_PHASE = "executor"
"""Value of `Failure.phase` if the executor failed, for example because a machine was lost. In this case, the run may
succeed if it is repeated."""


class ClassScore(Struct, frozen=True, kw_only=True):
    """Scores for one class on the test split."""

    label: str
    precision: float
    recall: float
    f1: float
    roc_auc: float | None
    """One-vs-rest area under the ROC curve. The value is None if none or all of the examples in the split belong to the
    class."""
    support: int
    """Number of test examples in the class."""


class TargetScore(Struct, frozen=True, kw_only=True):
    """Test-split scores for one regression target."""

    label: str
    unit: str
    """Unit of the target, or an empty string if it is unknown."""
    scores: dict[str, float | None]
    """Values of the task's built-in metrics, computed for this target only."""


class SliceScore(Struct, frozen=True, kw_only=True):
    """The primary metric on a slice of the test split, and the counts from which per-class rates are computed.

    A slice consists of the examples that share one value of a group. For an intersection of groups, the examples share
    one value of each group.
    """

    group: str
    """Name of the group, such as ``speaker`` or ``tokens``. For an intersection, the names are joined with ``*``."""
    value: str
    """Value shared by the examples in the slice. For a numeric group, the value is a range. For an intersection, the
    values are joined with commas."""
    support: int
    """Number of test examples in the slice."""
    score: float | None
    """Primary metric, or None if the metric is undefined for these examples."""
    class_support: list[int] = []
    """Number of examples of each class in the slice. The list is empty in older records, for objectives other than
    classification, and for metrics computed batch by batch."""
    class_predicted: list[int] = []
    """Number of predictions of each class in the slice, in the same format as `class_support`."""
    class_correct: list[int] = []
    """Number of correctly classified examples of each class in the slice, in the same format as `class_support`."""


class MetricInfo(Struct, frozen=True, kw_only=True):
    """Properties of a metric, as declared by the plugin that provides the metric.

    The properties are stored with the scores, so that records can be interpreted on machines without the plugin.
    """

    higher_is_better: bool
    title: str = ""
    """Title of the metric's column in tables. In older records without `summary`, the title is a one-line description
    of the metric."""
    unit: str = ""
    """Unit of the scores, or an empty string for fractions."""
    bounds: tuple[float | None, float | None] = (None, None)
    """Minimum and maximum of the scores, or None if unbounded."""
    summary: str = ""
    """One-line description of the metric."""
    in_tables: bool = False
    """True if comparison tables always have a column for the metric. If False, the metric has a column only if it is
    the primary metric."""


class Scores(Struct, frozen=True, kw_only=True):
    """Quality of the predictions, computed with the same code for every backend."""

    primary: str
    """Name of the task's primary metric."""
    test: dict[str, float | None]
    """Value of each metric on the test split, by name. The value is None if the metric is undefined."""
    validation: dict[str, float | None]
    """Value of each metric on the validation split, by name."""
    reference: dict[str, float | None] | None = None
    """Test scores of the model's closed-form solution, or None if the model has no such solution."""
    per_class: list[ClassScore] = []
    """Scores for each class. The list is empty if the objective is not classification."""
    confusion: list[list[int]] = []
    """Confusion matrix, with true classes as rows and predicted classes as columns."""
    per_target: list[TargetScore] = []
    """Scores for each target of a multi-target regression. The scores in `test` are averages over the targets."""
    slices: list[SliceScore] = []
    """Scores for each slice of the test split."""
    intervals: dict[str, tuple[float, float]] = {}
    """95% confidence intervals over the test examples, by metric. Some metrics have no interval."""
    no_interval: dict[str, str] = {}
    """Reasons why metrics in `test` have no interval, keyed by metric. Empty in older records."""
    interval_method: str = "percentile bootstrap"
    """Method of `intervals`. Records without this field have percentile bootstrap intervals, whose actual coverage is
    often below 95%; see ``docs/explanation/statistics.md``."""
    metrics: dict[str, MetricInfo] = {}
    """Properties of each metric, by name, or an empty dictionary in older records."""
    streamed: bool = False
    """True if all metrics were computed batch by batch (`harness.Metric.streaming`). In this case, the targets and the
    outputs are not stored, and there are no scores by class or target, and no class counts for slices."""


class Steady(Struct, frozen=True, kw_only=True):
    """The steady state of a series of timed windows.

    The throughput is the median over the windows in the steady state.
    """

    windows: int
    """Number of windows in the steady state."""
    seconds: float
    """Total duration of the windows in the steady state, in seconds."""
    warmup_windows: int
    """Number of windows discarded before the steady state, excluding the first step."""
    low: float | None
    """Lower end of the within-run range of the median, in samples per second, or None if there are fewer than six
    windows. The ends of the range are throughputs of individual windows (order statistics). If the windows were
    independent, the range would be a 95% confidence interval, but consecutive windows are usually similar.
    """
    high: float | None
    """Upper end of the within-run range of the median, in samples per second, or None if there are fewer than six
    windows."""
    ended: Literal["target", "budget"]
    """Reason why the measurement ended. ``target`` means that the required precision was reached, and ``budget`` means
    that the time limit was reached."""


class Speed(Struct, frozen=True, kw_only=True):
    """Median throughput over the windows of the steady state. ``arrays.npz`` contains the individual windows.

    In a quality-only run, all values except `by_steps` are None.
    """

    train_samples_per_s: float | None
    inference_samples_per_s: float | None
    """Examples per second in full batches. Padding is not counted."""
    first_step_s: float | None
    """Duration of the first training step, which includes compilation and allocation. The value is None in a
    quality-only run and in a run with trained weights."""
    train: Steady | None
    """Steady state of training. The value is None in a quality-only run and in a run with trained weights. The value is
    also None in records with schema version 1 if training consisted of a single step."""
    inference: Steady | None
    """Steady state of inference, or None in a quality-only run."""
    train_flops_per_s: float | None = None
    """Training FLOPs per second, or None if `by_steps` is False. The value is three times the FLOPs of the forward pass
    for one sample, multiplied by `train_samples_per_s`. A backward pass is counted as two forward passes."""
    by_steps: bool | None = None
    """True if each training step processed one batch. The value is False if each step fitted the model to the whole
    training split from scratch. In this case, the training throughput is not comparable with that of models trained in
    steps. The value is None in older records and if the run used trained weights."""


FlagKind = Literal["wide", "drift", "bimodal", "throttled", "other_load", "resumed"]


class Flag(Struct, frozen=True, kw_only=True):
    """A reason why a measured throughput may be inaccurate."""

    metric: Literal["train_throughput", "inference_throughput"]
    kind: FlagKind
    detail: str
    """Description of the flag, including the measured values."""


class Latency(Struct, frozen=True, kw_only=True):
    """Nearest-rank percentiles of batch latency, including copies from and to host memory.

    A percentile is None if there are too few samples (p50 requires 11, p90 64, p99 662).
    """

    batch_size: int
    """Number of examples in each timed batch."""
    samples: int
    """Number of timed batches, or 0 in a quality-only run."""
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None


class DeviceMemory(Struct, frozen=True, kw_only=True):
    """Peak memory of the accelerator. A value is None if the framework or the driver does not report it."""

    allocator_peak_bytes: int | None
    """Peak memory allocated by the framework."""
    reserved_peak_bytes: int | None
    """Peak memory reserved by the framework's allocator."""
    driver_peak_bytes: int | None
    """Peak memory that the driver attributes to the process."""


class RankMemory(Struct, frozen=True, kw_only=True):
    """Peak memory of one of the processes that train a model on several devices."""

    host_peak_bytes: int
    """Peak resident memory over all phases except ``prepare``."""
    device: DeviceMemory | None = None
    """Peak memory of the accelerator, or None for a run on the CPU."""


class Memory(Struct, frozen=True, kw_only=True):
    """Peak memory of the worker and its device."""

    host_peak_bytes: int
    """Peak resident memory over all phases except ``prepare`` and ``checkpoint``. In the ``prepare`` phase, the first
    of several runs prepares the data for the other runs. The ``checkpoint`` phase covers the reading and writing of
    training checkpoints."""
    host_peak_by_phase_bytes: dict[str, int]
    """Peak resident memory by phase."""
    host_counter: str
    """Name of the counter from which host memory was read, such as ``VmHWM, reset at each phase``."""
    tree_peak_bytes: int | None = None
    """Total peak memory of the worker and the processes that it started, for the phase with the largest total. The
    value is None if the worker started no processes or if their memory was not measured.
    """
    device: DeviceMemory | None = None
    """Peak memory of the accelerator, or None for a run on the CPU."""
    ranks: list[RankMemory] = []
    """Peak memory of each process of a run on several devices, in rank order. The first process is the worker. The list
    is empty for a run on one device."""


class EnergyUse(Struct, frozen=True, kw_only=True):
    """Energy and mean power over the windows of the steady state.

    All values are None if no energy counter is available.
    """

    train_j_per_sample: float | None
    """Energy of training, in joules per sample."""
    train_w: float | None
    """Mean power during training, in watts."""
    inference_j_per_sample: float | None
    """Energy of inference, in joules per sample."""
    inference_w: float | None
    """Mean power during inference, in watts."""


class Energy(Struct, frozen=True, kw_only=True):
    """Energy consumed by the processor packages and the GPU. The energy consumed by other processes is included."""

    cpu: EnergyUse | None = None
    """Energy of the processor packages, or None if the energy was not measured."""
    cpu_source: str = ""
    """Name of the processor counter, such as ``RAPL: package-0, dram``, or the reason why the energy was not
    measured."""
    gpu: EnergyUse | None = None
    """Energy of the GPU, or None if the energy was not measured."""
    gpu_source: str = ""
    """Name of the GPU counter, or the reason why the energy was not measured."""


class TimeToTarget(Struct, frozen=True, kw_only=True):
    """The first epoch whose validation score reached the target.

    `Success.curves` contains the validation scores of all epochs.
    """

    metric: str
    """Name of the validation metric."""
    target: float
    """Target for the score."""
    train_s: float | None
    """Training time in seconds until the target was reached, or None if the target was never reached. Time for
    validation is excluded.
    """
    epoch: int | None
    """First epoch whose validation score reached the target, counted from 1, or None if the target was never
    reached."""


Ended = Literal["epochs", "early_stopping", "max_steps", "max_seconds"]
"""Recipe settings that may end training."""


class Selection(Struct, frozen=True, kw_only=True):
    """The end of training, and the epoch whose weights were evaluated. `Success.curves` contains all epochs."""

    ended: Ended
    """Recipe setting that ended training. A run that was stopped by ``max_seconds`` is not bitwise reproducible,
    because the number of steps depends on the speed of the machine."""
    monitor: str
    """Name of the validation score that determines the best epoch."""
    best_epoch: int
    """Epoch with the best validation score, counted from 1."""
    best: float | None
    """Validation score of the best epoch, or None if no epoch has a defined score."""
    last_epoch: int
    """Last epoch, counted from 1. With `Recipe.max_steps` or `Recipe.max_seconds`, this epoch may be incomplete."""
    last: float | None
    """Validation score of the last epoch, or None if it is undefined."""
    evaluated_epoch: int
    """Epoch whose weights were saved and evaluated on the test split. The evaluated epoch is the best epoch if
    `Recipe.keep_best` is True, and the last epoch otherwise."""


class Evidence(Struct, frozen=True, kw_only=True):
    """Measurements for ``harness audit``, which checks that the results of a run are consistent."""

    timed_examples: int
    """Number of examples whose predictions were stored during the latency measurement, or 0 in a quality-only run."""
    timed_error: float
    """Norm-wise relative difference between the predictions stored during the latency measurement and the predictions
    that were scored."""
    evaluated_weights_digest: str
    """SHA-256 of the weights, computed after the predictions for the test split."""
    clock_s: float
    """Time in seconds from the first phase to the last phase, measured with the step timer's clock."""
    wall_s: float
    """Time in seconds from the first phase to the last phase, measured with the system's wall clock."""
    arrays_digest: str = ""
    """SHA-256 (hex) of the name, dtype, shape and bytes of each array in ``arrays.npz``. Empty in older records."""


class ModelInfo(Struct, frozen=True, kw_only=True):
    """Size and cost of the model."""

    parameters: int
    """Number of trainable scalar parameters."""
    flops_per_sample: float
    """Number of floating-point operations in the forward pass for one example, according to the model's formula. A
    multiply-add counts as two operations."""


class Success(Struct, frozen=True, kw_only=True, tag="success"):
    """Outcome of a successful run: quality and cost."""

    scores: Scores
    curves: list[EpochEnded]
    """Learning curves, with one entry per epoch. The list is empty if the run used trained weights."""
    speed: Speed
    latency: Latency
    memory: Memory
    model: ModelInfo
    phases_s: dict[str, float]
    """Duration of each phase in seconds. The phases are import, prepare, data, build, train, validate, inference,
    score, sampling and checkpoint. The prepare phase is missing if an earlier run prepared the data. The checkpoint
    phase is missing if no checkpoints were requested. A quality-only run has no inference phase and no sampling phase.
    For a resumed run, only the phases of the last process are listed."""
    examples: dict[str, int]
    """Number of examples in each split."""
    flags: list[Flag] = []
    energy: Energy = Energy()
    time_to_target: TimeToTarget | None = None
    """Time to target, or None if the dataset and the user do not specify a target."""
    selection: Selection | None = None
    """End of training and evaluated epoch. The value is None in older records and for models that are fitted in one
    call."""
    evidence: Evidence | None = None
    """Measurements for ``harness audit``, or None in records with schema version 1."""
    checkpoints: CheckpointUse | None = None
    """Checkpoints and interruptions of training, or None if no checkpoints were requested."""


MAX_MESSAGE = 500
"""Maximum length of `Failure.message`, in characters."""


class Failure(Struct, frozen=True, kw_only=True, tag="failure"):
    """Outcome of a failed run."""

    kind: FailureKind
    """Cause of the failure, such as ``oom`` or ``timeout``."""
    message: str
    """One-line reason."""
    log_tail: str = ""
    """Last lines of the log."""
    phase: str = ""
    """Phase in which the run failed, ``executor`` if the executor failed, or an empty string if unknown."""


class Trial(Struct, frozen=True, kw_only=True, tag="trial"):
    """Outcome of a ``harness tune`` trial, which is trained and scored without the test split."""

    state: Literal["complete", "pruned"]
    """``complete`` if training ran for all epochs, or ``pruned`` if training was stopped because the trial was unlikely
    to become the best one."""
    metric: str
    """Name of the task's primary metric."""
    curves: list[EpochEnded]
    """Learning curves, with one entry per epoch. For a pruned trial, the curves end with the last epoch before
    pruning."""
    validation: dict[str, float | None] = {}
    """Value of each metric on the validation split after training, by name. For a pruned trial, the dictionary is
    empty, and the scores are in `curves`."""
    train_samples_per_s: float | None = None
    """Training throughput, or None if it was not measured."""
    model: ModelInfo | None = None
    """Size and cost of the model, or None for a pruned trial."""
    phases_s: dict[str, float] = {}
    """Duration of each phase in seconds, or an empty dictionary for a pruned trial."""
    examples: dict[str, int] = {}
    """Number of examples in the training and validation splits, or an empty dictionary for a pruned trial."""

    @property
    def steps(self) -> int:
        """Number of optimizer steps."""
        return self.curves[-1].step if self.curves else 0

    @property
    def planned_steps(self) -> int:
        """Total number of optimizer steps in the recipe, or 0 if no epoch was completed."""
        last = self.curves[-1] if self.curves else None
        return last.step // last.epoch * last.epochs if last else 0


Outcome = Success | Failure | Trial


class Gpu(Struct, frozen=True, kw_only=True):
    """One of the machine's GPUs."""

    name: str
    memory_bytes: int
    """Total memory in bytes, or 0 if the driver does not report it."""
    driver: str


class Environment(Struct, frozen=True, kw_only=True):
    """Hardware and software environment of a run."""

    os: str
    kernel: str
    python: str
    cpu: str
    cores: int
    """Number of CPU cores that the process may use. The number is the size of the process's affinity mask or, if
    smaller, the process's CPU quota rounded up."""
    memory_bytes: int
    """Total main memory in bytes."""
    gpus: list[Gpu]
    """The machine's GPUs, or an empty list if it has none."""
    packages: dict[str, str]
    """Installed version of each distribution, by name."""
    load_1min: float | None
    """One-minute load average at the start of the run."""
    cpu_quota: float | None = None
    """CPU quota of the process's control groups, in cores. The value is None in older records and if there is no
    quota."""
    git_commit: str | None = None
    """Commit of the harness checkout, or None if harness was not imported from a checkout. ``+dirty`` is appended if
    the checkout was modified.
    """
    lock_digest: str = ""
    """SHA-256 (hex) of the named environment's lock file. The digest is an empty string if the run was not executed in
    a named environment. The lock is saved next to the record as ``environment.lock``."""


class Provenance(Struct, frozen=True, kw_only=True):
    """Origin of a run's results: data, weights, plugins and device."""

    dataset_digest: str | None = None
    """SHA-256 (hex) of the name, dtype, shape and bytes of each array in the prepared splits."""
    initial_weights_digest: str | None = None
    """SHA-256 (hex) of the canonical weights before training."""
    final_weights_digest: str | None = None
    """SHA-256 (hex) of the canonical weights after training."""
    preprocessing_digest: str | None = None
    """SHA-256 (hex) of ``preprocessing.json``, or None if the weights were not saved."""
    plugins: list[PluginRef] = []
    """Plugins that the run loaded."""
    data: DataInfo | None = None
    """Description of the prepared data, or None if the run failed before the data were prepared."""
    device_name: str | None = None
    """Description of the device, such as the name of the GPU model, or None if the run failed before the device was
    chosen."""
    notes: dict[str, str] = {}
    """Settings reported by the backend, such as thread counts, TF32 flags, the compile mode and determinism. A remark
    by the executor, for example about a node failure, is stored under the key ``executor``."""


class Roofline(Struct, frozen=True, kw_only=True):
    """Peak compute rate and peak memory bandwidth of a device, measured with one backend."""

    backend: str
    device: str
    precision: Precision
    threads: int
    hardware: str
    """Name of the CPU, or the backend's description of any other device."""
    versions: dict[str, str]
    """Versions of the backend's packages."""
    matrix_flops_per_s: float
    """Highest measured rate for multiplying square matrices, in FLOP/s. A multiply-add counts as two
    operations."""
    copy_bytes_per_s: float
    """Bandwidth of an array copy, counting both the bytes read and the bytes written."""
    measured_at: str
    """UTC time in ISO 8601 format."""


class ParityMark(Struct, frozen=True, kw_only=True):
    """Result of the parity check that was requested for a run.

    The full verdict is stored in the ``parity/`` subdirectory of the results directory.
    """

    backend: str
    """Backend that the run's backend was compared with. If the backend was executed in a named environment, the
    environment's name follows, as in ``torch in old``."""
    passed: bool
    """True if all stages of the check passed."""
    error: float | None
    """Largest relative error of the logits, or None if the logits could not be compared."""
    verdict: str
    """Key of the verdict."""
    partly: str = "training steps and dropout were not compared"
    """Reason why the check covered only part of the computation. The reason is an empty string if the check was
    complete. Older records have the default value, because earlier versions of the check did not compare training steps
    or dropout.
    """

    @property
    def state(self) -> str:
        """The result: ``same``, ``partly checked`` or ``differs``."""
        if not self.passed:
            return "differs"
        return "partly checked" if self.partly else "same"


class TuningCost(Struct, frozen=True, kw_only=True):
    """Cost of the ``harness tune`` study that found a run's settings."""

    study: str
    """Name of the study and of its directory in ``tuning/``."""
    trial: int
    """Trial whose settings are used, counted from 0."""
    trials: int
    """Number of trials, including pruned and failed ones."""
    pruned: int
    """Number of trials that were pruned."""
    failed: int
    """Number of trials that failed."""
    steps: int
    """Number of optimizer steps in all trials."""
    seconds: float
    """Total duration of the processes of all trials, in seconds."""


class Placement(Struct, frozen=True, kw_only=True):
    """Cores and GPU to which a run was restricted because other runs were executed at the same time (``--jobs``)."""

    jobs: int
    """Maximum number of runs that were executed at the same time."""
    cores: tuple[int, ...]
    """Numbers of the cores to which the run's process was restricted."""
    gpu: str = ""
    """GPU that was visible to the run, as in ``CUDA_VISIBLE_DEVICES``. The value is an empty string if all GPUs were
    visible."""
    checked_at: str = ""
    """UTC time (ISO 8601) of the check that found no difference in speed between simultaneous and sequential runs on
    this machine. The value is an empty string for a quality-only run."""


class RunRecord(Struct, frozen=True, kw_only=True):
    """The record of one run. Raw samples and the log are stored in the same directory as the record."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    """Name of the run's directory."""
    key: str
    """SHA-256 (hex) that identifies the run's specification; see `RunSpec.key`."""
    request_key: str = ""
    """Key of the requested specification, before the worker resolved the device. Empty in older records.
    """
    batch_size_reduced_from: int | None = None
    """Requested batch size, if the run ran out of memory and was repeated with a smaller batch size. None otherwise.

    `spec` contains the batch size that was used. `request_key` is the key of the spec with the requested batch size.
    """
    submission: str = ""
    """Name of the submission and number of the run in the submission, such as ``submission-0123456789abcdef/3``. The
    value is an empty string if the run was not submitted with ``harness run --detach``. A submitted run is stored only
    once, even if its result is collected several times."""
    repeat: int
    """Number of the repeat. The first run with this specification in the results directory has the number 1."""
    started_at: str
    """UTC time in ISO 8601 format."""
    wall_s: float
    """Lifetime of the child process in seconds, including imports."""
    spec: RunSpec
    quality_only: bool = False
    """True if only the quality was measured. Such a record contains no throughput, latency, energy or flags."""
    placement: Placement | None = None
    """Placement of the run, or None if no other runs were executed at the same time."""
    environment: Environment
    provenance: Provenance
    outcome: Outcome
    """Results of a successful run, the reason for a failure, or the result of a trial."""
    parity: list[ParityMark] = []
    """Results of the checks requested with ``harness run --parity``. The list is empty if no checks were requested."""
    tuning: TuningCost | None = None
    """Cost of the study that found the settings, or None if the settings were not found by ``harness tune``."""
    roofline: Roofline | None = field(default=None, name="peak")
    """Roofline of the device, or None if the device was not measured with ``harness doctor --roofline`` before the
    run."""

    def _repr_html_(self) -> str:
        """Return a summary of the run as HTML, for display in a notebook."""
        from html import escape

        names = ("task", "dataset", "model", "backend", "device", "precision", "seed")
        shown = {"run": self.run_id, **{name: getattr(self.spec, name) for name in names}, "started": self.started_at}
        if isinstance(self.outcome, Success):
            primary = self.outcome.scores.primary
            shown[primary] = self.outcome.scores.test.get(primary)
        elif isinstance(self.outcome, Failure):
            shown["failed"] = f"{self.outcome.kind}: {self.outcome.message}"
        else:
            shown["trial"] = self.outcome.state
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in shown.items()
        )
        return f"<table>{rows}</table>"
