"""All recorded details of one run, formatted as text for ``harness show``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.analysis import groups
from harness.analysis.metrics import WALL, better_value, fitted_in_one_call, named_with_unit, score
from harness.deploy.explanations import stored_attributions, stored_importance
from harness.errors import RecordError
from harness.records import DataInfo, Failure, PluginRef, RunRecord, Scores, Success, Trial
from harness.records.store import StoredRun
from harness.report.confusion import matrix, mistakes
from harness.report.costs import Section, epochs, sections, text
from harness.report.data_text import data_section
from harness.report.explanations import attributions_text, importance_text
from harness.report.groups import gaps_table, notes, rates_table

MOST_ROWS = 1000
"""Maximum number of rows shown for each table. Formatting more rows would take several seconds."""


def render(record: RunRecord, path: Path) -> str:
    """Return the details of a run as text. `path` is the directory of the run."""
    parts = [f"{record.run_id}\n{path}"]
    outcome = record.outcome
    if record.provenance.data is not None:
        parts.append(_lines(run_data(record, record.provenance.data)))
    opening = len(parts)
    costs = [*sections(record), epochs(record)] if isinstance(outcome, Success) else []
    parts += [_lines(section) for section in [run_section(record), *costs, *circumstances(record)] if section[1]]
    if isinstance(outcome, Success):
        parts[opening + 1 : opening + 1] = [*_quality(outcome), *_groups(record), *_explanations(record, path)]
    elif isinstance(outcome, Trial):
        parts.insert(1, _lines(trial_section(outcome)))
    else:
        parts.insert(1, _failure(outcome))
    return "\n\n".join(parts)


def _lines(section: Section) -> str:
    title, rows = section
    return _grid(title, [[name, text(value)] for name, value in rows])


def _grid(title: str, rows: list[list[Any]], headers: Sequence[str] = (), align: Sequence[str] | None = None) -> str:
    from tabulate import tabulate

    shown = rows[:MOST_ROWS]
    grid = tabulate(shown, headers=headers, tablefmt="plain", colalign=align, disable_numparse=True)
    return "\n".join([title, *(f"  {line}".rstrip() for line in grid.splitlines()), *_omitted(rows, "rows")])


def _omitted(values: Sequence[Any], kind: str) -> list[str]:
    """Return a list with one line that gives the number of omitted values. The list is empty if there are at most
    `MOST_ROWS` values."""
    more = len(values) - MOST_ROWS
    return [f"  ... and {more} more {kind} (see `harness show --format json`)"] if more > 0 else []


def _failure(failure: Failure) -> str:
    where = f" in phase {failure.phase}" if failure.phase else ""
    parts = [f"FAILED{where}: {failure.kind}: {failure.message}"]
    if failure.log_tail:
        lines = failure.log_tail.splitlines()
        shown = [f"  | {line}" for line in lines[-MOST_ROWS:]]
        parts.append("\n".join(["last lines of the log", *_omitted(lines, "lines"), *shown]))
    return "\n\n".join(parts)


def trial_section(trial: Trial) -> Section:
    """Return a section with the result of a ``harness tune`` trial."""
    rows: list[tuple[str, object]] = [("state", trial.state), ("steps", f"{trial.steps} of {trial.planned_steps}")]
    rows += [(f"validation {name}", value) for name, value in trial.validation.items()]
    if trial.train_samples_per_s is not None:
        rows.append(("training throughput", f"{trial.train_samples_per_s:.4g} samples/s"))
    rows += [
        (f"epoch {epoch.epoch}", ", ".join(f"{name} {text(value)}" for name, value in epoch.validation.items()))
        for epoch in trial.curves[-MOST_ROWS:]
    ]
    return "trial of harness tune (validation split only)", rows


def run_data(record: RunRecord, info: DataInfo) -> Section:
    """Return a section about the data of a run."""
    return data_section(info, record.outcome.examples if isinstance(record.outcome, Success) else {})


def run_section(record: RunRecord) -> Section:
    """Return a section with all settings of the run, its start time, its duration and its repeat number."""
    spec = record.spec
    names = (
        "task",
        "dataset",
        "model",
        "backend",
        "device",
        "devices",
        "precision",
        "compile",
        "deterministic",
        "seed",
        "threads",
    )
    rows: list[tuple[str, object]] = [(name, getattr(spec, name)) for name in names]
    rows += [("metric", spec.metric)] if spec.metric else []
    groups: dict[str, dict[str, Any]] = {
        "recipe": _used_recipe(record),
        "protocol": _fields(spec.protocol),
        "task": spec.task_options,
        "dataset": spec.dataset_options,
        "model": spec.model_options,
    }
    if spec.pretrained is not None:
        revision = f"@{spec.pretrained.revision}" if spec.pretrained.revision else ""
        rows += [("pretrained", f"{spec.pretrained.name}{revision}"), ("checkpoint", spec.pretrained.path)]
    if spec.weights is not None:
        rows += [("weights of", spec.weights.run), ("trained by", spec.weights.backend), ("path", spec.weights.path)]
        if spec.weights.exported is not None:
            rows += [("exported by", spec.weights.exported.exporter)]
    if spec.teacher is not None:
        rows += [("teacher", spec.teacher.run), ("path of the teacher", spec.teacher.path)]
    if spec.source is not None:
        origin = f"{spec.source.memory} in memory, saved as " if spec.source.memory else ""
        rows += [
            ("user data", f"{origin}{spec.source.path}"),
            ("inferred options", ", ".join(spec.source.guessed) or "nothing"),
            *(("chosen by size", choice) for choice in spec.source.defaults),
        ]
    rows += [
        (f"{group}.{name}", "none" if value is None else value)
        for group, values in groups.items()
        for name, value in values.items()
    ]
    started: list[tuple[str, object]] = [
        ("started", record.started_at),
        *([] if record.quality_only else [(WALL.title, f"{record.wall_s:.1f} {WALL.unit}")]),
        ("repeat", record.repeat),
    ]
    if record.placement is not None:
        place = record.placement
        gpu = f", GPU {place.gpu}" if place.gpu else ""
        cores = f"cores {', '.join(map(str, place.cores))}{gpu}"
        started.append(("placement", f"{cores}, up to {place.jobs} runs at the same time"))
    return "run", started + rows


def _used_recipe(record: RunRecord) -> dict[str, Any]:
    """Return the fields of the recipe that the run used. A run that did not train, or that fitted the model in one
    call, used only the batch size, and only for predictions."""
    trained = record.spec.weights is None
    at_once = trained and isinstance(record.outcome, Success) and fitted_in_one_call(record)
    fields = _fields(record.spec.recipe)
    return fields if trained and not at_once else {"batch_size": fields["batch_size"]}


def _fields(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def quality(outcome: Success) -> tuple[list[str], list[list[Any]]]:
    """Return the headers and rows of the table of scores. The task's primary metric is marked with ``*``.

    Older records do not specify which direction is better.
    """
    scores = outcome.scores
    splits = {"test": scores.test, "validation": scores.validation}
    if scores.reference is not None:
        splits["closed form, test"] = scores.reference
    names = dict.fromkeys(name for split in splits.values() for name in split)
    interval = [f"{interval_title(scores)} over test examples"] if scores.intervals else []
    better = ["better"] if scores.metrics else []
    rows = [
        [
            _titled(name, scores),
            *(_direction(name, scores) for _ in better),
            *(text(split.get(name)) for split in splits.values()),
            *(" to ".join(f"{end:.4g}" for end in scores.intervals.get(name, ())) for _ in interval),
        ]
        for name in names
    ]
    return ["metric", *better, *splits, *interval], rows


def _titled(name: str, scores: Scores) -> str:
    titled = named_with_unit(name, scores.metrics[name].unit) if name in scores.metrics else name
    return f"{titled} *" if name == scores.primary else titled


def _direction(name: str, scores: Scores) -> str:
    return better_value(scores.metrics[name].higher_is_better) if name in scores.metrics else "not known"


def interval_title(scores: Scores) -> str:
    """Return the title of the interval column. In older records, the intervals are percentile bootstrap intervals."""
    return "95% bootstrap interval" if scores.interval_method == "percentile bootstrap" else "95% interval"


def without_interval(scores: Scores) -> list[str]:
    """Return sentences that list the metrics without an interval. There is one sentence for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in scores.no_interval.items():
        reasons.setdefault(reason, []).append(name)
    return [f"No interval for {', '.join(names)}: {reason}." for reason, names in reasons.items()]


