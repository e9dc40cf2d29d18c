"""Recipe options that are rejected during planning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from toy_plugin import TOY_REF

from harness.errors import CombinationError, UsageError
from harness.plan.expand import expand
from harness.plan.recipe_checks import check_length
from harness.plan.selection import Selection
from harness.plugins import load
from harness.plugins.catalog import Catalog
from harness.records import Recipe, RunSpec


@pytest.fixture
def able(catalog: Catalog) -> Catalog:
    """Return a catalog whose backend implements all options."""
    backend = catalog.backends["toy-numpy"].value
    backend.recipe_options = tuple(backend_options())
    return catalog


def backend_options() -> list[str]:
    return sorted(Recipe.SESSION_OPTIONS)


def plan(catalog: Catalog, *overrides: str, **changes: Any) -> tuple[RunSpec, ...]:
    overrides = tuple(f"recipe.{override}" for override in overrides)
    selection = {"tasks": ("toy-classify",), "backends": ("toy-numpy",), "overrides": overrides, **changes}
    return expand(Selection(**selection), catalog)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("beta1=0.5",), "recipe.beta1 has no effect with the optimizer sgd"),
        (("epsilon=0.5",), "recipe.epsilon has no effect with the optimizer sgd"),
        (("optimizer=lion", "epsilon=0.5"), "recipe.epsilon has no effect with the optimizer lion"),
        (("optimizer=adam", "momentum=0.9"), "recipe.momentum has no effect with the optimizer adam"),
        (("momentum=0", "nesterov=true"), "recipe.nesterov has no effect without recipe.momentum"),
        (("decoupled_decay=true",), "recipe.decoupled_decay has no effect without recipe.weight_decay"),
        (("gamma=0.5",), "recipe.gamma has no effect with the schedule constant"),
        (("milestones=[1]",), "recipe.milestones has no effect with the schedule constant"),
        (("schedule=plateau", "step_size=2"), "recipe.step_size has no effect with the schedule plateau"),
        (("plateau_patience=1",), "recipe.plateau_patience has no effect"),
        (("monitor=loss",), "recipe.monitor has no effect without recipe.early_stopping"),
        (("early_stopping=3",), "early_stopping=3 has no effect, because training has 3 epochs"),
        (("schedule=step", "step_size=3"), r"step_size: .* after epoch 3, but training has 3 epochs"),
        (("schedule=step", "milestones=[1,3,9]"), r"milestones: .* after epoch 3, but training has 3 epochs"),
        (
            ("schedule=step", "step_size=2", "max_steps=2"),
            r"step_size: .* after epoch 2, but training ends in epoch 2 or earlier \(recipe.max_steps=2\)",
        ),
        (("schedule=step", "milestones=[1,2]", "max_steps=2"), r"milestones: .* after epoch 2, but training ends in"),
        (("schedule=plateau", "plateau_patience=1", "max_steps=2"), r"patience=1: .* epoch 2 or earlier"),
        (("early_stopping=2", "max_steps=2"), "early_stopping=2 has no effect, because training ends in epoch 2"),
        (("schedule=plateau", "plateau_patience=2"), r"patience=2: .* after epoch 3 at the earliest"),
        (("schedule=plateau",), r"patience=3: .* after epoch 4 at the earliest, but training has 3 epochs"),
        (
            ("schedule=plateau", "plateau_patience=3", "early_stopping=3", "epochs=9"),
            r"patience=3: training ends after 3",
        ),
        (
            ("schedule=plateau", "plateau_patience=5", "early_stopping=3", "epochs=9"),
            r"patience=5: training ends after 3",
        ),
        (("warmup_fraction=1.01",), r"warmup_fraction must be in \[0, 1\]"),
        (("loss_scale=8",), "only in fp16"),
        (("accumulation_steps=5", "batch_size=4"), "larger than the batch size, 4"),
        (("class_weights=[1,2]",), r"2 weights, but dataset .* has 3 classes \(red, green, blue\)"),
        (("distillation_alpha=0.5",), "requires a teacher; add --teacher RUN"),
        (("distillation_temperature=2",), "distillation_temperature has no effect without recipe.distillation_alpha"),
        (("layer_decay=2",), r"layer_decay must be in \(0, 1\]"),
        (("optimizer=adam", "decoupled_decay=true"), "use the optimizer adamw"),
        (("learning_rate=1e-50",), "recipe.learning_rate=1e-50 is outside the range of float32, 1.18e-38 to 3.4e"),
        (("learning_rate=1e39",), r"recipe.learning_rate=1e\+39 is outside the range of float32"),
        (("optimizer=adam", "epsilon=1e-60"), "recipe.epsilon=1e-60 is outside the range of float32"),
        (("weight_decay=1e300",), "recipe.weight_decay=1e.300 is outside the range of float32"),
        (("optimizer=adam", "beta1=0.999999999"), "recipe.beta1=0.999999999 rounds to 1 in float32"),
        (("optimizer=adam", "beta2=0.999999999"), "recipe.beta2=0.999999999 rounds to 1 in float32"),
        (("l1=1e-40",), "recipe.l1=1e-40 is outside the range of float32"),
        (("clip_norm=1e50",), "recipe.clip_norm=1e.50 is outside the range of float32"),
        *(
            ((f"optimizer={name}", "epsilon=0"), f"with recipe.epsilon=0, the optimizer {name} divides zero by zero")
            for name in ("rmsprop", "adam", "adamw", "adagrad", "lamb")
        ),
    ],
    ids=str,
)
def test_option_that_cannot_be_used_is_refused(overrides: tuple[str, ...], message: str, able: Catalog) -> None:
    able.datasets["toy-colors"].value.label_names = ("red", "green", "blue")
    with pytest.raises(UsageError, match=message):
        plan(able, *overrides)


@pytest.mark.parametrize("temperature", ["1e-30", "1e20", "1e300"])
def test_temperature_whose_square_is_not_a_float32_is_refused(temperature: str, able: Catalog) -> None:
    with pytest.raises(CombinationError, match=r"square of recipe.distillation_temperature=.* outside the range"):
        plan(able, "distillation_alpha=0.5", f"distillation_temperature={temperature}")


def test_number_that_only_float64_represents_is_accepted_in_fp64(able: Catalog) -> None:
    able.backends["toy-numpy"].value.precisions = ("fp32", "fp64")
    (spec,) = plan(able, "learning_rate=1e-50", precisions=("fp64",))
    assert spec.recipe.learning_rate == 1e-50


def test_option_that_the_backend_does_not_implement_is_refused(catalog: Catalog) -> None:
    with pytest.raises(
        CombinationError, match="backend 'toy-numpy' does not implement adagrad, l1; it implements none"
    ):
        plan(catalog, "optimizer=adagrad", "l1=0.1")
    (spec,) = plan(catalog, "early_stopping=2", "keep_best=true", "schedule=step", "step_size=1", "max_steps=9")
    assert spec.recipe.max_steps == 9


def test_schedule_that_reduces_the_rate_before_the_last_epoch_is_accepted(catalog: Catalog) -> None:
    for options in (("step", "step_size=2"), ("step", "milestones=[1,2]"), ("plateau", "plateau_patience=1")):
        (spec,) = plan(catalog, f"schedule={options[0]}", options[1], "epochs=3")
        assert spec.recipe.schedule == options[0]


def test_length_limited_to_a_number_of_steps_is_checked_in_epochs() -> None:
    recipe = Recipe(schedule="step", step_size=2, batch_size=10, epochs=5, max_steps=20)
    with pytest.raises(CombinationError, match=r"after epoch 2, but training ends in epoch 2 \(recipe.max_steps=20\)"):
        check_length(recipe, 109)
    check_length(recipe, 99)  # 9 steps in each epoch
    check_length(msgspec.structs.replace(recipe, max_steps=21), 109)
    check_length(msgspec.structs.replace(recipe, batch_size=1000), 109)
    with pytest.raises(CombinationError, match="but training has 2 epochs; choose a smaller number, or more epochs"):
        check_length(msgspec.structs.replace(recipe, epochs=2, max_steps=999), 109)


def test_regression_has_no_class_options(able: Catalog) -> None:
    for option in ("label_smoothing=0.1", "class_weights=balanced"):
        with pytest.raises(CombinationError, match="has no effect in regression"):
            plan(able, option, tasks=("toy-regress",))


def test_selection_by_validation_needs_a_validation_split(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        type(catalog.datasets["toy-colors"].value), "examples", {"train": 9, "validation": 0, "test": 9}
    )
    plan(catalog, "epochs=5")
    for option in ("early_stopping=2", "keep_best=true", "schedule=plateau"):
        with pytest.raises(CombinationError, match="requires a validation split"):
            plan(catalog, option)


@pytest.mark.plugins("regression", "torch")
def test_best_epoch_is_the_default_for_user_data(tmp_path: Path) -> None:
    from harness.plugins import discover

    table = tmp_path / "table.csv"
    table.write_text("x,y\n" + "".join(f"{number},{2 * number}\n" for number in range(60)))
    selection: dict[str, Any] = {"tasks": ("regression",), "backends": ("torch",)}
    (own,) = expand(Selection(**selection, datasets=(str(table),)), discover())
    (embedded,) = expand(Selection(**selection), discover())
    assert (own.recipe.keep_best, embedded.recipe.keep_best) == (True, False)
    (last,) = expand(Selection(**selection, datasets=(str(table),), overrides=("recipe.keep_best=false",)), discover())
    assert not last.recipe.keep_best


def test_catalogs_are_independent() -> None:
    assert load([TOY_REF]).backends["toy-numpy"].value.recipe_options == ()
