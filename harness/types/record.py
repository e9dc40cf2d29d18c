"""What is kept of a run: `RunRecord`, with a `Success` or a `Failure`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from harness.types.events import EpochEnded
from harness.types.spec import DataInfo, PluginRef, RunSpec

SCHEMA_VERSION = 1

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


class Speed(Struct, frozen=True, kw_only=True):
    """Medians over the steady-state windows; the windows themselves are in the run's arrays."""

    train_samples_per_s: float | None
    inference_samples_per_s: float | None
    first_step_s: float
    """The first training step: compilation, allocation, first batch."""
    train_windows: int
    """Number of steady-state windows behind the median."""
    inference_windows: int
    train_flops_per_s: float | None = None
    """`train_samples_per_s` times three times the forward FLOPs of a sample (backward counted as two forwards)."""


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
    device: DeviceMemory | None = None


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
