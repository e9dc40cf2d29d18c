"""The model card of an exported model, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.data.user_files.dataset import dataset_of
from harness.plugins.catalog import Catalog
from harness.records import RunRecord, Success
from harness.records.export import Export
from harness.records.printing import clean
from harness.records.store import StoredRun

WORST_SLICES = 10
"""Maximum number of slices in the card. The card lists the slices with the worst scores. For error metrics, the worst
scores are the highest ones.
"""


def model_card(run: StoredRun, made: Export, catalog: Catalog) -> str:
    """Return the card of an exported model. The card describes the model's quality, slices, data, license, intended use
    and cost.
    """
    record = run.record
    outcome = record.outcome
    assert isinstance(outcome, Success)
    parts = [
        f"# {_text(record.spec.model)}: {_text(record.spec.task)} on {_text(record.spec.dataset)}",
        _use(record, made, catalog),
        "## Quality\n\n" + _quality(outcome),
        *_slices(outcome),
        "## Data\n\n" + _data(record, outcome, catalog),
        "## Cost\n\n" + _cost(record, outcome),
        "## Files\n\n" + _files(made),
    ]
    return "\n\n".join(parts) + "\n"


def _use(record: RunRecord, made: Export, catalog: Catalog) -> str:
    task = catalog.task(record.spec.task)
    labels = () if record.provenance.data is None else record.provenance.data.label_names
    what = "targets" if task.objective == "regression" else "labels"
    shown = ", ".join(map(_text, labels[:20])) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
    about = catalog.about_model(record.spec.model)
    return (
        (f"{_text(about)}\n\n" if about else "")
        + f"## Intended use\n\n{_text(task.summary).capitalize()}, for inputs that resemble the training "
        f"data; {what}: {shown or 'not named'}. The scores below were measured only on the test split of "
        f"these data and may differ on other data. The model was trained by run `{_text(made.run)}` with "
        f"{_text(record.spec.backend)}."
    )


def _quality(outcome: Success) -> str:
    scores = outcome.scores
    rows = []
    for name, value in scores.test.items():
        ends = scores.intervals.get(name, ())
        rows.append([name, _number(value), " to ".join(map(_number, ends)), _number(scores.validation.get(name))])
    return _table(["metric", "test", "95% interval", "validation"], rows)


def _slices(outcome: Success) -> Iterator[str]:
    scores = outcome.scores
    info = scores.metrics.get(scores.primary)
    if not scores.slices:
        return
    lower_first = info is None or info.higher_is_better is not False
    known = [part for part in scores.slices if part.score is not None]
    known.sort(key=lambda part: part.score or 0.0, reverse=not lower_first)
    rows = [[part.group, part.value, _number(part.score), str(part.support)] for part in known[:WORST_SLICES]]
    yield f"## Slices\n\nThe groups of test examples with the worst {_text(scores.primary)}:\n\n" + _table(
        ["group", "value", scores.primary, "examples"], rows
    )


def _data(record: RunRecord, outcome: Success, catalog: Catalog) -> str:
    dataset = dataset_of(record.spec, catalog)
    info = record.provenance.data
    rows = [["dataset", record.spec.dataset], ["license", dataset.license or "not known"]]
    rows += [["source", dataset.homepage]] if dataset.homepage else []
    rows += [["citation", dataset.citation]] if dataset.citation else []
    rows += [[f"{name} examples", f"{count:,}"] for name, count in outcome.examples.items()]
    rows += [["SHA-256 of the prepared data", record.provenance.dataset_digest or "not known"]]
    rows += [["warning", warning] for warning in (() if info is None else info.warnings)]
    return _table(["", ""], rows)


def _cost(record: RunRecord, outcome: Success) -> str:
    speed, latency = outcome.speed, outcome.latency
    train_s = None if record.quality_only else outcome.phases_s.get("train")
    memory = "not measured" if record.quality_only else f"{outcome.memory.host_peak_bytes / 2**20:.1f} MiB"
    rows = [
        ["device", record.provenance.device_name or record.spec.device],
        ["parameters", f"{outcome.model.parameters:,}"],
        ["FLOPs per example", f"{outcome.model.flops_per_sample:,.15g}"],
        ["training", "not measured" if train_s is None else f"{train_s:.1f} s"],
        ["inference throughput", _unit(speed.inference_samples_per_s, "samples/s")],
        [f"median latency of a batch of {latency.batch_size}", _unit(latency.p50_ms, "ms")],
        ["host memory, peak", memory],
    ]
    return "Measured during the run, with the framework that trained the model:\n\n" + _table(["", ""], rows)


def _files(made: Export) -> str:
    agree = (
        ""
        if made.same_labels is None
        else f"{made.same_labels:,} of {made.examples:,} test examples have the same label, "
    )
    return (
        f"Format: {made.format}. Files: {', '.join(f'`{_text(name)}`' for name in made.files)}; "
        "`preprocessing.json` contains everything needed to prepare new data; `export.json` "
        f"describes the inputs and outputs. Compared with the run, {agree}the outputs differ by "
        f"{made.error:.1e} (norm-wise, relative)."
    )


def _unit(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value:.4g} {unit}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _table(headers: list[str], rows: list[list[Any]]) -> str:
    lines = [headers, [":--"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines)


def _text(value: object) -> str:
    """Return the text as a single line of Markdown, without control characters, HTML or table separators."""
    line = " ".join(clean(str(value)).split())
    return line.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
