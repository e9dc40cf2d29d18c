"""Artificial run records for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from harness.records import (
    ClassScore,
    DataInfo,
    DeviceMemory,
    Energy,
    EnergyUse,
    Environment,
    EpochEnded,
    Failure,
    FailureKind,
    Flag,
    InputSpec,
    Latency,
    Memory,
    ModelInfo,
    Outcome,
    PluginRef,
    Provenance,
    Recipe,
    RunRecord,
    RunSpec,
    Scores,
    SliceScore,
    Speed,
    Steady,
    Success,
)
from harness.records.store import run_id

MIB = 2**20

ENVIRONMENT = Environment(
    os="Debian 12",
    kernel="Linux 6.1 x86_64",
    python="CPython 3.11.2",
    cpu="Example CPU 2.0 GHz",
    cores=2,
    memory_bytes=8 * 2**30,
    gpus=[],
    packages={"numpy": "2.4.6"},
    load_1min=0.25,
)


def spec(**changes: Any) -> RunSpec:
    values: dict[str, Any] = {
        "task": "nlp",
        "dataset": "cldr-langid",
        "model": "bert-tiny",
        "backend": "torch",
        "device": "cpu",
        "recipe": Recipe(epochs=2),
    }
    return RunSpec(**values | changes)


def steady(rate: float) -> Steady:
    return Steady(windows=12, seconds=3.0, warmup_windows=2, low=0.99 * rate, high=1.01 * rate, ended="target")


def success(
    quality: float = 0.75,
    *,
    primary: str = "accuracy",
    test: dict[str, float | None] | None = None,
    reference: dict[str, float | None] | None = None,
    train: float = 1000.0,
    inference: float = 4000.0,
    p50_ms: float | None = 12.0,
    p90_ms: float | None = 14.0,
    p99_ms: float | None = None,
    host_mib: float = 500.0,
    device: DeviceMemory | None = None,
    flags: Sequence[Flag] = (),
    energy: Energy = Energy(cpu_source="RAPL: this machine has no energy counter"),  # noqa: B008 - frozen
) -> Success:
    second: dict[str, float | None] = {"f1_macro": quality - 0.01} if primary == "accuracy" else {"r2": 0.5}
    epochs = [
        EpochEnded(
            epoch=epoch,
            epochs=2,
            step=10 * epoch,
            train_s=1.5 * epoch,
            train_loss=1.0 / epoch,
            validation={primary: 0.5},
        )
        for epoch in (1, 2)
    ]
    return Success(
        scores=Scores(
            primary=primary,
            test={primary: quality, **second} if test is None else test,
            validation={primary: quality},
            reference=reference,
            per_class=[ClassScore(label="de", precision=0.7, recall=0.8, f1=0.747, roc_auc=None, support=40)],
            confusion=[[32, 8], [10, 30]],
            slices=[SliceScore(group="tokens", value="3 to 9", support=80, score=0.775)],
        ),
        curves=epochs,
        speed=Speed(
            train_samples_per_s=train,
            inference_samples_per_s=inference,
            first_step_s=0.5,
            train=steady(train),
            inference=steady(inference),
            train_flops_per_s=1.25e9,
        ),
        latency=Latency(batch_size=64, samples=150, p50_ms=p50_ms, p90_ms=p90_ms, p99_ms=p99_ms),
        memory=Memory(
            host_peak_bytes=int(host_mib * MIB),
            host_peak_by_phase_bytes={"import": 300 * MIB, "train": int(host_mib * MIB)},
            host_counter="VmHWM, reset at each phase",
            device=device,
        ),
        model=ModelInfo(parameters=4_400_000, flops_per_sample=2.5e7),
        phases_s={"import": 2.0, "data": 1.0, "train": 3.0},
        examples={"train": 800, "validation": 100, "test": 100},
        flags=list(flags),
        energy=energy,
    )


def failure(kind: FailureKind = "oom", message: str = "killed: out of memory") -> Failure:
    return Failure(kind=kind, message=message, log_tail="step 12\nKilled", phase="train")


def record(
    outcome: Outcome | None = None,
    *,
    repeat: int = 1,
    environment: Environment = ENVIRONMENT,
    started_at: str = "2025-11-22T12:00:00Z",
    target_unit: str = "",
    **changes: Any,
) -> RunRecord:
    run = spec(**changes)
    backend = {"torch": "2.9.0", "tensorflow": "2.20.0"}.get(run.backend)
    packages = environment.packages | ({run.backend: backend} if backend else {})
    details: dict[str, bool | int | float | str] = {"target_unit": target_unit} if target_unit else {}
    return RunRecord(
        run_id=run_id(run, run.key, repeat),
        key=run.key,
        repeat=repeat,
        started_at=started_at,
        wall_s=12.5,
        spec=run,
        environment=msgspec.structs.replace(environment, packages=packages),
        provenance=Provenance(
            dataset_digest="d" * 64,
            initial_weights_digest="a" * 64,
            final_weights_digest="b" * 64,
            plugins=[PluginRef(name="nlp", value="harness_nlp", distribution="harness", version="0.1.0")],
            data=DataInfo(
                kind="tokens",
                inputs={"input_ids": InputSpec(shape=(32,), dtype="int32")},
                objective="regression" if target_unit else "classification",
                outputs=1 if target_unit else 2,
                label_names=() if target_unit else ("de", "fr"),
                details=details,
            ),
            device_name="Example CPU",
            notes={"intra_op_threads": "2"},
        ),
        outcome=success() if outcome is None else outcome,
    )


def comparison() -> list[RunRecord]:
    """Return runs of two tasks on two backends, with three seeds, a repeat, two failures, a closed form and a GPU."""
    nlp = [
        (0.7123, 1893.0, 5120.0, "torch", 0, 1),
        (0.6981, 1712.0, 5033.0, "tensorflow", 0, 1),
        (0.7188, 1901.0, 5210.0, "torch", 1, 1),
        (0.7045, 1698.0, 4950.0, "tensorflow", 1, 1),
        (0.7154, 1888.0, 5160.0, "torch", 2, 1),
        (0.7154, 1910.0, 5180.0, "torch", 2, 2),
    ]
    records = [
        record(success(q, train=train, inference=inference), backend=backend, seed=seed, repeat=repeat)
        for q, train, inference, backend, seed, repeat in nlp
    ]
    drift = Flag(metric="train_throughput", kind="drift", detail="throughput changed by +3.1%")
    records[0] = record(success(0.7123, train=1893.0, inference=5120.0, flags=[drift]), backend="torch")
    records.append(record(failure(), backend="tensorflow", seed=2, device="auto"))
    table = {"task": "regression", "dataset": "diabetes", "target_unit": "score"}
    rmse: dict[str, Any] = {"primary": "rmse", "reference": {"rmse": 53.8536}}
    memory = DeviceMemory(allocator_peak_bytes=21 * MIB, reserved_peak_bytes=32 * MIB, driver_peak_bytes=460 * MIB)
    drawn = EnergyUse(train_j_per_sample=0.0123, train_w=212.5, inference_j_per_sample=0.00456, inference_w=180.0)
    energy = Energy(cpu_source="RAPL: this machine has no energy counter", gpu=drawn, gpu_source="NVML")
    records += [
        record(success(53.9021, **rmse, p99_ms=16.25), model="linear", **table),
        record(success(53.9021, **rmse), model="linear", backend="tensorflow", **table),
        record(success(55.25, primary="rmse", device=memory, energy=energy), model="mlp", device="cuda:0", **table),
        record(
            failure("unsupported", "no CUDA device is visible\nto TensorFlow | check the driver"),
            model="mlp",
            backend="tensorflow",
            device="cuda:0",
            **table,
        ),
    ]
    return records
