"""The costs of one run, formatted as text in sections: speed, latency, memory, energy and time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.analysis.flags import QUALITY_ONLY, describe_quality_only, run_flags
from harness.analysis.metrics import (
    BY_NAME,
    FIRST_STEP,
    FIT_THROUGHPUT,
    FORWARD_FLOPS,
    HOST_PEAK,
    INFERENCE_THROUGHPUT,
    MFU,
    PARAMETERS,
    TRAIN_FLOPS,
    TRAIN_THROUGHPUT,
    WORKER_PEAK,
    RunMetric,
    fitted_in_one_call,
    in_group,
    success,
)

if TYPE_CHECKING:
    from harness.records import CheckpointUse, RunRecord, Steady

Section = tuple[str, list[tuple[str, object]]]
"""Title of a section and its (name, value) pairs."""


def text(value: object) -> str:
    """Format a value for display. Numbers are rounded to six significant digits."""
    if isinstance(value, str):
        return value
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(text(inner) for inner in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def sections(record: RunRecord) -> Iterator[Section]:
    """Yield the cost sections for a successful run."""
    outcome = success(record)
    flags = [(f"flag: {flag.columns[0]}", f"{flag.kind}: {flag.detail}") for flag in run_flags(record)]
    if record.quality_only:
        yield "speed and memory", [(QUALITY_ONLY, describe_quality_only([record])), *flags]
    else:
        yield from _measured(record, flags)
    if outcome.checkpoints is not None:
        yield "checkpoints of training", _checkpoints(outcome.checkpoints)
    yield (
        "model and data",
        [
            (PARAMETERS.title, f"{outcome.model.parameters:,}"),
            (FORWARD_FLOPS.title, f"{outcome.model.flops_per_sample:,.15g} {FORWARD_FLOPS.unit}"),
            *((f"examples, {split}", n) for split, n in outcome.examples.items()),
        ],
    )


def _measured(record: RunRecord, flags: list[tuple[str, str]]) -> Iterator[Section]:
    outcome = success(record)
    speed, latency = outcome.speed, outcome.latency
    training: list[tuple[str, object]]
    if record.spec.weights is not None:
        training = [(TRAIN_THROUGHPUT.part, "none; the run used trained weights")]
    elif fitted_in_one_call(record):
        training = [_throughput(FIT_THROUGHPUT, record, speed.train)]
    else:
        share = _unit(TRAIN_FLOPS.value(record), TRAIN_FLOPS.unit, _share_of_peak(record))
        training = [_throughput(TRAIN_THROUGHPUT, record, speed.train), (TRAIN_THROUGHPUT.part, share)]
    yield (
        "speed (steady state)",
        [
            *training,
            _throughput(INFERENCE_THROUGHPUT, record, speed.inference),
            *(
                ()
                if speed.first_step_s is None
                else [(FIRST_STEP.title, f"{speed.first_step_s:.3g} {FIRST_STEP.unit}")]
            ),
            *flags,
        ],
    )
    yield "energy", _energy(record)
    reached = outcome.time_to_target
    if reached is not None:
        when = "not reached" if reached.train_s is None else f"{reached.train_s:.3g} s, epoch {reached.epoch}"
        yield "time to target", [(f"validation {reached.metric} {reached.target:g}", when)]
    yield (
        f"latency of a batch of {latency.batch_size} ({latency.samples} samples)",
        [
            (metric.part, "too few samples" if (ms := metric.value(record)) is None else f"{ms:.4g} {metric.unit}")
            for metric in in_group("latency")
        ],
    )
    resumed = outcome.checkpoints is not None and bool(outcome.checkpoints.resumed_at)
    last = " of the last process" if resumed else ""
    yield f"peak memory{last}", _memory(record)
    yield f"seconds by phase{last}", [(phase, f"{seconds:.2f} s") for phase, seconds in outcome.phases_s.items()]


_LOSSES = {"regression": "mean squared error of the standardized targets"}
"""Description of the training loss, by objective. Other objectives use the cross-entropy."""


def epochs(record: RunRecord) -> Section:
    """Return a section with the time, the training loss and the validation scores for each epoch."""
    data = record.provenance.data
    loss = "" if data is None else f"; training loss: {_LOSSES.get(data.objective, 'cross-entropy')}"
    return (
        f"training (validation scores after each epoch{loss})",
        [
            (
                f"epoch {epoch.epoch}",
                ("" if record.quality_only else f"{epoch.train_s:.2f} s, ")
                + f"training loss {epoch.train_loss:.5g}"
                + (f", validation {text(epoch.validation)}" if epoch.validation else ""),
            )
            for epoch in success(record).curves
        ],
    )


def _share_of_peak(record: RunRecord) -> str:
    """Return the model FLOPs utilization as text."""
    if record.roofline is None:
        return "peak not measured: run harness doctor --roofline"
    mfu = MFU.value(record)
    return f"{MFU.title}: {mfu:.1f}{MFU.unit} of {record.roofline.matrix_flops_per_s / 1e9:.4g} GFLOP/s" if mfu else ""


def _steady(steady: Steady | None) -> str:
    if steady is None:
        return ""
    interval = "" if steady.low is None else f", within-run range {steady.low:.5g} to {steady.high:.5g}"
    short = "" if steady.ended == "target" else "; shorter than the protocol requires"
    return f"median of {steady.windows} windows after {steady.warmup_windows} warm-up windows{interval}{short}"


def _energy(record: RunRecord) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    energy = success(record).energy
    for name, use, source in (("cpu", energy.cpu, energy.cpu_source), ("gpu", energy.gpu, energy.gpu_source)):
        if use is None:
            rows.append((name, f"not known: {source}" if source else None))
            continue
        rows.append((name, source))
        for phase, part in (("train", "training"), ("inference", "inference")):
            metrics = [BY_NAME[f"{phase}_{name}_{unit}"] for unit in ("j_per_sample", "w")]
            values = [metric.value(record) for metric in metrics]
            shown = [
                _unit(value, metric.unit) for value, metric in zip(values, metrics, strict=True) if value is not None
            ]
            if shown:
                rows.append((f"{name}, {part}", ", ".join(shown)))
    return rows


def _throughput(metric: RunMetric, record: RunRecord, steady: Steady | None) -> tuple[str, object]:
    return metric.part, _unit(metric.value(record), metric.unit, _steady(steady))


def _unit(value: float | None, unit: str, remark: str = "") -> str:
    return "not measured" if value is None else f"{value:.5g} {unit}{f' ({remark})' if remark else ''}"


def _memory(record: RunRecord) -> list[tuple[str, object]]:
    memory = success(record).memory
    device = [(metric.part, metric.value(record)) for metric in in_group("memory") if metric is not HOST_PEAK]
    rows: list[tuple[str, object]] = []
    if memory.tree_peak_bytes is not None:
        rows.append(("host, including child processes", _mib(HOST_PEAK.value(record))))
    rows.append(("host, worker", f"{_mib(WORKER_PEAK.value(record))} ({memory.host_counter})"))
    rows += [(f"host, process {rank}", _mib(peak.host_peak_bytes / 2**20)) for rank, peak in enumerate(memory.ranks)]
    rows += [(f"host, {phase}", _mib(size / 2**20)) for phase, size in memory.host_peak_by_phase_bytes.items()]
    return rows + [(counter, _mib(size)) for counter, size in device if memory.device]


def _checkpoints(use: CheckpointUse) -> list[tuple[str, object]]:
    resumed = ", ".join(map(str, use.resumed_at))
    interruptions = f"{len(use.resumed_at)}, resumed after {resumed} steps" if resumed else "none"
    rows: list[tuple[str, object]] = [
        ("interval", use.every.text),
        ("written", f"{use.written}, in {use.write_s:.2f} s (not counted as training time)"),
        ("interruptions", interruptions),
    ]
    rows += [(f"{phase}, earlier processes", f"{seconds:.2f} s") for phase, seconds in use.earlier_s.items()]
    return rows + [("could not be written", problem) for problem in use.problems]


def _mib(size: float | None) -> str:
    return "not known" if size is None else f"{size:.1f} MiB"
