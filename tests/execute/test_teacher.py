"""Tests of knowledge distillation: the teacher's logits, and the runs of students."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import numpy as np
import pytest
from command_line import harness_cli
from toy_plugin import FAST, SET_FAST, install_toy

import harness
from harness.analysis.distillation import summarize
from harness.data.batches import training_batches
from harness.errors import CombinationError, DataError, HarnessError, UsageError
from harness.execute.preparation import prepare_data
from harness.execute.runner import check_executor
from harness.execute.teacher import provide_logits
from harness.execute.teacher_logits import logits_path
from harness.execute.weights import initial_weights, load
from harness.interfaces import Executor
from harness.plan.expand import expand
from harness.plan.rerun import selection as selection_of
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records import RunSpec, TrainedWeights
from harness.records.samples import stored as samples_of
from harness.records.store import WEIGHTS, Store, StoredRun
from harness.report.distillation import render

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("toy")
SOURCE = str(Path(__file__).parents[1] / "helpers" / "distilling_plugin.py")
PLUGIN = ("--plugin", SOURCE)
TEACHER = ("--teacher", "toy-classify-toy-colors-toy-linear-toy-numpy")
ALPHA, TEMPERATURE = 0.7, 3.0


@pytest.fixture
def catalog(toy: Path) -> Catalog:
    return discover((SOURCE,))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results directory with a teacher and the runs of three students, with and without the teacher."""
    results = tmp_path_factory.mktemp("distilled") / "results"
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        chosen = ("--task", "toy-classify", "--backend", "toy-numpy", "--set", "recipe.epochs=9")
        harness_cli("run", *chosen, *SET_FAST, "-q", "--save-weights", results=results)
        settings = ("--alpha", ALPHA, "--temperature", TEMPERATURE, "--save-weights")
        student = ("--student", "toy-through-origin", "--backend", "toy-distilling")
        harness_cli("distill", *PLUGIN, *TEACHER, *student, *settings, *SET_FAST, "-q", results=results)
    return results


@pytest.fixture
def runs(results: Path) -> list[StoredRun]:
    return Store(results).load().runs


@pytest.fixture
def teacher(runs: list[StoredRun]) -> StoredRun:
    (run,) = [run for run in runs if run.record.spec.backend == "toy-numpy"]
    return run


@pytest.fixture
def distilled(runs: list[StoredRun]) -> list[StoredRun]:
    return [run for run in runs if run.record.spec.teacher is not None]


def no_checkpoint(name: str) -> NoReturn:
    raise AssertionError(name)


def plan(teacher: StoredRun | None, catalog: Catalog, *overrides: str, **changes: object) -> tuple[RunSpec, ...]:
    """Return the specs of students of a run."""
    chosen = {"tasks": ("toy-classify",), "backends": ("toy-distilling",), "overrides": (*FAST, *overrides), **changes}
    selection = Selection(teacher=None if teacher is None else str(teacher.path), **chosen)  # type: ignore[arg-type]
    return expand(selection.resolved(no_checkpoint, Store(Path()).find), catalog)


def copied(run: StoredRun, folder: Path) -> StoredRun:
    """Return a copy of a run in another directory."""
    shutil.copytree(run.path, folder / run.path.name)
    return StoredRun(folder / run.path.name, run.record)


def probabilities(logits: NDArray[Any]) -> NDArray[Any]:
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


# ---- runs -------------------------------------------------------------------------------------------------------


