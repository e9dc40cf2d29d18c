"""What is kept of a run: `RunRecord`, with a `Success` or a `Failure`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from harness.records.events import EpochEnded
from harness.records.spec import DataInfo, PluginRef, Precision, RunSpec

SCHEMA_VERSION = 2

FailureKind = Literal["oom", "timeout", "crash", "error", "unsupported", "bad_result", "interrupted"]


class ClassScore(Struct, frozen=True, kw_only=True):
    label: str
    precision: float
    recall: float
    f1: float
    roc_auc: float | None
    """One against the rest; None where the split has no example or only this class."""
    support: int


class SliceScore(Struct, frozen=True, kw_only=True):
    """The primary metric on the test examples that share a value of a group."""

    group: str
    """What the dataset or task groups by, such as ``speaker`` or ``tokens``."""
    value: str
    """The group's value, or the range of its numbers."""
    support: int
    score: float | None
    """None where the metric is not defined on so few."""


class Scores(Struct, frozen=True, kw_only=True):
    """Quality, computed by the core from the predictions, for every backend by the same code."""

    primary: str
    """Name of the metric that the task is judged by."""
    test: dict[str, float | None]
    validation: dict[str, float | None]
    reference: dict[str, float | None] | None = None
    """Test scores of the model's closed-form solution, where it has one."""
    per_class: list[ClassScore] = []
    confusion: list[list[int]] = []
    """Rows are true classes, columns predicted ones."""
    slices: list[SliceScore] = []
    """Of each group of the test split, in order."""
    intervals: dict[str, tuple[float, float]] = {}
    """95% interval of a test score over the test examples, by the bootstrap; of metrics that have one."""


class Steady(Struct, frozen=True, kw_only=True):
    """The steady state that a throughput is the median of."""

    windows: int
    seconds: float
    warmup_windows: int
    """Windows before it, which do not count: the throughput still moved. The very first step is not among them."""
    low: float | None
    """Samples a second: ends of the 95% interval of the median (order statistics); None for fewer than six windows."""
    high: float | None
    ended: Literal["target", "budget"]
    """Whether the protocol's demands were met, or its time was up before."""


class Speed(Struct, frozen=True, kw_only=True):
    """Medians over the steady-state windows; the windows themselves are in the run's arrays."""

    train_samples_per_s: float | None
    inference_samples_per_s: float | None
    first_step_s: float
    """The first training step: compilation, allocation, first batch."""
    train: Steady | None
    """None in records of schema version 1 whose training was a single step."""
    inference: Steady
    train_flops_per_s: float | None = None
    """`train_samples_per_s` times three times the forward FLOPs of a sample (backward counted as two forwards)."""


FlagKind = Literal["wide", "drift", "bimodal", "throttled", "other_load"]


class Flag(Struct, frozen=True, kw_only=True):
    """A reason to doubt a figure."""

    metric: Literal["train_throughput", "inference_throughput"]
    kind: FlagKind
    detail: str


class Latency(Struct, frozen=True, kw_only=True):
    """Nearest-rank percentiles of single batches, input on the host to output on the host.

    A percentile is None where there are too few samples for it (p50 11, p90 64, p99 662).
    """

    batch_size: int
    samples: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None


class DeviceMemory(Struct, frozen=True, kw_only=True):
    """Peaks of the accelerator's memory; each None where the framework or driver does not tell."""

    allocator_peak_bytes: int | None
    reserved_peak_bytes: int | None
    driver_peak_bytes: int | None


class Memory(Struct, frozen=True, kw_only=True):
    host_peak_bytes: int
    """Of all phases but ``prepare``: only the first run of several prepares the data for all of them."""
    host_peak_by_phase_bytes: dict[str, int]
    host_counter: str
    """Where the host figures come from, such as ``VmHWM, reset at each phase``."""
    tree_peak_bytes: int | None = None
    """The worker and all processes that it started: the largest sum of their peaks in a phase. None where it started
    none, or where it was not looked for."""
    device: DeviceMemory | None = None


class EnergyUse(Struct, frozen=True, kw_only=True):
    """Over the steady-state windows."""

    train_j_per_sample: float | None
    train_w: float | None
    inference_j_per_sample: float | None
    inference_w: float | None


class Energy(Struct, frozen=True, kw_only=True):
    """What the whole processor packages and the whole device drew, other work on them included; never summed up."""

    cpu: EnergyUse | None = None
    cpu_source: str = ""
    """The counter, such as ``RAPL: package-0, dram``, or why there is no figure."""
    gpu: EnergyUse | None = None
    gpu_source: str = ""


