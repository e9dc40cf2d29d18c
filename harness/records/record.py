"""The record of a run: `RunRecord`, with a `Success` or a `Failure`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from harness.records.events import EpochEnded
from harness.records.spec import DataInfo, PluginRef, Precision, RunSpec

SCHEMA_VERSION = 2

FailureKind = Literal["oom", "timeout", "crash", "error", "unsupported", "bad_result", "interrupted"]


class ClassScore(Struct, frozen=True, kw_only=True):
    """Scores of one class on the test split."""

    label: str
    precision: float
    recall: float
    f1: float
    roc_auc: float | None
    """One-vs-rest area under the ROC curve; None if the split has no example of the class, or of any other class."""
    support: int
    """Number of test examples of the class."""


class SliceScore(Struct, frozen=True, kw_only=True):
    """The primary metric on the test examples that share one value of a group."""

    group: str
    """Name of the group, such as ``speaker`` or ``tokens``."""
    value: str
    """Value of the group, or range of values for a numeric group."""
    support: int
    score: float | None
    """None if the metric is undefined for these examples."""


class Scores(Struct, frozen=True, kw_only=True):
    """Quality of the predictions. The core computes it with the same code for every backend."""

    primary: str
    """Name of the task's primary metric."""
    test: dict[str, float | None]
    validation: dict[str, float | None]
    reference: dict[str, float | None] | None = None
    """Test scores of the model's closed-form solution; None if it has none."""
    per_class: list[ClassScore] = []
    confusion: list[list[int]] = []
    """Confusion matrix: rows are true classes, columns are predicted classes."""
    slices: list[SliceScore] = []
    """Scores of each group of the test split."""
    intervals: dict[str, tuple[float, float]] = {}
    """Bootstrap 95% confidence interval over the test examples, for each metric that has one."""


class Steady(Struct, frozen=True, kw_only=True):
    """The steady state of a series of timed windows. The throughput is its median."""

    windows: int
    """Number of windows in the steady state."""
    seconds: float
    """Total duration of these windows."""
    warmup_windows: int
    """Number of windows before the steady state, which do not count. The very first step is not one of them."""
    low: float | None
    """Lower end of the 95% confidence interval of the median (order statistics), in samples per second; None for fewer
    than six windows."""
    high: float | None
    """Upper end of the same interval."""
    ended: Literal["target", "budget"]
    """``target`` if the precision that the protocol asks for was reached, ``budget`` if its time limit came first."""


class Speed(Struct, frozen=True, kw_only=True):
    """Throughput: medians over the windows of the steady state. The windows themselves are in ``arrays.npz``."""

    train_samples_per_s: float | None
    inference_samples_per_s: float | None
    first_step_s: float
    """Duration of the first training step, which includes compilation and allocation."""
    train: Steady | None
    """Steady state of training; None in records of schema version 1 whose training was a single step."""
    inference: Steady
    """Steady state of inference."""
    train_flops_per_s: float | None = None
    """Three times the forward FLOPs of a sample, times `train_samples_per_s` (the backward pass counts as two forward
    passes)."""


FlagKind = Literal["wide", "drift", "bimodal", "throttled", "other_load"]


class Flag(Struct, frozen=True, kw_only=True):
    """A reason to doubt a measured throughput."""

    metric: Literal["train_throughput", "inference_throughput"]
    kind: FlagKind
    detail: str
    """The values behind the flag, in words."""


class Latency(Struct, frozen=True, kw_only=True):
    """Nearest-rank percentiles of the latency of single batches, from input on the host to output on the host.

    A percentile is None if there are too few samples for it (p50 needs 11, p90 64, p99 662).
    """

    batch_size: int
    samples: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None


class DeviceMemory(Struct, frozen=True, kw_only=True):
    """Peak memory of the accelerator; a value is None if the framework or driver does not report it."""

    allocator_peak_bytes: int | None
    reserved_peak_bytes: int | None
    driver_peak_bytes: int | None


class Memory(Struct, frozen=True, kw_only=True):
    """Peak memory of the worker and of its device."""

    host_peak_bytes: int
    """Peak resident memory over all phases except ``prepare``, in which one run prepares the data for all."""
    host_peak_by_phase_bytes: dict[str, int]
    """Peak resident memory by phase."""
    host_counter: str
    """Source of the host values, such as ``VmHWM, reset at each phase``."""
    tree_peak_bytes: int | None = None
    """Largest sum over a phase of the peaks of the worker and all processes that it started; None if it started none,
    or if this was not measured."""
    device: DeviceMemory | None = None


class EnergyUse(Struct, frozen=True, kw_only=True):
    """Energy and mean power over the windows of the steady state; None if there is no counter."""

    train_j_per_sample: float | None
    train_w: float | None
    inference_j_per_sample: float | None
    inference_w: float | None


class Energy(Struct, frozen=True, kw_only=True):
    """Energy drawn by the whole processor packages and the whole GPU, including other work on them."""

    cpu: EnergyUse | None = None
    cpu_source: str = ""
    """The counter, such as ``RAPL: package-0, dram``, or the reason why there is no value."""
    gpu: EnergyUse | None = None
    gpu_source: str = ""
    """The same for the GPU."""