def test_first_loss_combines_the_true_classes_and_the_logits_of_the_teacher(
    distilled: list[StoredRun], teacher: StoredRun, catalog: Catalog
) -> None:
    """The expected loss is computed from the data and the weights of both models. It depends on the order of the
    logits."""
    run = next(run for run in distilled if run.record.spec.seed == 1)
    spec = run.record.spec
    assert (spec.recipe.distillation_alpha, spec.recipe.distillation_temperature) == (ALPHA, TEMPERATURE)
    data = prepare_data(catalog, msgspec.structs.replace(spec, teacher=None))
    batch = next(training_batches(data.train, spec.recipe.batch_size, spec.seed, 1))
    x = batch.inputs["features"]
    learned = load(teacher.path / WEIGHTS)
    parameters = catalog.model(spec.model)[0].parameters(
        msgspec.convert(spec.model_options, catalog.model(spec.model)[0].Config), data.info
    )
    student = x @ initial_weights(parameters, spec.seed)["linear.weight"].T
    wanted = x @ learned["linear.weight"].T + learned["linear.bias"]
    hard = -np.log(probabilities(student)[np.arange(len(x)), batch.targets]).mean()
    p, q = probabilities(wanted / TEMPERATURE), probabilities(student / TEMPERATURE)
    expected = (1 - ALPHA) * hard + ALPHA * TEMPERATURE**2 * (p * np.log(p / q)).sum(axis=1).mean()
    assert samples_of(run)["train_losses"][0] == pytest.approx(expected, rel=1e-5)


def test_record_of_a_student_refers_to_its_teacher(distilled: list[StoredRun], teacher: StoredRun) -> None:
    record = teacher.record
    expected = TrainedWeights(
        run=record.run_id,
        backend="toy-numpy",
        digest=record.provenance.final_weights_digest or "",
        dataset_digest=record.provenance.dataset_digest or "",
        path=str(teacher.path),
    )
    assert [run.record.spec.teacher for run in distilled] == [expected] * 3
    assert {run.record.spec.group_key for run in distilled} == {distilled[0].record.spec.group_key}
    moved = msgspec.structs.replace(expected, path="elsewhere")
    spec = distilled[0].record.spec
    assert msgspec.structs.replace(spec, teacher=moved).key == spec.key
    assert spec.title.startswith("toy-classify · toy-through-origin · distilled · toy-distilling · seed ")
    notes = {run.record.provenance.notes["teacher_logits"] for run in distilled}
    assert len(notes) == 1
    assert notes.pop().endswith("computed without augmentation")


def test_report_compares_students_with_a_paired_interval(runs: list[StoredRun], teacher: StoredRun) -> None:
    students = [run for run in runs if run is not teacher]
    found = summarize(teacher, students, discover((SOURCE,)))
    assert [(row.trained, row.model, row.seeds) for row in found.rows] == [
        ("teacher", "toy-linear", 1),
        ("alone", "toy-through-origin", 3),
        ("distilled", "toy-through-origin", 3),
    ]
    (change,) = found.changes
    _, alone, taught = found.rows
    assert alone.quality is not None
    assert taught.quality is not None
    assert change.comparison.change == pytest.approx(taught.quality - alone.quality)
    assert change.comparison.evidence == "3 pairs of seeds"
    text = render(found)
    assert f"teacher {teacher.record.run_id} · alpha 0.7, temperature 3" in text
    assert "toy-distilling: " in text
    assert "Confidence level: 95%." in text


def test_report_uses_the_metric_of_the_students(teacher: StoredRun, runs: list[StoredRun]) -> None:
    scores = {"f1_macro": 0.25, "accuracy": 0.5}
    changed = msgspec.structs.replace(teacher.record.outcome.scores, primary="f1_macro", test=scores)  # type: ignore[union-attr]
    outcome = msgspec.structs.replace(teacher.record.outcome, scores=changed)
    judged = StoredRun(teacher.path, msgspec.structs.replace(teacher.record, outcome=outcome))
    found = summarize(judged, [run for run in runs if run is not teacher], discover((SOURCE,)))
    assert found.rows[0].quality == scores[found.metric]


def test_report_without_successful_students_has_no_change(teacher: StoredRun, distilled: list[StoredRun]) -> None:
    found = summarize(teacher, distilled, discover((SOURCE,)))
    assert [row.trained for row in found.rows] == ["teacher", "distilled"]
    assert "cannot be compared" in render(found)


