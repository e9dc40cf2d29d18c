"""The teacher in knowledge distillation, and checks of its compatibility with the student."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from harness.errors import CombinationError, UsageError
from harness.plan import rerun
from harness.plan.overrides import as_overrides, override_path
from harness.plan.selection import PlannedTeacher, Selection
from harness.plan.weights import trained_weights
from harness.plugins.catalog import Catalog
from harness.plugins.environments import missing
from harness.records import RunSpec, TrainedWeights
from harness.records.store import StoredRun

SEEDS = (0, 1, 2)
"""Default seeds for training students."""


@dataclass(frozen=True)
class Teacher:
    """A trained model whose outputs a student learns to match."""

    weights: TrainedWeights
    """Reference to the weights. If the model has not been trained yet, the reference does not contain digests."""
    spec: RunSpec
    """Specification of the run that trains the model."""


def teacher_of(run: StoredRun | PlannedTeacher) -> Teacher:
    """Return the model of a run as a teacher. Raises `harness.UsageError` if a stored run has no weights that can be
    used."""
    if isinstance(run, PlannedTeacher):
        weights = TrainedWeights(run=run.name, backend=run.spec.backend, digest="", dataset_digest="")
        return Teacher(weights, run.spec)
    return Teacher(trained_weights(run), run.record.spec)


def check_student(teacher: Teacher, student: RunSpec, catalog: Catalog, *, unavailable: bool) -> None:
    """Check that a run can use a teacher.

    The teacher must have been trained on the same dataset with the same options, so that both models have the same
    classes and splits. Otherwise, the student's test examples could be among the teacher's training examples. If
    `unavailable` is true, the backend of the teacher may be missing on this machine.

    Raises
    ------
    harness.CombinationError
        If the task has no classes, or if the teacher was trained for another task or on other data.
    harness.UsageError
        If the teacher's logits cannot be computed on this machine.
    """
    spec, name = teacher.spec, teacher.weights.run
    if catalog.task(student.task).objective == "regression":
        raise CombinationError(
            f"task {student.task!r} is a regression task without classes, so a student cannot match the class "
            "probabilities of a teacher; remove --teacher"
        )
    if spec.task != student.task:
        raise CombinationError(
            f"the teacher {name!r} was trained for task {spec.task!r}, not {student.task!r}; select the same task"
        )
    own = spec.source is not None
    if own != (student.source is not None) or (not own and spec.dataset != student.dataset):
        raise CombinationError(
            f"the teacher {name!r} was trained on dataset {spec.dataset!r}, not {student.dataset!r}; select the same "
            f"dataset, because the student learns from the teacher's outputs for the student's training examples"
        )
    options = spec.dataset_options, student.dataset_options
    differing = [key for key in dict.fromkeys([*options[0], *options[1]]) if options[0].get(key) != options[1].get(key)]
    if differing:
        key = differing[0]
        values = [str(each.get(key))[:40] for each in options]
        raise CombinationError(
            f"dataset.{key} is {values[0]} for the teacher {name!r}, but {values[1]} for the student, so the teacher "
            "may have different classes, or may have been trained on test examples of the student; use the same "
            "dataset options for both"
        )
    if not catalog.backend(spec.backend).trains_by_steps:
        raise UsageError(f"backend {spec.backend!r} saves no weights, so {name!r} cannot be a teacher")
    reason = None if unavailable else missing(catalog.backend(spec.backend).requires, spec.env)
    if reason is not None:
        raise UsageError(f"the teacher {name!r} needs backend {spec.backend!r}, which is not available: {reason}")
    family = catalog.model(spec.model)[0].name
    if catalog.network(family, spec.backend) is None:
        raise UsageError(
            f"no plugin provides model {family!r} of the teacher {name!r} for backend {spec.backend!r}{catalog.hint}"
        )


def student_selections(
    teacher: StoredRun, student: str, chosen: Selection, catalog: Catalog, *, alpha: float, temperature: float
) -> tuple[Selection, Selection]:
    """Return the selections for training the student without the teacher and with the teacher.

    The student has the same task, data and options as the teacher. By default, the student is trained by the teacher's
    backend with the seeds `SEEDS`. Raises `harness.UsageError` if the run has no weights that can be used, and
    `harness.CombinationError` if an override sets `alpha` or `temperature`.
    """
    for text in chosen.overrides:
        section, _, name = override_path(text).partition(".distillation_")
        if section == "recipe" and name in ("alpha", "temperature"):
            raise CombinationError(f"--{name} sets recipe.distillation_{name}; use --{name} instead of --set {text}")
    spec = teacher.record.spec
    repeated = rerun.selection(teacher_of(teacher).spec, catalog)
    # A checkpoint determines options of the task, such as the vocabulary, that do not apply to another model.
    sections = ("dataset.",) if spec.pretrained is not None else ("dataset.", "task.")
    shared = [text for text in repeated.overrides if text.startswith(sections)]
    alone = dataclasses.replace(
        chosen,
        tasks=repeated.tasks,
        datasets=repeated.datasets,
        splits=repeated.splits,
        models=(student,),
        metric=chosen.metric or repeated.metric,
        backends=chosen.backends or (spec.backend,),
        seeds=chosen.seeds or SEEDS,
        overrides=(*shared, *chosen.overrides),
    )
    settings = {"recipe.distillation_alpha": alpha, "recipe.distillation_temperature": temperature}
    return alone, dataclasses.replace(alone, teacher=teacher, overrides=(*alone.overrides, *as_overrides(settings)))