def per_class(outcome: Success) -> tuple[list[str], list[list[Any]]]:
    """Return the headers and rows of the table of scores for each class."""
    columns = ("precision", "recall", "f1", "roc_auc", "support")
    rows = [[score.label, *(getattr(score, name) for name in columns)] for score in outcome.scores.per_class]
    return ["class", *columns], rows


def per_target(outcome: Success) -> tuple[list[str], list[list[Any]]]:
    """Return the headers and rows of the table of scores for each target of a multi-target regression."""
    parts = outcome.scores.per_target
    names = list(dict.fromkeys(name for part in parts for name in part.scores))
    titles = [score(name, outcome.scores.metrics.get(name)).title for name in names]
    rows = [[part.label, part.unit or "not known", *(part.scores.get(name) for name in names)] for part in parts]
    return ["target", "unit", *titles], rows


def by_group(outcome: Success) -> tuple[list[str], list[list[Any]]]:
    """Return the headers and rows of a table with the primary metric for each slice of the test split."""
    rows = [[part.group, part.value, part.score, part.support] for part in outcome.scores.slices]
    primary = outcome.scores.primary
    column = score(primary, outcome.scores.metrics.get(primary)).column
    return ["group", "value", column.header, "support"], rows


def _quality(outcome: Success) -> list[str]:
    """Return the tables of scores as text. Tables without rows are omitted."""
    headers, rows = quality(outcome)
    parts = ["\n".join([_grid("quality (* primary metric)", rows, headers), *without_interval(outcome.scores)])]
    headers, rows = per_class(outcome)
    shown = [[label, *map(_score, scores), support] for label, *scores, support in rows]
    parts += [_grid("per class, test split", shown, headers, ["left", *["right"] * 5])] if rows else []
    if rows:
        parts += _confusion(outcome)
    headers, rows = per_target(outcome)
    shown = [[label, unit, *map(text, scores)] for label, unit, *scores in rows]
    title = "per target, test split (the scores above are means over the targets)"
    parts += [_grid(title, shown, headers, ["left", "left", *["right"] * (len(headers) - 2)])] if rows else []
    headers, rows = by_group(outcome)
    shown = [[group, value, text(score), support] for group, value, score, support in rows]
    parts += [_grid("by group, test split", shown, headers, ["left", "left", "right", "right"])] if rows else []
    return parts