def test_distill_again_executes_nothing(results: Path, runs: list[StoredRun]) -> None:
    words = ("--student", "toy-through-origin", "--backend", "toy-distilling", "--alpha", ALPHA)
    words = (*PLUGIN, *TEACHER, *words, "--temperature", TEMPERATURE, *SET_FAST)
    shown = harness_cli("distill", *words, "-q", "--format", "json", results=results)
    found = json.loads(shown.output)
    assert len(Store(results).load().runs) == len(runs)
    assert [row["trained"] for row in found["rows"]] == ["teacher", "alone", "distilled"]
    planned = harness_cli("distill", *words, "--dry-run", results=results).output
    assert "6 runs planned, 6 of them already done" in planned


def test_student_is_audited_and_served_with_its_weights(distilled: list[StoredRun], results: Path) -> None:
    name = distilled[0].record.run_id
    audited = harness_cli("audit", *PLUGIN, name, "--format", "json", results=results)
    assert {finding["passed"] for finding in json.loads(audited.output)} <= {True, None}
    scored = harness_cli("evaluate", *PLUGIN, name, "--backend", "toy-numpy", "--format", "json", results=results)
    assert json.loads(scored.output)["agree"]


def test_table_lists_the_teacher(results: Path) -> None:
    options = [str(row.cells["options"].value) for row in harness.load(results).table().rows]
    assert sum("recipe.distillation_temperature=3.0" in text and "teacher=toy-classify" in text for text in options)


def test_command_that_reproduces_a_student_is_planned_as_the_same_run(
    distilled: list[StoredRun], catalog: Catalog
) -> None:
    spec = distilled[0].record.spec
    again = selection_of(spec, catalog).resolved(no_checkpoint, Store(Path()).find)
    assert [each.key for each in expand(again, catalog)] == [spec.key]


# ---- parity -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("other", "status"), [("toy-again", 0), ("toy-unscaled", 1)])
def test_parity_covers_the_soft_targets(other: str, status: int, results: Path) -> None:
    words = ("--task", "toy-classify", "--backend", f"toy-distilling,{other}", "--set", "recipe.distillation_alpha=0.5")
    shown = harness_cli("parity", *PLUGIN, *words, *TEACHER, "--steps", "5", results=results, status=status)
    assert ("targets assigned to the wrong examples" in shown.output) == bool(status)


# ---- logits -----------------------------------------------------------------------------------------------------


