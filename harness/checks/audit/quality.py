"""Checks of quality: the scores must match the stored predictions and targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from harness.checks.audit.check import Check, NotCheckedError, Result, Subject
from harness.checks.audit.compare import LIBRARIES, differences
from harness.checks.audit.identity import has_same_plugins
from harness.records import MetricInfo

if TYPE_CHECKING:
    from harness.measure.quality.scorer import Scorer


def judge(subject: Subject) -> Scorer:
    """Return the run's scorer, with the metrics from the record."""
    from harness.measure.quality.scorer import scorer

    info = subject.record.provenance.data
    if info is None:
        raise NotCheckedError("the record does not describe the data")
    scores = subject.outcome.scores
    return scorer(info, scores.primary, [subject.catalog.metric(name) for name in scores.test])


def _metrics(subject: Subject) -> Result:
    scores, task = subject.outcome.scores, subject.catalog.task(subject.spec.task)
    problems, chosen = [], subject.spec.metric
    metrics = {*task.metrics, *([chosen] if chosen else [])}
    if scores.primary != (chosen or task.metric):
        problems.append(f"the primary metric is {scores.primary}, not {chosen or task.metric}")
    for name, values in (("test", scores.test), ("validation", scores.validation), ("reference", scores.reference)):
        if values is not None and set(values) != metrics:
            problems.append(
                f"the scores of the {name} split contain the metrics {', '.join(values) or 'none'}, "
                "which differ from the metrics of the task"
            )
    streaming = all(subject.catalog.metric(name).streaming for name in metrics)
    if scores.streamed != (streaming and not subject.spec.protocol.save_outputs):
        stated = "were computed" if scores.streamed else "were not computed"
        problems.append(
            f"the record states that the metrics {stated} batch by batch, which contradicts their definitions"
        )
    if problems and not has_same_plugins(subject):
        raise NotCheckedError("the installed version of the task has different metrics")
    return Result(problems, ", ".join(scores.test))


def _scores(subject: Subject) -> Result:
    recorded = subject.outcome.scores
    if not recorded.test:
        return Result(["the record has no scores"], "")
    test = subject.scored("test")
    computed = judge(subject).scores(test, test, None, {})
    # The remaining fields are compared by other checks in this module and in a new process.
    expected = msgspec.structs.replace(
        computed,
        validation=recorded.validation,
        reference=recorded.reference,
        slices=recorded.slices,
        intervals=recorded.intervals,
        no_interval=recorded.no_interval,
        interval_method=recorded.interval_method,
        metrics=recorded.metrics,
        per_target=recorded.per_target,
    )
    return Result(differences(recorded, expected, "scores", LIBRARIES), f"{len(recorded.test)} scores")


def _intervals(subject: Subject) -> Result:
    from harness.measure.quality.intervals import FORMER_METHODS

    recorded = subject.outcome.scores
    if subject.is_old or recorded.interval_method in FORMER_METHODS:
        raise NotCheckedError("the record was written by a version that computed the intervals with a different method")
    return _recomputed(subject, ("intervals", "no_interval", "interval_method"), f"{len(recorded.intervals)} intervals")


def _details(subject: Subject) -> Result:
    if subject.is_old:
        raise NotCheckedError("the record was written by a version that did not record these details")
    return _recomputed(subject, ("metrics", "per_target"), f"{len(subject.outcome.scores.per_target)} targets")


def _recomputed(subject: Subject, names: Sequence[str], detail: str) -> Result:
    """Compare the given fields of the scores with values computed from the stored predictions."""
    recorded, test = subject.outcome.scores, subject.scored("test")
    computed = judge(subject).scores(test, test, None, {})
    problems = []
    for name in names:
        ours, theirs = getattr(recorded, name), getattr(computed, name)
        if name == "metrics" and not any(info.summary for info in ours.values()):
            # Older records do not contain summaries. In these records, the title is the description.
            ours, theirs = _without_texts(ours), _without_texts(theirs)
        problems += differences(ours, theirs, name, LIBRARIES)
    return Result(problems, detail)


def _without_texts(metrics: Mapping[str, MetricInfo]) -> dict[str, MetricInfo]:
    return {
        name: msgspec.structs.replace(info, title="", summary="", in_tables=False) for name, info in metrics.items()
    }