def _groups(record: RunRecord) -> list[str]:
    """Return the run's rates by group and the largest gaps as text, if available."""
    found = groups.summary(record)
    if found is None:
        return []
    binary = len(found.classes) == 1
    headers, rows = rates_table(found, of_classes=binary)
    parts = [_grid("rates by group, test split", [[*row] for row in rows], headers)]
    headers, rows = gaps_table(found)
    lines = [*notes(found), *([] if binary else [f"To show all classes, run: harness groups {record.run_id}"])]
    return [*parts, "\n".join([_grid("largest gaps between groups", [[*row] for row in rows], headers), *lines])]


def _explanations(record: RunRecord, path: Path) -> list[str]:
    """Return the stored explanations, formatted as text."""
    run, parts = StoredRun(path, record), []
    try:
        if (importance := stored_importance(run)) is not None:
            parts.append(importance_text(importance))
        if (stored := stored_attributions(run)) is not None:
            parts.append(attributions_text(stored[0]))
    except RecordError as error:
        parts.append(str(error))
    return parts


def _confusion(outcome: Success) -> list[str]:
    """Return the confusion matrix or, for many classes, the most frequent mistakes."""
    headers, rows = matrix(outcome)
    if rows:
        return [
            _grid("confusion matrix, test split (rows: true class)", rows, headers, ["left", *["right"] * len(rows)])
        ]
    headers, pairs = mistakes(outcome)
    shown = [[true, predicted, count, f"{share:.1f}"] for true, predicted, count, share in pairs]
    return (
        [_grid("most frequent mistakes, test split", shown, headers, ["left", "left", "right", "right"])]
        if pairs
        else []
    )


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def circumstances(record: RunRecord) -> Iterator[Section]:
    """Yield sections about the cost of tuning, the machine, the software, and the digests of data, weights and
    plugins."""
    env, origin = record.environment, record.provenance
    if (tuning := record.tuning) is not None:
        states = f"{tuning.trials}, including {tuning.pruned} pruned and {tuning.failed} failed"
        yield (
            "tuning of the settings",
            [
                ("study", f"{tuning.study}, trial {tuning.trial}"),
                ("trials", states),
                ("steps", tuning.steps),
                ("duration", f"{tuning.seconds:.1f} s"),
            ],
        )
    yield (
        "environment",
        [
            ("system", f"{env.os}; {env.kernel}; {env.python}"),
            ("processor", f"{env.cpu}, {env.cores} cores"),
            ("memory", f"{env.memory_bytes / 2**30:.1f} GiB"),
            *(("gpu", f"{gpu.name}, {gpu.memory_bytes / 2**30:.1f} GiB, driver {gpu.driver}") for gpu in env.gpus),
            ("load before the run", env.load_1min),
            ("harness commit", env.git_commit or "not known, because harness was installed as a package"),
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
            *(("plugin", _plugin(ref)) for ref in origin.plugins),
            *((f"backend setting: {name}", value) for name, value in origin.notes.items() if value),
            *(
                (
                    f"parity with {mark.backend}",
                    f"{mark.state}, largest relative error of the logits {text(mark.error)}",
                )
                for mark in record.parity
            ),
        ],
    )


def _plugin(ref: PluginRef) -> str:
    package = " ".join(filter(None, (ref.distribution, ref.version)))
    return f"{ref.name} ({package})" + (f", code {ref.code_digest[:12]}" if ref.code_digest else "")
