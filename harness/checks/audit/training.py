"""Checks of training: number of steps, losses, learning curves and time to target."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING, Any

from harness.checks.audit.check import Check, NotCheckedError, Result, Subject
from harness.checks.audit.compare import differences, same
from harness.checks.audit.identity import has_same_plugins
from harness.checks.parity.tolerances import tolerance
from harness.measure import summary

if TYPE_CHECKING:
    from numpy.typing import NDArray


def batch_size(subject: Subject) -> int:
    """Return the number of examples in a training step. If the model is fitted in one call, each step uses all
    examples.

    If the backend is not installed, the training method is read from the record. Raises `NotCheckedError` if the record
    does not contain the training method.
    """
    examples, backend = subject.outcome.examples["train"], subject.catalog.backends.get(subject.spec.backend)
    by_steps = subject.outcome.speed.by_steps if backend is None else backend.value.trains_by_steps
    if by_steps is None:
        raise NotCheckedError(
            f"the record does not state how the backend {subject.spec.backend!r} "
            "trains, and this backend is not installed"
        )
    return min(subject.spec.recipe.batch_size, examples) if by_steps else examples


def _no_training(subject: Subject) -> Result:
    """Check that a run with trained weights has no training results."""
    weights, outcome = subject.spec.weights, subject.outcome
    if weights is None:
        return Result((), "the weights were trained in this run")
    speed, energy = outcome.speed, outcome.energy
    parts = {
        "speed.first_step_s": speed.first_step_s,
        "speed.train": speed.train,
        "speed.train_samples_per_s": speed.train_samples_per_s,
        "speed.train_flops_per_s": speed.train_flops_per_s,
        "speed.by_steps": speed.by_steps,
        "curves": outcome.curves or None,
        "time_to_target": outcome.time_to_target,
        "selection": outcome.selection,
        **{f"energy.{name}.train_w": use.train_w for name in ("cpu", "gpu") if (use := getattr(energy, name))},
    }
    problems = [
        f"{name} is {value}, although the run did not train" for name, value in parts.items() if value is not None
    ]
    if weights.dataset_digest != subject.record.provenance.dataset_digest:
        problems.append("the weights were trained on different data")
    return Result(problems, f"the weights are from run {weights.run}")


def _by_steps(subject: Subject) -> Result:
    """Check that the recorded training method matches the backend's method."""
    subject.require_training()
    recorded, backend = subject.outcome.speed.by_steps, subject.catalog.backends.get(subject.spec.backend)
    if backend is None or (recorded is None and subject.is_old):
        raise NotCheckedError(
            "the backend is not installed" if backend is None else "the record does not state how the backend trains"
        )
    expected = backend.value.trains_by_steps
    problems = (
        [] if recorded == expected else [f"by_steps is {recorded}, but should be {expected} for {subject.spec.backend}"]
    )
    return Result(problems, f"by_steps is {recorded}")


def steps_per_epoch(subject: Subject) -> int:
    from harness.data.batches import steps_per_epoch

    return steps_per_epoch(subject.outcome.examples["train"], batch_size(subject))


def monitored_scores(subject: Subject) -> list[float]:
    """Return the recorded validation scores that determine the best epoch."""
    from harness.measure.selection import monitored

    metric = subject.catalog.metric(subject.outcome.scores.primary)
    return monitored(subject.outcome.curves, subject.spec.recipe, metric.name, higher_is_better=metric.higher_is_better)


def _examples(subject: Subject) -> Result:
    examples = subject.outcome.examples
    problems = []
    if list(examples) != ["train", "validation", "test"] or min(examples.values(), default=0) < 1:
        return Result([f"the record has the splits {examples}"], "")
    for split in ("validation", "test"):
        array = subject.samples.get(f"{split}_outputs")
        if array is not None and len(array) != examples[split]:
            problems.append(f"{examples[split]} {split} examples in the record, but {len(array)} predictions")
    size = subject.samples.get("train_batch_size") if subject.spec.weights is None else None
    if size is not None and int(size) != batch_size(subject):
        problems.append(f"training used batches of {size} examples instead of {batch_size(subject)}")
    return Result(problems, ", ".join(f"{count} {split}" for split, count in examples.items()))


