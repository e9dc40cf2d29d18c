"""Hypothesis strategies for records, selections and predictions."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st

from harness.plan.overrides import SECTIONS
from harness.plan.selection import Selection
from harness.records import (
    CheckpointUse,
    ClassScore,
    DataInfo,
    DataSource,
    DeviceMemory,
    Energy,
    EnergyUse,
    Environment,
    EpochEnded,
    Evidence,
    Failure,
    Flag,
    Gpu,
    InputSpec,
    Interval,
    Latency,
    Memory,
    ModelInfo,
    ParityMark,
    PluginRef,
    Protocol,
    Provenance,
    Recipe,
    Roofline,
    RunRecord,
    RunSpec,
    Scores,
    SliceScore,
    Speed,
    Steady,
    Success,
    TargetScore,
    TimeToTarget,
)

# Surrogates cannot be encoded as UTF-8.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
numbers = st.just(0.0) | st.floats(1e-99, 1e99) | st.floats(-1e99, -1e-99)  # harness.records.plausible
counts = st.integers(0, 2**53)
fractions = st.just(0.0) | st.floats(1e-99, 1, exclude_max=True)
positive = st.floats(1e-9, 1e9)
scores = st.dictionaries(words, st.none() | numbers, max_size=3)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
options = st.dictionaries(words, json_values, max_size=3)

recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 1000),
    batch_size=st.integers(1, 4096),
    optimizer=st.sampled_from(["sgd", "rmsprop", "adam", "adamw", "adagrad", "lion", "lamb"]),
    learning_rate=positive,
    momentum=fractions,
    nesterov=st.booleans(),
    beta1=fractions,
    beta2=fractions,
    epsilon=st.sampled_from([0.0, 1e-8, 0.5, 1.0]),
    weight_decay=st.sampled_from([0.0, 1e-8, 0.5, 1.0]),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    warmup_fraction=st.sampled_from([0.0, 1e-8, 0.5, 1.0]),
    clip_norm=st.none() | positive,
    label_smoothing=fractions,
    dropout=fractions,
    l1=st.sampled_from([0.0, 1e-8, 1.0]),
    class_weights=st.sampled_from([None, "balanced", (0.5, 2.0)]),
    frozen=st.sampled_from([(), ("a.*", "b")]),
    distillation_alpha=fractions | st.just(1.0),
    distillation_temperature=positive,
    loss_scale=st.none() | positive,
    early_stopping=st.none() | st.integers(1, 9),
    keep_best=st.booleans(),
    max_steps=st.none() | st.integers(1, 10**6),
    max_seconds=st.none() | positive,
    monitor=st.sampled_from(["metric", "loss"]),
)
protocols = st.builds(
    Protocol,
    name=words,
    window_s=positive,
    min_steady_windows=st.integers(1, 99),
    min_steady_s=positive,
    max_relative_half_width=st.floats(1e-6, 1),
    throughput_budget_s=positive,
    target=st.none() | numbers,
    latency_batches=st.integers(1, 9999),
    latency_budget_s=positive,
)
specs = st.builds(
    RunSpec,
    task=words,
    dataset=words,
    model=words,
    backend=words,
    device=st.sampled_from(["auto", "cpu", "cuda", "cuda:1"]),
    precision=st.sampled_from(["fp32", "tf32", "bf16", "fp16", "fp64"]),
    compile=st.booleans(),
    deterministic=st.booleans(),
    env=st.sampled_from(["", "tf220"]),
    seed=st.integers(0, 2**53),
    threads=st.integers(1, 256),
    recipe=recipes,
    protocol=protocols,
    task_options=options,
    dataset_options=options,
    model_options=options,
    metric=st.just("") | words,
    source=st.none() | st.builds(DataSource, path=text, guessed=st.lists(words, max_size=2).map(tuple)),
)


def _several(values: st.SearchStrategy[Any], min_size: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, min_size=min_size, max_size=3, unique=True).map(tuple)


selections = st.builds(
    Selection,
    tasks=_several(words, 1),
    datasets=_several(words),
    models=_several(words),
    backends=_several(words),
    devices=_several(st.sampled_from(["auto", "cpu", "cuda", "cuda:1"]), 1),
    precisions=_several(st.sampled_from(["fp32", "tf32", "bf16", "fp16", "fp64"]), 1),
    seeds=_several(st.integers(0, 2**32 - 1)),
    threads=st.none() | st.integers(1, 1024),
    protocol=st.sampled_from(["quick", "standard", "publish"]),
    pretrained=st.none() | words,
    splits=_several(st.integers(0, 99)) | st.just("all"),
    metric=st.none() | words,
    compile=st.booleans(),
    deterministic=st.booleans(),
    overrides=_several(st.builds("{}.{}={}".format, st.sampled_from(SECTIONS), words, text)),
    repeat=st.none() | st.integers(1, 99),
)

plugin_refs = st.builds(PluginRef, name=text, value=text, distribution=text, version=text)
data_infos = st.builds(
    DataInfo,
    kind=words,
    inputs=st.dictionaries(
        words, st.builds(InputSpec, shape=st.lists(st.integers(0, 999), max_size=3).map(tuple), dtype=words), max_size=2
    ),
    objective=st.sampled_from(["classification", "regression"]),
    outputs=st.just(2),
    label_names=st.just(()) | st.tuples(text, text),
    target_mean=st.just(()) | st.tuples(numbers, numbers),
    target_scale=st.just(()) | st.tuples(numbers, numbers),
    details=st.dictionaries(words, st.booleans() | st.integers(-(2**53), 2**53) | numbers | text, max_size=3),
)
epochs = st.builds(
    EpochEnded, epoch=counts, epochs=counts, step=counts, train_s=numbers, train_loss=numbers, validation=scores
)
class_scores = st.builds(
    ClassScore,
    label=text,
    precision=numbers,
    recall=numbers,
    f1=numbers,
    roc_auc=st.none() | numbers,
    support=counts,
)
slice_scores = st.builds(SliceScore, group=text, value=text, support=counts, score=st.none() | numbers) | st.builds(
    lambda group, matrix: SliceScore(
        group=group,
        value="counted",
        support=sum(map(sum, matrix)),
        score=None,
        class_support=[sum(row) for row in matrix],
        class_predicted=[sum(column) for column in zip(*matrix, strict=True)],
        class_correct=[row[number] for number, row in enumerate(matrix)],
    ),
    text,
    st.lists(st.lists(counts, min_size=2, max_size=2), min_size=2, max_size=2),
)
target_scores = st.builds(TargetScore, label=text, unit=text, scores=scores)
optional_numbers = st.none() | numbers
optional_counts = st.none() | counts
steadies = st.builds(
    Steady,
    windows=counts,
    seconds=numbers,
    warmup_windows=counts,
    low=optional_numbers,
    high=optional_numbers,
    ended=st.sampled_from(["target", "budget"]),
)
energy_uses = st.none() | st.builds(
    EnergyUse,
    train_j_per_sample=optional_numbers,
    train_w=optional_numbers,
    inference_j_per_sample=optional_numbers,
    inference_w=optional_numbers,
)
flags = st.builds(
    Flag,
    metric=st.sampled_from(["train_throughput", "inference_throughput"]),
    kind=st.sampled_from(["wide", "drift", "bimodal", "throttled", "other_load", "resumed"]),
    detail=text,
)
successes = st.builds(
    Success,
    flags=st.lists(flags, max_size=2),
    energy=st.builds(Energy, cpu=energy_uses, cpu_source=text, gpu=energy_uses, gpu_source=text),
    time_to_target=st.none()
    | st.builds(TimeToTarget, metric=words, target=numbers, train_s=optional_numbers, epoch=st.none() | counts),
    evidence=st.none()
    | st.builds(
        Evidence,
        timed_examples=counts,
        timed_error=numbers,
        evaluated_weights_digest=words,
        clock_s=numbers,
        wall_s=numbers,
    ),
    checkpoints=st.none()
    | st.builds(
        CheckpointUse,
        every=st.builds(Interval, count=numbers, unit=st.sampled_from(["epochs", "steps", "seconds"])),
        written=counts,
        write_s=numbers,
        resumed_at=st.lists(counts, max_size=2),
        earlier_s=st.dictionaries(words, numbers, max_size=2),
        problems=st.lists(text, max_size=2),
    ),
    scores=st.builds(
        Scores,
        primary=words,
        test=scores,
        validation=scores,
        reference=st.none() | scores,
        per_class=st.lists(class_scores, max_size=2),
        confusion=st.integers(0, 2).flatmap(
            lambda size: st.lists(st.lists(counts, min_size=size, max_size=size), min_size=size, max_size=size)
        ),
        per_target=st.lists(target_scores, max_size=2),
        slices=st.lists(slice_scores, max_size=2),
        intervals=st.dictionaries(words, st.tuples(numbers, numbers), max_size=2),
        no_interval=st.dictionaries(words, words, max_size=2),
        interval_method=words,
    ).map(
        lambda found: msgspec.structs.replace(
            found, slices=[one for one in found.slices if len(one.class_support) in (0, len(found.confusion))]
        )
    ),
    curves=st.lists(epochs, max_size=2),
    speed=st.builds(
        Speed,
        train_samples_per_s=optional_numbers,
        inference_samples_per_s=optional_numbers,
        first_step_s=numbers,
        train=st.none() | steadies,
        inference=steadies,
        train_flops_per_s=optional_numbers,
        by_steps=st.none() | st.booleans(),
    ),
    latency=st.builds(
        Latency,
        batch_size=counts,
        samples=counts,
        p50_ms=optional_numbers,
        p90_ms=optional_numbers,
        p99_ms=optional_numbers,
    ),
    memory=st.builds(
        Memory,
        host_peak_bytes=counts,
        host_peak_by_phase_bytes=st.dictionaries(words, counts, max_size=2),
        host_counter=text,
        tree_peak_bytes=st.none() | counts,
        device=st.none()
        | st.builds(
            DeviceMemory,
            allocator_peak_bytes=optional_counts,
            reserved_peak_bytes=optional_counts,
            driver_peak_bytes=optional_counts,
        ),
    ),
    model=st.builds(ModelInfo, parameters=counts, flops_per_sample=numbers),
    phases_s=st.dictionaries(words, numbers, max_size=2),
    examples=st.dictionaries(words, counts, max_size=2),
)
failures = st.builds(
    Failure,
    kind=st.sampled_from(["oom", "timeout", "crash", "error", "unsupported", "bad_result", "interrupted"]),
    message=text,
    log_tail=text,
    phase=text,
)
environments = st.builds(
    Environment,
    os=text,
    kernel=text,
    python=text,
    cpu=text,
    cores=counts,
    memory_bytes=counts,
    gpus=st.lists(st.builds(Gpu, name=text, memory_bytes=counts, driver=text), max_size=2),
    packages=st.dictionaries(words, text, max_size=2),
    load_1min=optional_numbers,
    git_commit=st.none() | text,
    lock_digest=st.sampled_from(["", "a" * 64]),
)
optional_text = st.none() | text
provenances = st.builds(
    Provenance,
    dataset_digest=optional_text,
    initial_weights_digest=optional_text,
    final_weights_digest=optional_text,
    preprocessing_digest=optional_text,
    plugins=st.lists(plugin_refs, max_size=2),
    data=st.none() | data_infos,
    device_name=optional_text,
    notes=st.dictionaries(words, text, max_size=2),
)
records = st.builds(
    RunRecord,
    run_id=text,
    key=text,
    repeat=counts,
    started_at=text,
    wall_s=numbers,
    spec=specs,
    environment=environments,
    provenance=provenances,
    outcome=successes | failures,
    parity=st.lists(
        st.builds(ParityMark, backend=words, passed=st.booleans(), error=st.none() | numbers, verdict=text), max_size=2
    ),
    roofline=st.none()
    | st.builds(
        Roofline,
        backend=words,
        device=words,
        precision=st.sampled_from(["fp32", "bf16"]),
        threads=counts,
        hardware=text,
        versions=st.dictionaries(words, text, max_size=2),
        matrix_flops_per_s=numbers,
        copy_bytes_per_s=numbers,
        measured_at=text,
    ),
)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Draw int64 targets ``[N]`` and float32 logits ``[N, C]``."""
    classes, examples = draw(st.integers(2, 5)), draw(st.integers(1, 30))
    targets = draw(st.lists(st.integers(0, classes - 1), min_size=examples, max_size=examples))
    logit = st.floats(-50, 50, width=32)
    rows = st.lists(logit, min_size=classes, max_size=classes)
    logits = draw(st.lists(rows, min_size=examples, max_size=examples))
    return np.array(targets, np.int64), np.array(logits, np.float32)


counts = st.integers(1, 60)
"""Numbers of examples."""
batch_sizes = st.integers(1, 70)