def test_logits_are_computed_once_and_again_if_they_are_damaged(
    distilled: list[StoredRun], teacher: StoredRun, catalog: Catalog
) -> None:
    spec, said = distilled[0].record.spec, list[str]()
    assert spec.teacher is not None
    path = logits_path(spec.teacher)
    content = path.read_bytes()
    provide_logits([spec], catalog, say=said.append)
    assert said == []
    path.write_bytes(content[:-200] + b"\0" * 200)
    provide_logits([spec, spec], catalog, say=said.append)
    assert said == [f"computing the logits of the teacher {spec.teacher.run}"]
    with np.load(path) as arrays:
        logits = arrays["logits"]
    data, weights = prepare_data(catalog, spec), load(teacher.path / WEIGHTS)
    expected = data.train.inputs["features"] @ weights["linear.weight"].T + weights["linear.bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert data.train.teacher_logits is not None
    assert data.train.teacher_logits.tolist() == logits.tolist()


def test_logits_are_computed_again_after_the_code_has_changed(distilled: list[StoredRun], catalog: Catalog) -> None:
    spec, said = distilled[0].record.spec, list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.execute.teacher.package_versions", lambda spec, catalog: {"numpy": "0"})
        provide_logits([spec], catalog, say=said.append)
        provide_logits([spec], catalog, say=said.append)
        assert len(said) == 1
    provide_logits([spec], catalog, say=said.append)
    assert len(said) == 2


def test_logits_of_weights_that_were_exchanged_are_not_used(
    teacher: StoredRun, distilled: list[StoredRun], catalog: Catalog, tmp_path: Path
) -> None:
    again = copied(teacher, tmp_path)
    shutil.copy(distilled[0].path / WEIGHTS, again.path / WEIGHTS)
    (spec,) = plan(again, catalog, "recipe.distillation_alpha=0.25")
    assert spec.teacher is not None
    with pytest.raises(HarnessError, match="weights"):
        provide_logits([msgspec.structs.replace(spec, teacher=_unknown(spec.teacher))], catalog)


def _unknown(teacher: TrainedWeights) -> TrainedWeights:
    """Return a reference to the same files whose logits are not in the cache."""
    return msgspec.structs.replace(teacher, backend="other")


def test_logits_for_other_data_are_not_computed(teacher: StoredRun, catalog: Catalog) -> None:
    (spec,) = plan(teacher, catalog)
    assert spec.teacher is not None
    changed = msgspec.structs.replace(spec.teacher, dataset_digest="0" * 64)
    with pytest.raises(HarnessError, match="was trained on different data"):
        provide_logits([msgspec.structs.replace(spec, teacher=changed)], catalog)


def test_student_with_other_training_examples_is_refused(teacher: StoredRun, catalog: Catalog) -> None:
    """Planning rejects other dataset options, so a dataset whose content has changed is simulated."""
    (spec,) = plan(teacher, catalog)
    changed = msgspec.structs.replace(spec, dataset_options={**spec.dataset_options, "noise": 5.0})
    with pytest.raises(DataError, match=r"training examples of the student .* differ in number or in their targets"):
        prepare_data(catalog, changed)


def test_missing_logits_are_an_error(teacher: StoredRun, catalog: Catalog) -> None:
    (spec,) = plan(teacher, catalog)
    assert spec.teacher is not None
    with pytest.raises(DataError, match="not in the cache"):
        prepare_data(catalog, msgspec.structs.replace(spec, teacher=_unknown(spec.teacher)))


# ---- planning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("dataset.draw=1",), "dataset.draw is 0 for the teacher .*, but 1 for the student"),
        (("recipe.distillation_alpha=0",), "the teacher has no effect with recipe.distillation_alpha=0"),
        (
            ("recipe.distillation_alpha=1", "recipe.label_smoothing=0.1"),
            "recipe.label_smoothing has no effect with recipe.distillation_alpha=1",
        ),
        (("recipe.distillation_alpha=1.5",), r"distillation_alpha must be in \[0, 1\]"),
        (("recipe.distillation_temperature=0",), "distillation_temperature must be positive"),
    ],
    ids=str,
)
def test_student_that_does_not_fit_the_teacher_is_refused(
    overrides: tuple[str, ...], message: str, teacher: StoredRun, catalog: Catalog
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(teacher, catalog, *overrides)


def test_regression_has_no_teacher(teacher: StoredRun, catalog: Catalog) -> None:
    with pytest.raises(CombinationError, match="is a regression task without classes"):
        plan(teacher, catalog, tasks=("toy-regress",))


def test_backend_without_the_option_is_refused(teacher: StoredRun, catalog: Catalog) -> None:
    with pytest.raises(CombinationError, match="'toy-numpy' does not implement distillation_alpha"):
        plan(teacher, catalog, backends=("toy-numpy",))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.distillation_alpha=0.5", "recipe.distillation_alpha requires a teacher; add --teacher RUN"),
        ("recipe.distillation_temperature=2", "distillation_temperature has no effect without"),
    ],
)
def test_options_of_distillation_without_a_teacher_are_refused(override: str, message: str, catalog: Catalog) -> None:
    with pytest.raises(CombinationError, match=message):
        plan(None, catalog, override)


def test_run_without_weights_is_not_a_teacher(runs: list[StoredRun], catalog: Catalog, tmp_path: Path) -> None:
    bare = copied(runs[0], tmp_path)
    (bare.path / WEIGHTS).unlink()
    with pytest.raises(UsageError, match="has no saved weights; repeat the run"):
        plan(bare, catalog)


