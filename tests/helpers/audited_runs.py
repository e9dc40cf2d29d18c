"""Runs of the toy plugin for tests of the audit, and runs whose records have every optional field."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from toy_plugin import FAST, TOY_REF

from harness.checks.parity.verdict import ParityVerdict, Stage, keep, side_of_record, subject, verdict_key
from harness.execute.runner import run_all
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import load
from harness.plugins.catalog import Catalog
from harness.records import (
    CheckpointUse,
    DataSource,
    DeviceMemory,
    Energy,
    EnergyUse,
    ExportedModel,
    Flag,
    Gpu,
    Interval,
    Placement,
    PluginRef,
    Pretrained,
    RankMemory,
    Roofline,
    RunRecord,
    Success,
    TrainedWeights,
    TuningCost,
)
from harness.records.store import RECORD, Store, StoredRun, run_id, write_json

GROUPED = '''
"""Toy task whose test split has two groups."""

import dataclasses

import msgspec

import harness
from harness_toy import ToyColors

HARNESS_API_VERSION = "1.0"


class Grouped(ToyColors):
    name = "toy-grouped"

    def prepare(self, data, options):
        prepared = super().prepare(data, options)
        points = prepared.test.inputs["features"]
        groups = {"side": (points[:, 0] > 0).astype(str), "size": abs(points).sum(axis=1)}
        columns = harness.TableColumns(numbers=1, indicators=(0,), categories=(2,))
        info = msgspec.structs.replace(
            prepared.info, warnings=("the points were drawn for a test",), columns=columns
        )
        return dataclasses.replace(prepared, test=dataclasses.replace(prepared.test, groups=groups), info=info)


@harness.hookimpl
def harness_tasks():
    yield Grouped()
'''


def grouped_catalog(folder: Path) -> Catalog:
    """Write a plugin with a grouped task to a folder, and return a catalog of it and the toy plugin."""
    path = folder / "grouped.py"
    path.write_text(GROUPED)
    catalog = load([TOY_REF, PluginRef(name="grouped", value=str(path), distribution="file", version="")])
    assert not catalog.failures, catalog.failures
    return catalog


def make(
    task: str,
    catalog: Catalog,
    results: Path,
    overrides: Sequence[str] = (),
    *,
    weights: bool = True,
    quality_only: bool = False,
) -> StoredRun:
    """Make one run of the toy backend."""
    chosen = Selection(tasks=(task,), backends=("toy-numpy",), threads=1, overrides=(*FAST, *overrides))
    (record,) = run_all(
        expand(chosen, catalog), catalog, Store(results), save_weights=weights, quality_only=quality_only
    )
    assert isinstance(record.outcome, Success), record.outcome
    return StoredRun(results / record.run_id, record)


def served(run: StoredRun, catalog: Catalog) -> StoredRun:
    """Measure inference with the weights of a run, without training."""
    chosen = Selection(weights=(run,), backends=("toy-numpy",), threads=1, overrides=FAST)
    (record,) = run_all(expand(chosen, catalog), catalog, Store(run.path.parent))
    assert isinstance(record.outcome, Success), record.outcome
    return StoredRun(run.path.parent / record.run_id, record)


def with_other_models(run: StoredRun) -> StoredRun:
    """Write a copy of a run whose record refers to a teacher or, if the run used trained weights, to an exported model.

    The teacher does not affect the run, because the recipe does not use its logits.
    """
    exported = ExportedModel(exporter="toy-exporter", digest="f" * 64, path="/data/model")
    spec, weights = run.record.spec, run.record.spec.weights
    if weights is None:
        teacher = TrainedWeights(
            run="teacher",
            backend="toy-numpy",
            digest="d" * 64,
            dataset_digest="e" * 64,
            path="/data/teacher",
            exported=exported,
        )
        spec = msgspec.structs.replace(spec, teacher=teacher)
    else:
        spec = msgspec.structs.replace(spec, weights=msgspec.structs.replace(weights, exported=exported))
    record = run.record
    if weights is not None:  # a session of an exported model has no weights, and the export is a phase
        outcome = record.outcome
        assert isinstance(outcome, Success)
        assert outcome.evidence
        outcome = msgspec.structs.replace(
            outcome,
            phases_s={"export": 0.1, **outcome.phases_s},
            memory=msgspec.structs.replace(
                outcome.memory,
                host_peak_by_phase_bytes={"export": 2**20, **outcome.memory.host_peak_by_phase_bytes},
            ),
            evidence=msgspec.structs.replace(outcome.evidence, evaluated_weights_digest=""),
        )
        provenance = msgspec.structs.replace(record.provenance, final_weights_digest="")
        record = msgspec.structs.replace(record, outcome=outcome, provenance=provenance, wall_s=record.wall_s + 0.1)
    name = run_id(spec, spec.key, record.repeat)
    made = msgspec.structs.replace(record, run_id=name, spec=spec, key=spec.key, request_key=spec.key)
    path = run.path.parent / name
    shutil.copytree(run.path, path)
    write_json(path / RECORD, made)
    return StoredRun(path, made)


def completed(run: StoredRun) -> StoredRun:
    """Write a copy of a run whose record has all optional fields, with values that agree with each other."""
    record = run.record
    outcome = record.outcome
    assert isinstance(outcome, Success)
    checkpoint = Pretrained(name="tiny", digest="c" * 64, revision="1" * 40, path="/data/tiny")
    spec = msgspec.structs.replace(
        record.spec,
        dataset="points with more than 24 characters.csv",
        device="cuda:0",
        devices=2,
        pretrained=checkpoint,
        recipe=msgspec.structs.replace(record.spec.recipe, milestones=(1, 2), frozen=("a.*", "b")),
        task_options={**record.spec.task_options, "vocabulary": checkpoint.path, "longest": 0.5},
        model_options={"bias": True},
        dataset_options={"sha256": "e" * 64},
        source=DataSource(
            path="/data/points.csv",
            guessed=("target_column",),
            warnings=("3 rows were skipped",),
            training_examples=8,
            defaults=("recipe.epochs of toy-linear was raised from 3 to 9",),
        ),
    )
    gpu = Gpu(name="Example GPU", memory_bytes=80 * 2**30, driver="570.1")
    environment = msgspec.structs.replace(record.environment, gpus=[gpu], git_commit="a" * 40)
    speed = outcome.speed
    assert outcome.evidence
    assert speed.train_samples_per_s
    assert speed.inference_samples_per_s
    use = EnergyUse(
        train_j_per_sample=50 / speed.train_samples_per_s,
        train_w=50.0,
        inference_j_per_sample=40 / speed.inference_samples_per_s,
        inference_w=40.0,
    )
    load_flag = Flag(metric="train_throughput", kind="other_load", detail="1.5 of 2 cores were busy with other work")
    heat_flag = Flag(
        metric="inference_throughput", kind="throttled", detail="the GPU was throttled for 5.0% of the time"
    )
    flags = [flag for flag in outcome.flags if flag.kind in ("wide", "drift", "bimodal")]
    flags.insert(sum(flag.metric == "train_throughput" for flag in flags), load_flag)
    # The run was interrupted after training, so that no window contains the first step of another process.
    end = outcome.curves[-1].step
    detail = f"training was interrupted once and resumed after {end} steps; the peak memory is that of the last process"
    flags.insert(flags.index(load_flag) + 1, Flag(metric="train_throughput", kind="resumed", detail=detail))
    checkpoints = CheckpointUse(
        every=Interval(count=1, unit="epochs"),
        written=3,
        write_s=0.1,
        resumed_at=[end],
        earlier_s={"train": 0.5, "validate": 0.1},
        problems=["No space left on device"],
    )
    flags.append(heat_flag)
    device = DeviceMemory(allocator_peak_bytes=2**24, reserved_peak_bytes=2**25, driver_peak_bytes=2**26)
    worker = RankMemory(host_peak_bytes=outcome.memory.host_peak_bytes, device=device)
    memory = msgspec.structs.replace(
        outcome.memory,
        tree_peak_bytes=outcome.memory.host_peak_bytes + 2**21,
        device=device,
        ranks=[worker, msgspec.structs.replace(worker, host_peak_bytes=2**21)],
    )
    made = msgspec.structs.replace(
        record,
        run_id=f"{spec.stem}-s{spec.seed}-{spec.key[:8]}-1",
        key=spec.key,
        request_key=spec.key,
        spec=spec,
        placement=Placement(jobs=2, cores=(0, 1), gpu="0", checked_at="2026-01-01T00:00:00Z"),
        environment=environment,
        outcome=msgspec.structs.replace(
            outcome,
            memory=memory,
            flags=flags,
            energy=Energy(cpu=use, cpu_source="RAPL", gpu=use, gpu_source="NVML"),
            evidence=msgspec.structs.replace(outcome.evidence, timed_error=1e-7),
            checkpoints=checkpoints,
        ),
        tuning=TuningCost(study="toy-1", trial=3, trials=20, pruned=8, failed=1, steps=400, seconds=60.5),
        roofline=Roofline(
            backend=spec.backend,
            device=spec.device,
            precision=spec.precision,
            threads=spec.threads,
            hardware=str(record.provenance.device_name),
            versions={name: environment.packages[name] for name in ("numpy", "harness-toy")},
            matrix_flops_per_s=1e12,
            copy_bytes_per_s=1e11,
            measured_at="2026-01-01T00:00:00Z",
        ),
    )
    verdict = _verdict(made)
    made = msgspec.structs.replace(made, parity=[verdict.mark("toy-other")])
    path = run.path.parent / made.run_id
    shutil.copytree(run.path, path)
    write_json(path / RECORD, made)
    keep(verdict, path.parent)
    return StoredRun(path, made)


def _verdict(record: RunRecord) -> ParityVerdict:
    """Return the verdict of a parity check that was made before the run."""
    assert record.provenance.data is not None
    about, sides = subject(record.spec, record.provenance.data), (side_of_record(record), "0" * 64)
    logits = Stage(name="logits", passed=True, error=1e-7, where="example 3", tolerance=1e-5, source="rounding")
    fixed: dict[str, Any] = {"devices": ("the host", "the host"), "reference": None, "steps": 50, "explanation": ""}
    return ParityVerdict(
        key=verdict_key(about, sides),
        subject=about,
        sides=sides,
        checked_at="2026-01-01T00:00:00Z",
        wall_s=1.0,
        spec=record.spec,
        backends=(record.spec.backend, "toy-other"),
        parameters=15,
        passed=True,
        stages=[logits],
        **fixed,
    )