class TimeToTarget(Struct, frozen=True, kw_only=True):
    """The first epoch whose validation score reached the target. The whole curve is in `Success.curves`."""

    metric: str
    target: float
    train_s: float | None
    """Seconds of training up to the end of that epoch, without validation; None if the target was never reached."""
    epoch: int | None


class Evidence(Struct, frozen=True, kw_only=True):
    """Observations of the run about itself, for ``harness audit``."""

    timed_examples: int
    """Number of examples whose predictions were kept while latency was timed."""
    timed_error: float
    """Norm-wise relative difference between these predictions and those that were scored."""
    evaluated_weights_digest: str
    """SHA-256 of the weights after the test split was predicted."""
    clock_s: float
    """Duration from the first phase to the last, by the clock that times steps."""
    wall_s: float
    """The same duration by the system's wall clock."""


class ModelInfo(Struct, frozen=True, kw_only=True):
    """Size and cost of the model."""

    parameters: int
    """Number of trainable scalars."""
    flops_per_sample: float
    """Floating-point operations of the forward pass of one example, by the model's formula. A multiply-add counts as
    two."""


class Success(Struct, frozen=True, kw_only=True, tag="success"):
    """Outcome of a successful run: quality and cost."""

    scores: Scores
    curves: list[EpochEnded]
    """Learning curves, one entry per epoch."""
    speed: Speed
    latency: Latency
    memory: Memory
    model: ModelInfo
    phases_s: dict[str, float]
    """Seconds by phase: import, prepare (unless an earlier run did), data, build, train, validate, inference, score,
    sampling."""
    examples: dict[str, int]
    """Number of examples in each split."""
    flags: list[Flag] = []
    energy: Energy = Energy()
    time_to_target: TimeToTarget | None = None
    """None if neither the dataset nor the user sets a target."""
    evidence: Evidence | None = None
    """None in records of schema version 1."""


class Failure(Struct, frozen=True, kw_only=True, tag="failure"):
    """Outcome of a failed run."""

    kind: FailureKind
    message: str
    """The reason, in one line."""
    log_tail: str = ""
    """Last lines of the log."""
    phase: str = ""
    """Phase in which the run failed; empty if unknown."""


Outcome = Success | Failure


class Gpu(Struct, frozen=True, kw_only=True):
    """One GPU of the machine."""

    name: str
    memory_bytes: int
    """0 if the driver does not report it."""
    driver: str


class Environment(Struct, frozen=True, kw_only=True):
    """The machine and the software that a run was carried out on."""

    os: str
    kernel: str
    python: str
    cpu: str
    cores: int
    """Number of cores that the process may use."""
    memory_bytes: int
    gpus: list[Gpu]
    packages: dict[str, str]
    """Distribution name -> installed version."""
    load_1min: float | None
    """Load average of the last minute before the run started."""
    git_commit: str | None = None
    """Commit of the harness checkout, with ``+dirty`` if it was modified; None for an installed package."""


class Provenance(Struct, frozen=True, kw_only=True):
    """Origin of a run's numbers: data, weights, plugins and device."""

    dataset_digest: str | None = None
    """SHA-256 (hex) of the prepared splits: name, dtype, shape and bytes of every array."""
    initial_weights_digest: str | None = None
    final_weights_digest: str | None = None
    plugins: list[PluginRef] = []
    data: DataInfo | None = None
    device_name: str | None = None
    notes: dict[str, str] = {}
    """Settings made by the backend, such as thread counts, TF32 flags, compile mode and determinism."""


class Roofline(Struct, frozen=True, kw_only=True):
    """Measured peak compute and memory bandwidth of a device under one backend."""

    backend: str
    device: str
    precision: Precision
    threads: int
    hardware: str
    """Name of the CPU or GPU."""
    versions: dict[str, str]
    """Versions of the backend's packages."""
    matrix_flops_per_s: float
    """Best rate of square matrix products. A multiply-add counts as two."""
    copy_bytes_per_s: float
    """Bandwidth of a copy, counting bytes read and bytes written."""
    measured_at: str
    """UTC time in ISO 8601."""


class ParityMark(Struct, frozen=True, kw_only=True):
    """Result of the parity check before a run. ``parity/`` in the results directory has the full verdict."""

    backend: str
    """The backend that the run's backend was compared with."""
    passed: bool
    error: float | None
    """Largest relative error of the logits; None if they could not be compared."""
    verdict: str
    """Key of the verdict."""


class RunRecord(Struct, frozen=True, kw_only=True):
    """The record of one run. Raw samples and the log are stored next to it."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    """Name of the run's directory."""
    key: str
    """SHA-256 (hex) that identifies the spec; see `RunSpec.key`."""
    repeat: int
    """1 for the first run of this spec in the results directory, 2 for the second, and so on."""
    started_at: str
    """UTC time in ISO 8601."""
    wall_s: float
    """Duration of the whole child process, including imports."""
    spec: RunSpec
    environment: Environment
    provenance: Provenance
    outcome: Outcome
    parity: list[ParityMark] = []
    """Results of ``harness run --parity``; empty if no check was requested."""
    roofline: Roofline | None = field(default=None, name="peak")
    """Roofline of the device; None if ``harness doctor --roofline`` was not run before."""
