"""Tests of the planning of studies: errors are found before a trial is started."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from toy_plugin import FAULTS_REF, TOY_REF, install_toy

from harness.api.execution import _speed_checked_at
from harness.checks.side_by_side import Part
from harness.errors import CombinationError, UsageError
from harness.interfaces import Coordinator, Executor, PlannedRun
from harness.plan.selection import Selection
from harness.plugins import load
from harness.plugins.catalog import Catalog, Provided
from harness.records import PluginRef, RunSpec
from harness.tuning.request import StudyPlan, Tuning, plan

SEARCH = ("recipe.learning_rate=log:1e-3:1.0", "recipe.batch_size=8,16")


@pytest.fixture(scope="module")
def toys() -> Iterator[Catalog]:
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        yield load([TOY_REF, FAULTS_REF])


def planned(catalog: Catalog, search: tuple[str, ...] = SEARCH, **more: Any) -> list[StudyPlan]:
    fields = Tuning.__dataclass_fields__
    selected = {name: more.pop(name) for name in list(more) if name not in fields}
    chosen = {"tasks": ("toy-regress",), "backends": ("toy-numpy",), "threads": 1} | selected
    return plan(Tuning(selection=Selection(**chosen), search=search, **more), catalog)


def test_plan_has_the_default_settings_and_the_largest_number_of_epochs(toys: Catalog) -> None:
    (study,) = planned(toys, (*SEARCH, "recipe.epochs=2:6"), confirm=0)
    assert study.default_settings(toys) == {
        "recipe.learning_rate": 0.1,
        "recipe.batch_size": 16,
        "recipe.epochs": 3,
    }
    assert (study.epochs, study.pruner, study.spec.seed) == (6, "median", 0)


def test_plan_without_the_default_in_the_space_has_no_default_settings(toys: Catalog) -> None:
    (study,) = planned(toys, ("recipe.batch_size=8,32",))
    assert study.default_settings(toys) is None


def test_plan_name_depends_on_everything_but_the_number_of_trials(toys: Catalog) -> None:
    (study,) = planned(toys)
    assert planned(toys, trials=40, confirm=0)[0].name == study.name
    others: list[dict[str, Any]] = [
        {"sampler": "random"},
        {"sampler_seed": 1},
        {"pruner": "none"},
        {"objectives": ("loss",)},
        {"seeds": (1,)},
        {"search": SEARCH[:1]},
        {"overrides": ("recipe.momentum=0.25",)},
    ]
    names = {study.name, *(planned(toys, **other)[0].name for other in others)}
    assert len(names) == len(others) + 1


class Silent(Executor):
    """An executor that reports epochs only after a run."""

    name = "silent"
    summary = "reports no epochs"

    def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
        raise AssertionError


def test_plan_with_an_executor_that_cannot_prune_requires_no_pruner(toys: Catalog) -> None:
    ref = PluginRef(name="silent", value="silent", distribution="silent", version="1.0")
    catalog = dataclasses.replace(toys, executors={**toys.executors, "silent": Provided(Silent(), ref)})
    for more in ({}, {"pruner": "hyperband"}):
        with pytest.raises(CombinationError, match=r"'silent' does not report epochs .*; pass --pruner none"):
            planned(catalog, executor="silent", **more)
    for changes in ({"pruner": "none"}, {"objectives": ("parameters",)}):
        (study,) = planned(catalog, executor="silent", jobs=64, **changes)  # however many cores this machine has
        assert (study.pruner, study.executor.name) == ("none", "silent")


def test_plan_with_jobs_divides_the_cores(toys: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.devices.available_cores", lambda: 8)
    monkeypatch.setattr("harness.tuning.request.lanes_for", lambda specs, jobs: ())
    (study,) = planned(toys, jobs=3, threads=None)
    assert (study.spec.threads, study.spec_with({}, toys).threads) == (2, 2)
    monkeypatch.undo()
    with pytest.raises(UsageError, match=r"--jobs 99999? with 1 thread per run needs"):
        planned(toys, jobs=9999)


def test_plan_that_measures_speed_with_jobs_requires_a_check_of_all_settings(
    toys: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.tuning.request.lanes_for", lambda specs, jobs: ())
    speed = {"objectives": ("train_throughput",), "jobs": 2}
    with pytest.raises(CombinationError, match=r"the settings in the range 'recipe.batch_size=8:16' cannot all be"):
        _speed_checked_at(planned(toys, ("recipe.batch_size=8:16",), **speed), toys)
    asked: list[set[int]] = []

    def measured_part(specs: Sequence[RunSpec], catalog: Catalog, jobs: int, *, quality_only: bool) -> Part:
        asked.append({spec.recipe.batch_size for spec in specs})
        return answer

    monkeypatch.setattr("harness.checks.side_by_side.measured_part", measured_part)
    answer = Part(True, reason="quality only: these settings were not checked")
    with pytest.raises(CombinationError, match=r"with --jobs 2: these settings were not checked, or remove --jobs"):
        _speed_checked_at(planned(toys, SEARCH, **speed), toys)
    answer = Part(False, "2026-01-01")
    assert _speed_checked_at(planned(toys, SEARCH, **speed), toys) == "2026-01-01"
    assert asked == [{8, 16}] * 2
    assert _speed_checked_at(planned(toys, SEARCH, jobs=2), toys) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jobs": 0}, "jobs must be between 1 and"),
        ({"executor": "locl"}, "unknown executor 'locl'; did you mean 'local'?"),
        ({"search": ("recipe.dropout=0.0:1.0",)}, "invalid search 'recipe.dropout=0.0:1.0'"),
        ({"search": ("recipe.batch_size=8,16.5",)}, "invalid search 'recipe.batch_size=8,16.5'"),
        ({"search": ("recipe.batch_size=8,many",)}, "invalid search 'recipe.batch_size=8,many'"),
        ({"search": ("recipe.batch_size=-4:8",)}, "epochs and batch_size must be at least 1"),
        ({"search": ("recipe.optimizer=sgd,adamm",)}, "unknown recipe.optimizer 'adamm'"),
        ({"search": ("recipe.learning_rate=1,1.0",)}, "two of the values have the same effect"),
        ({"search": ("model.width=1,2",)}, "unknown option 'model.width'"),
        ({"search": ()}, "the search space is empty"),
        ({"overrides": ("recipe.batch_size=8",)}, "both --set and --search change this setting"),
        ({"overrides": ("recipe.epochs=2,3",)}, "varies only the settings in --search"),
        ({"tasks": ("toy-regress", "toy-classify")}, "varies only the settings in --search"),
        ({"seeds": (0, 1)}, "pass a single --seed"),
        ({"repeat": 2}, "remove --repeat"),
        ({"trials": 0}, "trials must be between 1 and"),
        ({"confirm": -1}, "confirm must be between 0 and"),
        ({"sampler": "tpee"}, "did you mean 'tpe'"),
        ({"pruner": "medien"}, "did you mean 'median'"),
        ({"objectives": ("qualty",)}, "did you mean 'quality'"),
        ({"objectives": ()}, "at least one objective is required"),
        ({"objectives": ("loss", "quality", "loss")}, "the objective 'loss' is given twice; remove one of them"),
        ({"objectives": ("quality", "train_throughput"), "pruner": "median"}, "not supported by Optuna"),
        ({"objectives": ("train_throughput",), "pruner": "hyperband"}, "has no value during training"),
    ],
)
def test_plan_of_an_invalid_request_raises(changes: dict[str, Any], message: str, toys: Catalog) -> None:
    with pytest.raises(UsageError) as raised:
        planned(toys, **changes)
    assert message in str(raised.value)


def test_plan_with_several_objectives_does_not_prune(toys: Catalog) -> None:
    (study,) = planned(toys, objectives=("quality", "train_throughput"))
    assert (study.pruner, study.measures_speed) == ("none", True)
    assert [each.higher_is_better for each in study.objectives] == [False, True]  # rmse, throughput


def test_plan_for_a_dataset_without_validation_raises(toys: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = toys.dataset("toy-numbers")
    monkeypatch.setattr(type(dataset), "examples", {"train": 160, "validation": 0, "test": 40}, raising=False)
    with pytest.raises(UsageError, match="has no validation split, and tuning must not use the test split"):
        planned(toys)