def epoch_ends(subject: Subject) -> list[int]:
    """Return the number of steps completed at the end of each epoch, according to the recipe and the recorded end of
    training."""
    from harness.measure.schedule import planned_steps

    recipe, outcome, steps = subject.spec.recipe, subject.outcome, steps_per_epoch(subject)
    planned = planned_steps(recipe, steps)
    count = math.ceil(planned / steps)
    if outcome.selection is not None and outcome.selection.ended in ("early_stopping", "max_seconds"):
        count = min(count, len(outcome.curves))
    ends = [min(number * steps, planned) for number in range(1, count + 1)]
    if outcome.selection is not None and outcome.selection.ended == "max_seconds" and ends and outcome.curves:
        ends[-1] = min(ends[-1], max(outcome.curves[-1].step, ends[-1] - steps + 1))
    return ends


def _losses(subject: Subject) -> Result:
    subject.require_training()
    ends, steps = epoch_ends(subject), steps_per_epoch(subject)
    losses, windows = subject.samples["train_losses"], subject.samples["train_window_steps"]
    problems, epochs = [], len(ends)
    if len(losses) != ends[-1]:
        problems.append(f"{len(losses)} losses instead of {ends[-1]} in {epochs} epochs of {steps} steps")
    if windows.sum() != len(losses) or not len(windows) or windows[0] != 1:
        problems.append(f"the windows contain {windows.sum()} steps; the first window contains {windows[:1].tolist()}")
    return Result(problems, f"{len(losses)} losses, {epochs} epochs of {steps} steps")


def _curves(subject: Subject) -> Result:
    """Recompute the learning curves, except for the validation scores."""
    subject.require_training()
    curves, epochs = subject.outcome.curves, subject.spec.recipe.epochs
    shape = [(point.epoch, point.epochs, point.step, *point.validation) for point in curves]
    names = ("loss", subject.outcome.scores.primary)
    expected = [(number, epochs, end, *names) for number, end in enumerate(epoch_ends(subject), start=1)]
    problems = differences([list(row) for row in shape], [list(row) for row in expected], "curves")
    if problems:
        return Result(problems, "")
    if subject.arrays is None:
        raise NotCheckedError(
            "the epochs and steps are complete; "
            "the losses and times cannot be checked without the raw samples (arrays.npz)"
        )
    for point, (train_s, train_loss) in zip(curves, _epochs(subject), strict=True):
        if not same(point.train_s, train_s) or not same(point.train_loss, train_loss):
            problems.append(
                f"epoch {point.epoch} has a loss of {point.train_loss} after {point.train_s} s in the record, "
                f"but {train_loss} after {train_s} s in the samples"
            )
    return Result(problems, f"{len(curves)} epochs")


def _epochs(subject: Subject) -> list[tuple[float, float]]:
    """Return the elapsed training time in seconds and the mean loss at the end of each epoch."""
    arrays, steps = subject.samples, epoch_ends(subject)
    losses: NDArray[Any] = arrays["train_losses"]
    ends, seconds = arrays["train_window_steps"].cumsum().tolist(), arrays["train_window_s"].cumsum().tolist()
    elapsed_s = dict(zip(ends, seconds, strict=True))
    return [(elapsed_s[end], fmean(losses[start:end].tolist())) for start, end in zip([0, *steps], steps, strict=False)]


def _validation(subject: Subject) -> Result:
    """Compare the validation scores of the evaluated epoch with the scores of the trained model."""
    subject.require_training()
    outcome = subject.outcome
    epoch = len(outcome.curves) if outcome.selection is None else outcome.selection.evaluated_epoch
    last, scored, primary = outcome.curves[epoch - 1].validation, outcome.scores.validation, outcome.scores.primary
    problems = []
    if subject.spec.device == "cpu" and not same(last[primary], scored[primary], 1e-6):
        problems.append(f"{primary} is {last[primary]} after epoch {epoch}, but {scored[primary]} in the scores")
    if "validation_outputs" in (subject.arrays or {}):
        from harness.checks.audit.quality import judge

        arrays = subject.samples
        computed = judge(subject).quick(arrays["validation_targets"], arrays["validation_outputs"])["loss"]
        allowed = tolerance("loss", subject.spec.precision, outcome.model.parameters).value
        if not same(last["loss"], computed, allowed):
            problems.append(
                f"the loss after epoch {epoch} is {last['loss']}, but the loss of the predictions is {computed}"
            )
    return Result(problems, f"{primary} is {scored[primary]}")