def test_teacher_and_weights_exclude_each_other(teacher: StoredRun, catalog: Catalog) -> None:
    selection = Selection(weights=(teacher,), teacher=str(teacher.path))
    with pytest.raises(UsageError, match=r"the runs in --weights determine .* remove --teacher"):
        expand(selection.resolved(no_checkpoint, Store(Path()).find), catalog)


def test_remote_executor_is_refused(teacher: StoredRun, catalog: Catalog) -> None:
    class Remote(Executor):
        name = "remote"
        summary = "another machine"
        remote = True

        def execute(self, runs: object, coordinator: object) -> None:
            raise NotImplementedError

    with pytest.raises(CombinationError, match="do not have the teacher's logits"):
        check_executor(plan(teacher, catalog), Remote())
    check_executor(plan(None, catalog), Remote())


def test_distill_refuses_several_settings(results: Path, runs: list[StoredRun]) -> None:
    words = ("--student", "toy-linear", "--backend", "toy-distilling", "--set", "recipe.epochs=1,2")
    refused = harness_cli("distill", *PLUGIN, *TEACHER, *words, results=results, status=2)
    assert "one student for each backend; pass a single value to --set recipe.epochs" in refused.output
    assert len(Store(results).load().runs) == len(runs)


# ---- suites -----------------------------------------------------------------------------------------------------

SUITE = """
backend = "toy-distilling"
[[run]]
name = "large"
task = "toy-classify"
{teacher}
[[run]]
task = "toy-classify"
model = "toy-through-origin"
teacher = "{uses}"
matrix = {{ recipe.distillation_alpha = [0.5, 1] }}
"""


def suite(folder: Path, teacher: str = "", uses: str = "large") -> Path:
    fast = ", ".join(f"{each.replace('=', ' = ')}" for each in FAST)
    text = SUITE.format(teacher=f"set = {{ {fast} }}\n{teacher}", uses=uses)
    path = folder / "suite.toml"
    path.write_text(text.replace("matrix", f"set = {{ {fast} }}\nmatrix"))
    return path


def test_suite_trains_the_teacher_before_its_students(tmp_path: Path) -> None:
    path, results = suite(tmp_path), tmp_path / "results"
    planned = harness_cli("run", *PLUGIN, "--suite", path, "--dry-run", results=results).output
    assert "3 runs planned" in planned
    harness_cli("run", *PLUGIN, "--suite", path, "-q", results=results)
    (teacher, *students) = Store(results).load().runs
    assert teacher.record.spec.teacher is None
    assert [run.record.spec.recipe.distillation_alpha for run in students] == [0.5, 1.0]
    assert {run.record.spec.teacher and run.record.spec.teacher.run for run in students} == {teacher.record.run_id}
    harness_cli("run", *PLUGIN, "--suite", path, "-q", results=results)
    assert len(Store(results).load().runs) == 3


@pytest.mark.parametrize(
    ("teacher", "uses", "message"),
    [
        ("seed = [0, 1]", "large", "the entry 'large' defines 2 runs, but a teacher must be a single run"),
        ('teacher = "large"', "large", "the teacher 'large' itself has a teacher; train 'large' in another suite"),
        ("", "larger", "unknown run 'larger'"),
    ],
)
def test_suite_with_an_unsuitable_teacher_is_refused(teacher: str, uses: str, message: str, tmp_path: Path) -> None:
    path, results = suite(tmp_path, teacher, uses), tmp_path / "results"
    refused = harness_cli("run", *PLUGIN, "--suite", path, results=results, status=2)
    assert message in refused.output
    assert not Store(results).load().runs


def test_suite_with_a_repeated_name_is_refused(tmp_path: Path) -> None:
    path = suite(tmp_path)
    path.write_text(path.read_text() + '[[run]]\nname = "large"\ntask = "toy-classify"\n')
    refused = harness_cli("run", *PLUGIN, "--suite", path, results=tmp_path / "results", status=2)
    assert "the name 'large' occurs twice" in refused.output