def _validation(subject: Subject) -> Result:
    if "validation_outputs" not in subject.samples and not subject.outcome.scores.streamed:
        raise NotCheckedError("the predictions for the validation split were not saved")
    computed = judge(subject).score(*subject.scored("validation"))
    recorded = subject.outcome.scores.validation
    return Result(differences(recorded, computed, "validation", LIBRARIES), f"{len(computed)} scores")


def _slices(subject: Subject) -> Result:
    """Check that the slices of each group together contain every example exactly once. The scores of the slices are
    checked by the replay, because it prepares the data."""
    scores, examples = subject.outcome.scores, subject.outcome.examples["test"]
    slices, problems = scores.slices, []
    columns = [sum(column) for column in zip(*scores.confusion, strict=True)]
    diagonal = [row[number] for number, row in enumerate(scores.confusion)]
    for group in dict.fromkeys(one.group for one in slices):
        members = [one for one in slices if one.group == group]
        if sum(one.support for one in members) != examples or len({one.value for one in members}) != len(members):
            problems.append(f"the slices by {group} do not contain each of the {examples} examples exactly once")
        if not all(one.class_support for one in members):
            continue
        for name, expected in (
            ("class_support", [sum(row) for row in scores.confusion]),
            ("class_predicted", columns),
            ("class_correct", diagonal),
        ):
            if [sum(column) for column in zip(*(getattr(one, name) for one in members), strict=True)] != expected:
                problems.append(f"{name} of the slices by {group} does not add up to the confusion matrix")
    return Result(problems, f"{len(slices)} slices")


def _classes(subject: Subject) -> Result:
    """Check that per-class scores agree with the confusion matrix. This check does not need the raw samples."""
    scores = subject.outcome.scores
    info = subject.record.provenance.data
    problems = []
    rows = [sum(row) for row in scores.confusion]
    if [one.support for one in scores.per_class] != rows:
        problems.append("the numbers of examples by class differ from the confusion matrix")
    if rows and sum(rows) != subject.outcome.examples["test"]:
        problems.append(f"the confusion matrix contains {sum(rows)} examples, which is not the size of the test split")
    names = list(info.label_names) if info and info.label_names else list(map(str, range(len(rows))))
    if scores.per_class and [one.label for one in scores.per_class] != names:
        problems.append("the classes of the scores differ from the classes of the data")
    for number, (one, row) in enumerate(zip(scores.per_class, scores.confusion, strict=False)):
        column = sum(other[number] for other in scores.confusion)
        precision, recall = (row[number] / count if count else 0.0 for count in (column, rows[number]))
        f1 = 2 * row[number] / (column + rows[number]) if column + rows[number] else 0.0
        expected = msgspec.structs.replace(one, precision=precision, recall=recall, f1=f1)
        problems += differences(one, expected, f"per_class[{number}]", LIBRARIES)
    if rows and "accuracy" in scores.test:
        right = sum(row[number] for number, row in enumerate(scores.confusion)) / sum(rows)
        problems += differences(scores.test["accuracy"], right, "test.accuracy", LIBRARIES)
    return Result(problems, f"{len(rows)} classes")


CHECKS = (
    Check(
        "the metrics match the task",
        ("outcome.scores.primary", "outcome.scores.test", "outcome.scores.streamed"),
        _metrics,
    ),
    Check(
        "scores by class agree with the confusion matrix",
        ("outcome.scores.per_class", "outcome.scores.confusion"),
        _classes,
    ),
    Check("slices contain every example exactly once", ("outcome.scores.slices",), _slices),
    Check(
        "scores match the predictions",
        (
            "outcome.scores.test",
            "outcome.scores.confusion",
            "outcome.scores.per_class",
        ),
        _scores,
    ),
    Check(
        "confidence intervals match the predictions",
        ("outcome.scores.intervals", "outcome.scores.no_interval", "outcome.scores.interval_method"),
        _intervals,
    ),
    Check(
        "scores by target and the descriptions of the metrics match the predictions",
        ("outcome.scores.metrics", "outcome.scores.per_target"),
        _details,
    ),
    Check("validation scores match the predictions", ("outcome.scores.validation",), _validation),
)
