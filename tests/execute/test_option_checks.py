"""Tests of options that refer to the model's parameters or to the classes, which are checked before the first run."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import harness_cli
from toy_plugin import SET_FAST

from harness.errors import UsageError
from harness.execute import option_checks
from harness.execute.option_checks import check_before_runs
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records import RunSpec

pytestmark = pytest.mark.usefixtures("toy")
SOURCE = str(Path(__file__).parents[1] / "helpers" / "options_plugin.py")
CHOSEN = ("--plugin", SOURCE, "--task", "toy-classify", "--backend", "toy-able", *SET_FAST)
ABSENT = 'recipe.frozen=["lin.*"]'
NO_MATCH = "recipe.frozen: the pattern 'lin.*' matches no trainable parameter of the model; change or remove it"
SUITE = """
protocol = "quick"
[[run]]
name = "teacher"
task = "toy-classify"
backend = "toy-able"
[[run]]
task = "toy-classify"
backend = "toy-able"
teacher = "teacher"
set = { recipe.frozen = ["lin.*"] }
"""


@pytest.fixture
def catalog(toy: Path) -> Catalog:
    return discover((SOURCE,))


def planned(catalog: Catalog, *overrides: str, **changes: object) -> tuple[RunSpec, ...]:
    chosen = {"tasks": ("toy-classify",), "backends": ("toy-able",), "threads": 1, **changes}
    return expand(Selection(overrides=overrides, **chosen), catalog)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "--set", ABSENT), NO_MATCH),
        (
            ("run", "--set", 'recipe.frozen=["linear.*"]'),
            "match all trainable parameters; leave some of them trainable",
        ),
        (("run", "--set", "recipe.layer_decay=0.9"), "the model has only one layer; remove this option"),
        (
            ("run", "--set", "recipe.class_weights=balanced", "--set", "dataset.examples=2", "--seed", "0,1"),
            "has no training examples; pass a list of weights",
        ),
        (
            ("run", "--set", "recipe.schedule=step", "--set", "recipe.step_size=2", "--set", "recipe.max_steps=10"),
            "after epoch 2, but training ends in epoch 1 (recipe.max_steps=10); choose a smaller number, or more steps",
        ),
        (("tune", "--set", ABSENT, "--search", "recipe.batch_size=8,16"), NO_MATCH),
        (("tune", "--search", 'recipe.frozen=["linear.bias"],["lin.*"]'), NO_MATCH),
    ],
)
def test_option_that_does_not_suit_the_model_starts_no_run(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = harness_cli(words[0], *CHOSEN, *words[1:], results=tmp_path / "results", status=2)
    assert message in done.stderr
    assert list(tmp_path.glob("results/**/record.json")) == []


def test_model_option_that_does_not_suit_the_data_starts_no_run(tmp_path: Path) -> None:
    words = ("--plugin", SOURCE, "--task", "toy-classify", "--model", "toy-patched", "--backend", "toy-able", *SET_FAST)
    done = harness_cli("run", *words, "--set", "model.patch=3", results=tmp_path / "results", status=2)
    assert "4 features cannot be divided into patches of 3; set --set model.patch= to a divisor" in done.stderr
    assert list(tmp_path.glob("results/**/record.json")) == []
    harness_cli("run", *words, "--set", "model.patch=2", results=tmp_path / "results")
    assert len(list(tmp_path.glob("results/**/record.json"))) == 1


def test_options_of_several_models_are_checked_in_one_process(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = []
    monkeypatch.setattr(
        option_checks, "call_in_child", lambda function, job, **_: jobs.append(job) or function(job, None)
    )
    specs = planned(catalog, "model.patch=1,2,3", models=("toy-patched",))
    with pytest.raises(UsageError, match="patches of 3"):
        check_before_runs(specs, catalog, say=lambda _: None)
    assert [len(job.specs) for job in jobs] == [2], "the default, 1, is not checked"


def test_option_of_a_student_is_checked_before_its_teacher_is_trained(tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE)
    done = harness_cli("run", "--plugin", SOURCE, "--suite", suite, results=tmp_path / "results", status=2)
    assert NO_MATCH in done.stderr
    assert list(tmp_path.glob("results/**/record.json")) == []


def test_equal_options_are_checked_once_and_defaults_never(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    specs = planned(catalog, 'recipe.frozen=["linear.bias"],["*.weight"]', seeds=(0, 1))
    check_before_runs(specs, catalog, say=said.append)
    assert said == ["toy-classify · toy-colors · toy-linear: checking recipe.frozen"]
    monkeypatch.setattr(option_checks, "call_in_child", None)
    check_before_runs(planned(catalog), catalog, say=said.append)
    check_before_runs(planned(catalog, "recipe.max_steps=1"), catalog, say=said.append)
    assert len(said) == 1


def test_options_of_a_backend_that_does_not_train_by_steps_are_not_checked(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = planned(catalog, "recipe.layer_decay=0.9")
    catalog.backends["toy-able"].value.trains_by_steps = False
    monkeypatch.setattr(option_checks, "call_in_child", None)
    check_before_runs(specs, catalog, say=lambda _: None)


def test_message_about_the_number_of_steps_names_the_limit(catalog: Catalog) -> None:
    said: list[str] = []
    specs = planned(catalog, "recipe.early_stopping=2", "recipe.max_steps=1000")
    check_before_runs(specs, catalog, say=said.append)
    assert said == ["toy-classify · toy-colors · toy-linear: checking recipe.max_steps"]


def test_data_that_cannot_be_prepared_are_reported_by_the_run(catalog: Catalog) -> None:
    specs = planned(catalog, "recipe.layer_decay=0.9", "dataset.examples=0")
    check_before_runs(specs, catalog, say=lambda _: None)