def _selection(subject: Subject) -> Result:
    """Check the end of training and the evaluated epoch against the learning curves."""
    from harness.measure.schedule import planned_steps
    from harness.measure.selection import is_stale, selection

    subject.require_training()
    recorded, recipe, curves = subject.outcome.selection, subject.spec.recipe, subject.outcome.curves
    if not subject.outcome.speed.by_steps:
        return Result([] if recorded is None else ["the model was fitted in one call"], "fitted in one call")
    if recorded is None:
        raise NotCheckedError("the record does not state how training ended")
    scores, steps = monitored_scores(subject), steps_per_epoch(subject)
    planned, ended = planned_steps(recipe, steps), recorded.ended
    if curves[-1].step == planned:
        ended = "epochs" if planned == steps * recipe.epochs else "max_steps"
    elif recipe.max_seconds is not None and curves[-1].train_s >= recipe.max_seconds:
        ended = "max_seconds"
    elif is_stale(scores, recipe.early_stopping):
        ended = "early_stopping"
    problems = differences(
        recorded, selection(curves, scores, recipe, subject.outcome.scores.primary, ended), "selection"
    )
    early = [number for number in range(1, len(scores)) if is_stale(scores[:number], recipe.early_stopping)]
    if early:
        problems.append(f"training continued after epoch {early[0]}, although early stopping should have ended it")
    if ended == "max_seconds" and recipe.max_seconds is None:
        problems.append("training was stopped by max_seconds, which the recipe does not set")
    if ended == "early_stopping" and not is_stale(scores, recipe.early_stopping):
        problems.append("early stopping ended training, although the best epoch is recent")
    return Result(problems, f"ended by {ended}, evaluated epoch {recorded.evaluated_epoch}")


def _target(subject: Subject) -> Result:
    subject.require_training()
    spec, recorded, catalog = subject.spec, subject.outcome.time_to_target, subject.catalog
    target = spec.protocol.target
    if target is None and spec.source is None and not spec.metric:  # datasets define targets for the task's metric
        target = catalog.dataset(spec.dataset).target
        if target != (recorded.target if recorded else None) and not has_same_plugins(subject):
            raise NotCheckedError(f"the installed version of the dataset has the target {target}")
    expected = None
    if target is not None:
        metric = catalog.primary_metric(spec)
        better = metric.higher_is_better
        expected = summary.time_to_target(subject.outcome.curves, metric.name, target, higher_is_better=better)
    problems = differences(recorded, expected, "time_to_target")
    return Result(problems, "no target" if target is None else f"target {target:g}")


CHECKS = (
    Check("the numbers of examples match the raw samples", ("outcome.examples",), _examples),
    Check(
        "a run that used trained weights has no training results",
        (
            "spec.weights",
            "outcome.curves",
            "outcome.time_to_target",
            "outcome.selection",
            *(f"outcome.speed.{name}" for name in ("by_steps", "first_step_s", "train", "train_samples_per_s")),
            "outcome.speed.train_flops_per_s",
        ),
        _no_training,
    ),
    Check("the number of losses matches the number of steps", (), _losses),
    Check("the recorded training method matches the backend", ("outcome.speed.by_steps",), _by_steps),
    Check(
        "learning curves match the training losses and windows",
        ("outcome.curves",),
        _curves,
    ),
    Check("the evaluated epoch matches the learning curves", ("outcome.selection",), _selection),
    Check(
        "the validation scores of the evaluated epoch match the trained model",
        ("outcome.curves[].validation", "outcome.scores.validation"),
        _validation,
    ),
    Check("the time to target matches the learning curves", ("outcome.time_to_target",), _target),
)
