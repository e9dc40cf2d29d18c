"""Defaults for the user's own data that depend on the number of training examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from own_files import houses, photos, reviews, write_csv

from harness.data.batches import steps_per_epoch
from harness.plan import rerun
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records import RunSpec
from harness.report.progress import planned_notes


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Return the built-in plugins, whose models have networks for several backends."""
    return discover()


def plan(catalog: Catalog, task: str, path: Path | str, *overrides: str, **selection: Any) -> tuple[RunSpec, ...]:
    chosen: dict[str, Any] = {"tasks": (task,), "datasets": (str(path),), "backends": ("torch",)}
    return expand(Selection(**chosen | {"overrides": overrides} | selection), catalog)


def texts(path: Path, count: int = 30) -> Path:
    return write_csv(path / "reviews.csv", reviews(count))


# ---- number of steps --------------------------------------------------------------------------------------


@pytest.mark.plugins("nlp", "torch")
def test_epochs_of_few_examples_are_raised_to_the_minimum_number_of_steps(catalog: Catalog, tmp_path: Path) -> None:
    (spec,) = plan(catalog, "nlp", texts(tmp_path, 200), "recipe.batch_size=16", models=("bert-tiny",))
    assert spec.source is not None
    assert spec.source.training_examples == 140
    assert spec.recipe.epochs == -(-catalog.task("nlp").min_steps // steps_per_epoch(140, 16))
    note = (
        f"recipe.epochs of bert-tiny was raised from 4 to {spec.recipe.epochs}, so that training has at least "
        "1,000 steps; --set recipe.epochs=N selects another number"
    )
    assert spec.source.defaults == (note,)
    assert planned_notes([spec, spec]) == [f"Note: reviews.csv: {note}"]
    assert spec.recipe.keep_best


@pytest.mark.plugins("regression", "torch")
def test_epochs_that_are_sufficient_are_unchanged(catalog: Catalog, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", houses(600))
    (spec,) = plan(
        catalog, "regression", path, "dataset.target_column=price", "recipe.batch_size=8", models=("linear",)
    )
    assert spec.recipe.epochs == 40
    assert spec.source is not None
    assert spec.source.defaults == ()


@pytest.mark.plugins("nlp", "torch")
@pytest.mark.parametrize(
    "override",
    ["recipe.epochs=4", "recipe.max_steps=20", "recipe.max_seconds=5"],
)
def test_epochs_are_not_raised_if_the_user_limits_the_training(catalog: Catalog, tmp_path: Path, override: str) -> None:
    (spec,) = plan(catalog, "nlp", texts(tmp_path), override, models=("bert-tiny",))
    assert spec.recipe.epochs == 4
    assert spec.source is not None
    assert spec.source.defaults == ()


@pytest.mark.plugins("nlp", "torch")
def test_epochs_are_not_raised_if_the_user_sets_the_epochs_of_a_schedule(catalog: Catalog, tmp_path: Path) -> None:
    overrides = ("recipe.schedule=step", "recipe.step_size=2")
    (spec,) = plan(catalog, "nlp", texts(tmp_path), *overrides, models=("bert-tiny",))
    assert spec.recipe.epochs == 4


@pytest.mark.plugins("nlp", "torch")
@pytest.mark.parametrize("declared", [{"max_steps": 20}, {"schedule": "step", "step_size": 2}])
def test_epochs_are_not_raised_if_the_recipe_of_the_task_limits_the_training(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: dict[str, Any]
) -> None:
    task = type(catalog.task("nlp"))
    monkeypatch.setattr(task, "recipe", msgspec.structs.replace(task.recipe, **declared))
    (spec,) = plan(catalog, "nlp", texts(tmp_path), models=("bert-tiny",))
    assert spec.recipe.epochs == 4
    assert spec.source is not None
    assert spec.source.defaults == ()


@pytest.mark.plugins("nlp", "torch", "tensorflow", "baselines")
def test_every_backend_has_the_same_defaults(catalog: Catalog, tmp_path: Path) -> None:
    backends = ("torch", "tensorflow", "baseline")
    by_backend = {spec.backend: spec for spec in plan(catalog, "nlp", texts(tmp_path), backends=backends)}
    torch, tensorflow, baseline = (by_backend[name] for name in backends)
    assert msgspec.structs.replace(tensorflow, backend="torch") == torch
    assert torch.source is not None
    assert torch.source.defaults
    assert baseline.source is not None
    assert baseline.source.defaults == ()  # The baseline trains its own model, and in one call.


@pytest.mark.plugins("nlp", "torch")
@pytest.mark.parametrize(
    "options", [("dataset.folds=4",), ("dataset.random_splits=3",), ("dataset.folds=4", "dataset.time_column=day")]
)
def test_all_folds_have_the_same_defaults(catalog: Catalog, tmp_path: Path, options: tuple[str, ...]) -> None:
    path = write_csv(tmp_path / "reviews.csv", {**reviews(50), "day": [str(number) for number in range(50)]})
    columns = ("dataset.text_column=review", "dataset.target_column=label")
    specs = plan(catalog, "nlp", path, *columns, *options)
    alone = plan(catalog, "nlp", path, *columns, *options, splits=(2,))
    assert len({(spec.model, spec.recipe) for spec in specs}) == 1
    assert alone[0].key in {spec.key for spec in specs}


@pytest.mark.plugins("vision", "torch")
def test_epochs_are_raised_for_images(catalog: Catalog, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    (spec,) = plan(catalog, "vision", photos(tmp_path / "photos", 20))
    assert spec.recipe.epochs == catalog.task("vision").min_steps == 1000  # one step per epoch
    assert spec.source is not None
    assert spec.source.training_examples == 28


@pytest.mark.plugins("nlp", "torch")
def test_datasets_of_plugins_keep_their_recipes(catalog: Catalog) -> None:
    (spec,) = plan(catalog, "nlp", "cldr-langid")
    assert (spec.model, spec.recipe.epochs, spec.source) == ("bert-tiny", 4, None)


@pytest.mark.plugins("nlp", "torch")
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("recipe.epochs=4",),
        ("recipe.batch_size=8",),
        ("recipe.batch_size=8", "recipe.epochs=1000"),  # the default with the default batch size
        ("recipe.epochs=1000", "recipe.max_steps=20"),
    ],
)
def test_reproducing_a_run_selects_the_same_epochs(
    catalog: Catalog, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    (spec,) = plan(catalog, "nlp", texts(tmp_path), *overrides)
    (again,) = expand(rerun.selection(spec, catalog), catalog)
    assert again.key == spec.key


@pytest.mark.plugins("nlp", "torch")
@pytest.mark.parametrize("override", ["recipe.batch_size=16", "recipe.max_steps=50"])
def test_run_with_the_default_epochs_of_other_settings_is_planned_again(
    catalog: Catalog, tmp_path: Path, override: str
) -> None:
    (default,) = plan(catalog, "nlp", texts(tmp_path, 200), models=("bert-tiny",))
    epochs = f"recipe.epochs={default.recipe.epochs}"
    (spec,) = plan(catalog, "nlp", tmp_path / "reviews.csv", epochs, override, models=("bert-tiny",))
    (again,) = expand(rerun.selection(spec, catalog), catalog)
    assert again.recipe == spec.recipe
    assert again.key == spec.key


@pytest.mark.plugins("nlp", "torch")
def test_reproducing_an_older_run_does_not_raise_its_epochs(catalog: Catalog, tmp_path: Path) -> None:
    (spec,) = plan(catalog, "nlp", texts(tmp_path), "recipe.epochs=4", models=("bert-tiny",))
    assert spec.source is not None
    older = msgspec.structs.replace(spec, source=msgspec.structs.replace(spec.source, training_examples=None))
    (again,) = expand(rerun.selection(older, catalog), catalog)
    assert again.recipe == spec.recipe
    assert again.key == spec.key


# ---- default model ----------------------------------------------------------------------------------------


@pytest.fixture
def sized(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """Return the catalog with three default models for texts."""
    monkeypatch.setattr(type(catalog.task("nlp")), "models_by_size", {100: "lstm", 20: "lstm-small"})
    return catalog


@pytest.mark.plugins("nlp", "torch", "tensorflow")
@pytest.mark.parametrize(
    ("count", "model", "sizes"),
    [
        (20, "bert-tiny", "fewer than 20 training examples (here 14)"),
        (40, "lstm-small", "at least 20 and fewer than 100 training examples (here 28)"),
        (200, "lstm", "at least 100 training examples (here 140)"),
    ],
)
def test_default_model_depends_on_the_number_of_training_examples(
    sized: Catalog, tmp_path: Path, count: int, model: str, sizes: str
) -> None:
    specs = plan(sized, "nlp", texts(tmp_path, count), backends=("torch", "tensorflow"))
    assert [spec.model for spec in specs] == [model, model]
    note = f"model {model} is the default for your own data with {sizes}; --model selects another"
    for spec in specs:
        assert spec.source is not None
        assert spec.source.defaults[0] == note
    assert planned_notes(specs)[0] == f"Note: reviews.csv: {note}"


@pytest.mark.plugins("nlp", "torch")
def test_note_does_not_name_another_model_if_the_size_varies(sized: Catalog, tmp_path: Path) -> None:
    first, second = plan(sized, "nlp", texts(tmp_path, 40), "dataset.test_share=0.15,0.7")
    assert (first.model, second.model) == ("lstm-small", "lstm-small")
    assert first.source is not None
    assert second.source is not None
    assert first.source.defaults[0].startswith("model lstm-small is the default")
    assert not any("is the default" in choice for choice in second.source.defaults)


@pytest.mark.plugins("nlp", "torch", "baselines")
def test_selected_model_is_used_for_every_number_of_examples(sized: Catalog, tmp_path: Path) -> None:
    (spec,) = plan(sized, "nlp", texts(tmp_path, 200), models=("bert-mini",))
    assert spec.model == "bert-mini"
    assert spec.source is not None
    assert not any("is the default" in choice for choice in spec.source.defaults)
    (baseline,) = plan(sized, "nlp", texts(tmp_path, 200), backends=("baseline",))
    assert baseline.model == "tfidf-logreg"


@pytest.mark.plugins("nlp", "torch")
def test_datasets_of_plugins_ignore_their_size(sized: Catalog) -> None:
    (spec,) = plan(sized, "nlp", "cldr-langid")
    assert (spec.model, spec.source) == ("bert-tiny", None)


@pytest.mark.plugins("nlp", "torch")
def test_reproducing_a_run_selects_the_same_model(sized: Catalog, tmp_path: Path) -> None:
    (spec,) = plan(sized, "nlp", texts(tmp_path, 40))
    again = rerun.selection(spec, sized)
    assert again.models == ("lstm-small",)
    assert expand(again, sized)[0].key == spec.key
