"""Checks of training: number of steps, losses, learning curves and time to target."""

from __future__ import annotations

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
    """Return the number of examples in a training step. If the model is fitted in one call, a step uses all examples.

    If the backend is not installed, the training method is read from the record. Raises `NotCheckedError` if the record
    does not contain it.
    """
    examples, backend = subject.outcome.examples["train"], subject.catalog.backends.get(subject.spec.backend)
    by_steps = subject.outcome.speed.by_steps if backend is None else backend.value.trains_by_steps
    if by_steps is None:
        raise NotCheckedError(
            f"the record does not state how the backend {subject.spec.backend!r} "
            "trains, and this backend is not installed"
        )
    return min(subject.spec.recipe.batch_size, examples) if by_steps else examples


def _by_steps(subject: Subject) -> Result:
    """Check that the recorded training method is that of the backend."""
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


def _examples(subject: Subject) -> Result:
    examples = subject.outcome.examples
    problems = []
    if list(examples) != ["train", "validation", "test"] or min(examples.values(), default=0) < 1:
        return Result([f"the record has the splits {examples}"], "")
    for split in ("validation", "test"):
        array = subject.samples.get(f"{split}_outputs")
        if array is not None and len(array) != examples[split]:
            problems.append(f"{examples[split]} {split} examples in the record, but {len(array)} predictions")
    size = subject.samples.get("train_batch_size")
    if size is not None and int(size) != batch_size(subject):
        problems.append(f"training used batches of {size} examples instead of {batch_size(subject)}")
    return Result(problems, ", ".join(f"{count} {split}" for split, count in examples.items()))


def _losses(subject: Subject) -> Result:
    epochs, steps = subject.spec.recipe.epochs, steps_per_epoch(subject)
    losses, windows = subject.samples["train_losses"], subject.samples["train_window_steps"]
    problems = []
    if len(losses) != epochs * steps:
        problems.append(f"{len(losses)} losses instead of {epochs} epochs of {steps} steps")
    if windows.sum() != len(losses) or not len(windows) or windows[0] != 1:
        problems.append(f"the windows contain {windows.sum()} steps; the first window contains {windows[:1].tolist()}")
    return Result(problems, f"{len(losses)} losses, {epochs} epochs of {steps} steps")


def _curves(subject: Subject) -> Result:
    """Recompute everything in the learning curves except the validation scores."""
    curves, epochs, steps = subject.outcome.curves, subject.spec.recipe.epochs, steps_per_epoch(subject)
    shape = [(point.epoch, point.epochs, point.step, *point.validation) for point in curves]
    names = ("loss", subject.outcome.scores.primary)
    expected = [(number, epochs, number * steps, *names) for number in range(1, epochs + 1)]
    problems = differences([list(row) for row in shape], [list(row) for row in expected], "curves")
    if problems:
        return Result(problems, "")
    if subject.arrays is None:
        raise NotCheckedError("the epochs and steps are complete; losses and times need the raw samples (arrays.npz)")
    for point, (train_s, train_loss) in zip(curves, _epochs(subject), strict=True):
        if not same(point.train_s, train_s) or not same(point.train_loss, train_loss):
            problems.append(
                f"epoch {point.epoch} has loss {point.train_loss} after {point.train_s} s in the record, "
                f"but {train_loss} after {train_s} s in the samples"
            )
    return Result(problems, f"{len(curves)} epochs")


def _epochs(subject: Subject) -> list[tuple[float, float]]:
    """Return the elapsed training time in seconds and the mean loss at the end of each epoch."""
    arrays, steps = subject.samples, steps_per_epoch(subject)
    losses: NDArray[Any] = arrays["train_losses"]
    ends, seconds = arrays["train_window_steps"].cumsum().tolist(), arrays["train_window_s"].cumsum().tolist()
    elapsed_s = dict(zip(ends, seconds, strict=True))
    return [
        (elapsed_s[step], fmean(losses[step - steps : step].tolist())) for step in range(steps, len(losses) + 1, steps)
    ]


def _validation(subject: Subject) -> Result:
    """Compare the validation scores after the last epoch with the scores of the trained model."""
    outcome = subject.outcome
    last, scored, primary = outcome.curves[-1].validation, outcome.scores.validation, outcome.scores.primary
    problems = []
    if subject.spec.device == "cpu" and not same(last[primary], scored[primary], 1e-6):
        problems.append(f"{primary} is {last[primary]} after the last epoch, but {scored[primary]} in the scores")
    if "validation_outputs" in (subject.arrays or {}):
        from harness.checks.audit.quality import judge

        arrays = subject.samples
        computed = judge(subject).quick(arrays["validation_targets"], arrays["validation_outputs"])["loss"]
        allowed = tolerance("loss", subject.spec.precision, outcome.model.parameters).value
        if not same(last["loss"], computed, allowed):
            problems.append(f"the loss after the last epoch is {last['loss']}, but the predictions give {computed}")
    return Result(problems, f"{primary} is {scored[primary]}")


def _target(subject: Subject) -> Result:
    spec, recorded, catalog = subject.spec, subject.outcome.time_to_target, subject.catalog
    target = spec.protocol.target
    if target is None and spec.source is None:
        target = catalog.dataset(spec.dataset).target
        if target != (recorded.target if recorded else None) and not has_same_plugins(subject):
            raise NotCheckedError(f"the installed version of the dataset has the target {target}")
    expected = None
    if target is not None:
        metric = catalog.metric(catalog.task(spec.task).metric)
        better = metric.higher_is_better
        expected = summary.time_to_target(subject.outcome.curves, metric.name, target, higher_is_better=better)
    problems = differences(recorded, expected, "time_to_target")
    return Result(problems, "no target" if target is None else f"target {target:g}")


CHECKS = (
    Check("the number of examples agrees with the samples", ("outcome.examples",), _examples),
    Check("the number of losses is epochs times steps", (), _losses),
    Check("the recorded training method is the backend's", ("outcome.speed.by_steps",), _by_steps),
    Check(
        "learning curves follow from the losses and the windows",
        ("outcome.curves",),
        _curves,
    ),
    Check(
        "the last epoch's validation scores are those of the trained model",
        ("outcome.curves[].validation", "outcome.scores.validation"),
        _validation,
    ),
    Check("time to target follows from the learning curves", ("outcome.time_to_target",), _target),
)
