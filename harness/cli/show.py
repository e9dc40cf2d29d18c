"""``harness show``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from harness.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from harness.types import Energy, Failure, Memory, Peak, RunRecord, Steady, Success

    Section = tuple[str, list[tuple[str, object]]]


@click.command(short_help="One run in full.")
@click.argument("run")
@options.format_
@options.results
def show(run: str, format_: str, results: str | None) -> None:
    """Show a run's record. RUN is its id, a part of the id that no other has, or the path of its directory.

    \b
    Examples:
      harness show nlp-bert-tiny-torch-s0
      harness show results/nlp-bert-tiny-torch-s0-1f2e3d4c-1 --format json
    """
    from harness.store import Store, results_dir

    stored = Store(results_dir(results)).find(run)
    if format_ == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(stored.record), indent=1).decode())
    else:
        click.echo(render(stored.record, stored.path))


def render(record: RunRecord, path: Path) -> str:
    from harness.types import Success

    parts = [f"{record.run_id}\n{path}"]
    sections = [_run(record), *(_success(record.outcome, record.peak) if isinstance(record.outcome, Success) else [])]
    parts += [_lines(section) for section in [*sections, *_circumstances(record)] if section[1]]
    if isinstance(record.outcome, Success):
        quality = (_quality(record.outcome), _per_class(record.outcome), _slices(record.outcome))
        parts[2:2] = [part for part in quality if part]
    else:
        parts.insert(1, _failure(record.outcome))
    return "\n\n".join(parts)


def _lines(section: Section) -> str:
    from tabulate import tabulate

    title, rows = section
    grid = tabulate([[name, _text(value)] for name, value in rows], tablefmt="plain", disable_numparse=True)
    return "\n".join([title, *(f"  {line}".rstrip() for line in grid.splitlines())])


def _text(value: object) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(inner) for inner in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _failure(failure: Failure) -> str:
    where = f" in phase {failure.phase}" if failure.phase else ""
    parts = [f"FAILED{where}: {failure.kind}: {failure.message}"]
    if failure.log_tail:
        parts.append("\n".join(["last lines of the log", *(f"  | {line}" for line in failure.log_tail.splitlines())]))
    return "\n\n".join(parts)


def _run(record: RunRecord) -> Section:
    spec = record.spec
    names = (
        "task",
        "dataset",
        "model",
        "backend",
        "device",
        "precision",
        "compile",
        "deterministic",
        "seed",
        "threads",
    )
    rows: list[tuple[str, object]] = [(name, getattr(spec, name)) for name in names]
    groups: dict[str, dict[str, Any]] = {
        "recipe": _fields(spec.recipe),
        "protocol": _fields(spec.protocol),
        "task": spec.task_options,
        "dataset": spec.dataset_options,
        "model": spec.model_options,
    }
    if spec.pretrained is not None:
        revision = f"@{spec.pretrained.revision}" if spec.pretrained.revision else ""
        rows += [("pretrained", f"{spec.pretrained.name}{revision}"), ("checkpoint", spec.pretrained.path)]
    if spec.source is not None:
        rows += [("own data", spec.source.path), ("guessed", ", ".join(spec.source.guessed) or "nothing")]
    rows += [
        (f"{group}.{name}", "none" if value is None else value)
        for group, values in groups.items()
        for name, value in values.items()
    ]
    started: list[tuple[str, object]] = [
        ("started", record.started_at),
        ("whole process", f"{record.wall_s:.1f} s"),
        ("repeat", record.repeat),
    ]
    return "run", started + rows


def _fields(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def _quality(outcome: Success) -> str:
    from tabulate import tabulate

    scores = outcome.scores
    splits = {"test": scores.test, "validation": scores.validation}
    if scores.reference is not None:
        splits["closed form, test"] = scores.reference
    names = dict.fromkeys(name for split in splits.values() for name in split)
    rows = [
        [
            f"{name} *" if name == scores.primary else name,
            *(_text(split.get(name)) for split in splits.values()),
            " to ".join(f"{end:.4g}" for end in scores.intervals.get(name, ())),
        ]
        for name in names
    ]
    headers = ["", *splits, "95% over test examples" if scores.intervals else ""]
    grid = tabulate(rows, headers=headers, tablefmt="plain", disable_numparse=True)
    return "\n".join(["quality (* judged by)", *(f"  {line}".rstrip() for line in grid.splitlines())])


def _per_class(outcome: Success) -> str:
    from tabulate import tabulate

    if not outcome.scores.per_class:
        return ""
    rows = [
        [score.label, *map(_share, (score.precision, score.recall, score.f1, score.roc_auc)), score.support]
        for score in outcome.scores.per_class
    ]
    header = ["class", "precision", "recall", "f1", "roc_auc", "support"]
    align = ["left", *["right"] * 5]
    grid = tabulate(rows, headers=header, tablefmt="plain", colalign=align, disable_numparse=True)
    return "\n".join(["per class, test split", *(f"  {line}".rstrip() for line in grid.splitlines())])


def _slices(outcome: Success) -> str:
    from tabulate import tabulate

    scores = outcome.scores
    if not scores.slices:
        return ""
    rows = [[part.group, part.value, _text(part.score), part.support] for part in scores.slices]
    header = ["group", "value", scores.primary, "support"]
    grid = tabulate(
        rows, headers=header, tablefmt="plain", colalign=["left", "left", "right", "right"], disable_numparse=True
    )
    return "\n".join(["by group, test split", *(f"  {line}".rstrip() for line in grid.splitlines())])


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _success(outcome: Success, peak: Peak | None) -> Iterator[Section]:
    speed, latency, memory = outcome.speed, outcome.latency, outcome.memory
    flops = speed.train_flops_per_s
    yield (
        "speed (steady state)",
        [
            ("training", _unit(speed.train_samples_per_s, "samples/s", _steady(speed.train))),
            ("training", _unit(flops and flops / 1e9, "GFLOP/s", _share_of_peak(flops, peak))),
            ("inference", _unit(speed.inference_samples_per_s, "samples/s", _steady(speed.inference))),
            ("first training step", f"{speed.first_step_s:.3g} s"),
            *((f"flag: {flag.metric}", f"{flag.kind}: {flag.detail}") for flag in outcome.flags),
        ],
    )
    yield "energy", _energy(outcome.energy)
    reached = outcome.time_to_target
    if reached is not None:
        when = "not reached" if reached.train_s is None else f"{reached.train_s:.3g} s, epoch {reached.epoch}"
        yield "time to target", [(f"validation {reached.metric} {reached.target:g}", when)]
    yield (
        f"latency of a batch of {latency.batch_size} ({latency.samples} samples)",
        [
            (name, "too few samples" if value is None else f"{value:.4g} ms")
            for name, value in (("p50", latency.p50_ms), ("p90", latency.p90_ms), ("p99", latency.p99_ms))
        ],
    )
    yield "peak memory", _memory(memory)
    yield "seconds by phase", [(phase, f"{seconds:.2f} s") for phase, seconds in outcome.phases_s.items()]
    yield (
        "model and data",
        [
            ("trainable parameters", f"{outcome.model.parameters:,}"),
            ("forward FLOPs a sample", outcome.model.flops_per_sample),
            *((f"examples, {split}", n) for split, n in outcome.examples.items()),
        ],
    )
    yield (
        "training",
        [
            (f"epoch {epoch.epoch}", f"{epoch.train_s:.2f} s, loss {epoch.train_loss:.5g}, {_text(epoch.validation)}")
            for epoch in outcome.curves
        ],
    )


def _share_of_peak(flops: float | None, peak: Peak | None) -> str:
    """Model FLOPs utilisation."""
    if peak is None:
        return "no peak was known: harness doctor --peak"
    return f"{flops / peak.matrix_flops_per_s:.1%} of {peak.matrix_flops_per_s / 1e9:.4g}, MFU" if flops else ""


def _steady(steady: Steady | None) -> str:
    if steady is None:
        return ""
    interval = "" if steady.low is None else f" [{steady.low:.5g}, {steady.high:.5g}]"
    short = "" if steady.ended == "target" else "; less than the protocol asks for"
    return f"median of {steady.windows} windows after {steady.warmup_windows} of warm-up{interval}{short}"


def _energy(energy: Energy) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, use, source in (("cpu", energy.cpu, energy.cpu_source), ("gpu", energy.gpu, energy.gpu_source)):
        if use is None:
            rows.append((name, f"not known: {source}" if source else None))
            continue
        rows.append((name, source))
        for part, joules, watts in (
            ("training", use.train_j_per_sample, use.train_w),
            ("inference", use.inference_j_per_sample, use.inference_w),
        ):
            if joules is not None and watts is not None:
                rows.append((f"{name}, {part}", f"{joules:.4g} J a sample, {watts:.4g} W"))
    return rows


def _unit(value: float | None, unit: str, remark: str = "") -> str:
    return "not measured" if value is None else f"{value:.5g} {unit}{f' ({remark})' if remark else ''}"


def _memory(memory: Memory) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [("host", f"{_mib(memory.host_peak_bytes)} ({memory.host_counter})")]
    if memory.tree_peak_bytes is not None:
        rows.append(("host, with its processes", _mib(memory.tree_peak_bytes)))
    rows += [(f"host, {phase}", _mib(size)) for phase, size in memory.host_peak_by_phase_bytes.items()]
    if memory.device:
        rows += [
            ("device, allocator", _mib(memory.device.allocator_peak_bytes)),
            ("device, reserved", _mib(memory.device.reserved_peak_bytes)),
            ("device, driver", _mib(memory.device.driver_peak_bytes)),
        ]
    return rows


def _mib(size: int | None) -> str:
    return "not known" if size is None else f"{size / 2**20:.1f} MiB"


def _circumstances(record: RunRecord) -> Iterator[Section]:
    env, origin = record.environment, record.provenance
    yield (
        "environment",
        [
            ("system", f"{env.os}; {env.kernel}; {env.python}"),
            ("processor", f"{env.cpu}, {env.cores} cores"),
            ("memory", f"{env.memory_bytes / 2**30:.1f} GiB"),
            *(("gpu", f"{gpu.name}, {gpu.memory_bytes / 2**30:.1f} GiB, driver {gpu.driver}") for gpu in env.gpus),
            ("load before", env.load_1min),
            ("harness commit", env.git_commit or "not a checkout"),
            ("packages", env.packages),
        ],
    )
    yield (
        "provenance",
        [
            ("key", record.key),
            ("device", origin.device_name),
            ("dataset", origin.dataset_digest),
            ("initial weights", origin.initial_weights_digest),
            ("final weights", origin.final_weights_digest),
            *(("plugin", f"{ref.name} ({ref.distribution} {ref.version})") for ref in origin.plugins),
            *((f"data: {name}", value) for name, value in (origin.data.details if origin.data else {}).items()),
            *((f"set: {name}", value) for name, value in origin.notes.items()),
            *(
                (f"parity with {mark.backend}", f"{'same' if mark.passed else 'differs'}, logits {_text(mark.error)}")
                for mark in record.parity
            ),
        ],
    )
