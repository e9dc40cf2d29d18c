"""Checks of the values in a record, in addition to type validation.

Reports use the values of records in computations, although records may be damaged or come from untrusted sources.
Impossible values, such as a confusion matrix that is not square, are detected when a record is read.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from harness.records import DataInfo, Failure, RunRecord, SliceScore, Success, Trial
from harness.records.spec import ENV_NAME, MAX_DEVICES

MIN_MAGNITUDE, MAX_MAGNITUDE = 1e-100, 1e100
"""Minimum and maximum absolute values of a nonzero floating-point number in a record. The squares and ratios of numbers
in this range are finite."""
MAX_OUTPUTS = 10**6
"""Maximum number of classes or regression targets."""


def problem(record: RunRecord) -> str:
    """Return the reason why a run cannot have produced this record, or an empty string if the record is valid."""
    for number in _numbers(record):
        if type(number) is float and number and not MIN_MAGNITUDE <= abs(number) <= MAX_MAGNITUDE:
            return f"the number {number} is out of range"
        if type(number) is int and abs(number) > MAX_MAGNITUDE:  # The integer cannot be converted to a float.
            return "a number has more than 100 digits"
    if record.spec.env and not ENV_NAME.fullmatch(record.spec.env):
        return f"an environment cannot have the name {record.spec.env[:70]!r}"
    if not 1 <= record.spec.devices <= MAX_DEVICES:
        return f"a run cannot use {record.spec.devices} devices"
    requested, size = record.batch_size_reduced_from, record.spec.recipe.batch_size
    if requested is not None and (requested <= size or size not in halved(requested)):
        return f"the batch size {size} cannot be obtained by halving {requested}"
    placement = record.placement
    if placement is not None:
        if placement.jobs < 1 or not placement.cores or min(placement.cores) < 0:
            return "no cores were assigned to the run"
        if placement.jobs > 1 and not (record.quality_only or placement.checked_at):
            return (
                "speed was measured while other runs were executing, but no check showed that such measurements are "
                "accurate"
            )
    if record.provenance.data is not None:
        reason = _of_data(record.provenance.data, scored=isinstance(record.outcome, Success))
        if reason:
            return reason
    if record.tuning is not None and min(msgspec.structs.astuple(record.tuning)[1:]) < 0:
        return "the cost of tuning is negative"
    if isinstance(record.outcome, Trial):
        return _of_trial(record.outcome)
    return _of_success(record.outcome) if isinstance(record.outcome, Success) else ""


def halved(size: int) -> list[int]:
    """Return the batch sizes to try after `size`, which is halved repeatedly (and rounded down) until it is 1."""
    return [size >> power for power in range(1, size.bit_length())]


def _numbers(record: RunRecord) -> list[Any]:
    """Return the numbers that reports use in computations. Some elements may be None or strings.

    Other values are not checked, because checking all values would take half as long as decoding the record.
    """
    spec = record.spec
    numbers: list[Any] = [record.wall_s, record.repeat, spec.seed, spec.threads]
    numbers += [mark.error for mark in record.parity]
    structs: list[msgspec.Struct | None] = [record.roofline, record.tuning, spec.recipe, spec.protocol]
    data, outcome = record.provenance.data, record.outcome
    if data is not None:
        numbers += [*data.target_mean, *data.target_scale]
        numbers += [number for split in data.splits.values() for number in (split.examples, split.counted)]
    if isinstance(outcome, Success):
        scores, speed, energy = outcome.scores, outcome.speed, outcome.energy
        numbers += [*scores.test.values(), *scores.validation.values(), *(scores.reference or {}).values()]
        numbers += [end for ends in scores.intervals.values() for end in ends]
        numbers += [value for one in scores.per_class for value in (one.precision, one.recall, one.f1, one.roc_auc)]
        numbers += [value for one in scores.per_target for value in one.scores.values()]
        numbers += [one.score for one in scores.slices]
        numbers += outcome.phases_s.values()
        structs += [speed, speed.train, speed.inference, outcome.latency, outcome.model, outcome.evidence]
        structs += [outcome.selection, energy.cpu, energy.gpu, outcome.time_to_target]
    elif isinstance(outcome, Trial):
        numbers += [*outcome.validation.values(), *outcome.phases_s.values(), outcome.train_samples_per_s]
        structs.append(outcome.model)
    for epoch in () if isinstance(outcome, Failure) else outcome.curves:
        numbers += (epoch.epoch, epoch.epochs, epoch.step, epoch.train_s, epoch.train_loss, *epoch.validation.values())
    for struct in structs:
        numbers += () if struct is None else msgspec.structs.astuple(struct)
    return numbers


def _of_data(info: DataInfo, *, scored: bool) -> str:
    """Return the reason why no run can have used these data. If `scored` is true, the run was successful."""
    if not 1 <= info.outputs <= MAX_OUTPUTS:
        return f"the data have {info.outputs} outputs"
    for field in ("label_names", "target_mean", "target_scale"):
        if len(getattr(info, field)) not in (0, info.outputs):
            return f"the data have {len(getattr(info, field))} {field} for {info.outputs} outputs"
    for name, form in info.inputs.items():
        if any(size < 0 for size in form.shape) or math.prod(form.shape) > 2**40:
            return f"the input {name!r} has the shape {form.shape}"
    for name, split in info.splits.items():
        if min(split.examples, split.counted, split.repeated, split.shared, *split.classes) < 0:
            return f"the {name} split contains a negative number of examples"
    if info.counts and scored:
        for name in ("train", "test"):
            if name not in info.splits or info.splits[name].examples < 1:
                return f"the number of {info.counts[:70]} is recorded, but the {name} split has no examples"
    return ""


def _of_trial(trial: Trial) -> str:
    if any(not 1 <= one.epoch <= one.epochs or one.step < one.epoch for one in trial.curves):
        return "the learning curve of the trial has an invalid epoch or step"
    return ""


def _of_success(outcome: Success) -> str:
    confusion = outcome.scores.confusion
    if any(len(row) != len(confusion) for row in confusion):
        return "the confusion matrix is not square"
    if any(row and min(row) < 0 for row in confusion):
        return "the confusion matrix contains negative counts"
    for one in outcome.scores.slices:
        if reason := _of_slice(one, len(confusion)):
            return reason
    counts = {
        "samples": outcome.latency.samples,
        "parameters": outcome.model.parameters,
        "examples": min(outcome.examples.values(), default=0),
    }
    for name, steady in (("windows", outcome.speed.inference), ("training windows", outcome.speed.train)):
        if steady is not None:
            counts[name] = min(steady.windows, steady.warmup_windows)
    return next((f"the number of {name} is negative" for name, count in counts.items() if count < 0), "")


def _of_slice(one: SliceScore, classes: int) -> str:
    """Return the reason why the counts of a slice are impossible for this number of classes, or an empty string."""
    support, predicted, correct = one.class_support, one.class_predicted, one.class_correct
    if not len(support) == len(predicted) == len(correct):
        return "a slice of the test split has counts for different numbers of classes"
    if not support:
        return ""
    if len(support) != classes:
        return f"a slice of the test split has counts for {len(support)} classes instead of {classes}"
    if not all(0 <= hits <= min(pair) for hits, *pair in zip(correct, support, predicted, strict=True)):
        return "a slice of the test split has negative counts, or more correct predictions than examples"
    if any(wrong - hits > one.support - right for hits, right, wrong in zip(correct, support, predicted, strict=True)):
        return "a slice of the test split has more wrong predictions of a class than examples of other classes"
    if sum(support) != one.support or sum(predicted) != one.support:
        return "the class counts in a slice of the test split do not add up to the number of examples in the slice"
    return ""