class TimeToTarget(Struct, frozen=True, kw_only=True):
    """When the validation score first reached the target; the curve is `Success.curves`."""

    metric: str
    target: float
    train_s: float | None
    """Seconds of training, validation left out; None where it was never reached."""
    epoch: int | None


class Evidence(Struct, frozen=True, kw_only=True):
    """What the run saw of itself, for ``harness audit``."""

    timed_examples: int
    """Examples whose predictions were kept while latency was timed."""
    timed_error: float
    """Norm-wise relative difference of these from the predictions that were scored."""
    evaluated_weights_digest: str
    """SHA-256 of the weights after the test split was predicted."""
    clock_s: float
    """From the first phase to the last, by the clock that times steps ..."""
    wall_s: float
    """... and by the system's wall clock."""


class ModelInfo(Struct, frozen=True, kw_only=True):
    parameters: int
    """Trainable scalars."""
    flops_per_sample: float
    """Floating-point operations (a multiply-add is two) of one example's forward pass, by the model's formula."""


class Success(Struct, frozen=True, kw_only=True, tag="success"):
    """A run that ended well: its quality and its cost."""

    scores: Scores
    curves: list[EpochEnded]
    speed: Speed
    latency: Latency
    memory: Memory
    model: ModelInfo
    phases_s: dict[str, float]
    """Seconds by phase: import, prepare (where no earlier run did), data, build, train, validate, score, inference."""
    examples: dict[str, int]
    """Examples in each split."""
    flags: list[Flag] = []
    energy: Energy = Energy()
    time_to_target: TimeToTarget | None = None
    """None where neither the dataset nor the user names a target."""
    evidence: Evidence | None = None
    """None in records of schema version 1."""


class Failure(Struct, frozen=True, kw_only=True, tag="failure"):
    """A run that did not end well: why, in one line, where, and the end of its log."""

    kind: FailureKind
    message: str
    log_tail: str = ""
    phase: str = ""


Outcome = Success | Failure


class Gpu(Struct, frozen=True, kw_only=True):
    name: str
    memory_bytes: int
    """0 where the driver does not tell."""
    driver: str


class Environment(Struct, frozen=True, kw_only=True):
    """The machine and the software, as found where the run took place."""

    os: str
    kernel: str
    python: str
    cpu: str
    cores: int
    """Cores that this process may use."""
    memory_bytes: int
    gpus: list[Gpu]
    packages: dict[str, str]
    load_1min: float | None
    """Load average before the run started: other work on the machine shows here."""
    git_commit: str | None = None
    """Commit of the harness checkout that ran; ends in ``+dirty`` when it was modified."""


class Provenance(Struct, frozen=True, kw_only=True):
    dataset_digest: str | None = None
    """SHA-256 over the prepared splits: every array's name, dtype, shape and bytes."""
    initial_weights_digest: str | None = None
    final_weights_digest: str | None = None
    plugins: list[PluginRef] = []
    data: DataInfo | None = None
    device_name: str | None = None
    notes: dict[str, str] = {}
    """What the backend set: thread counts, TF32 flags, compile mode, determinism."""


class Roofline(Struct, frozen=True, kw_only=True):
    """The roofs of a device under one backend: what matrix products and copies attain at best, measured."""

    backend: str
    device: str
    precision: Precision
    threads: int
    hardware: str
    """The CPU's or GPU's name."""
    versions: dict[str, str]
    """Of the backend's packages."""
    matrix_flops_per_s: float
    """A multiply-add is two."""
    copy_bytes_per_s: float
    """Bytes read and bytes written, both counted."""
    measured_at: str
    """UTC, ISO 8601."""


class ParityMark(Struct, frozen=True, kw_only=True):
    """What the parity check before a run found; the verdict itself lies in the results directory's ``parity``."""

    backend: str
    """The backend that this run's was compared with."""
    passed: bool
    error: float | None
    """Largest relative error of the logits; None where they could not be compared."""
    verdict: str
    """Key of the verdict."""


class RunRecord(Struct, frozen=True, kw_only=True):
    """All that is kept of one run, beside its raw samples and its log."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    """Name of the run's directory."""
    key: str
    repeat: int
    """1 for the first run of this spec in this results directory."""
    started_at: str
    """UTC, ISO 8601."""
    wall_s: float
    """The whole child process, imports and all."""
    spec: RunSpec
    environment: Environment
    provenance: Provenance
    outcome: Outcome
    parity: list[ParityMark] = []
    """Of ``harness run --parity``; empty where no check was asked for."""
    roofline: Roofline | None = field(default=None, name="peak")
    """Of the device that the run was on; None where ``harness doctor --roofline`` was not run before."""
