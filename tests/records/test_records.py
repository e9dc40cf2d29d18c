"""Tests of run keys, of the JSON round trip of records, and of the validation of settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from msgspec import structs
from strategies import protocols, recipes, records, specs

from harness.records import (
    SCHEMA_VERSION,
    DataSource,
    Event,
    Pretrained,
    Protocol,
    Recipe,
    RunRecord,
    RunSpec,
    TrainedWeights,
)
from harness.records.spec import key_of
from harness.records.store import RECORD, Store

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "defaults"

SPEC = RunSpec(
    task="toy",
    dataset="points",
    model="toy-linear",
    backend="toy-numpy",
    device="cpu",
    recipe=Recipe(epochs=3, learning_rate=0.1),
    model_options={"sizes": [1, 2], "bias": True},
)
KEY = "66183bdefbc27be2ac15192333c0790220e7f7eadd60e363628551f3f3b63122"

CHANGES: dict[str, Any] = {
    "weights": TrainedWeights(run="x", backend="torch", digest="0", dataset_digest="1"),
    "teacher": TrainedWeights(run="x", backend="torch", digest="0", dataset_digest="1"),
    "pretrained": Pretrained(name="x", digest="0"),
    "task": "other",
    "dataset": "other",
    "model": "other",
    "backend": "other",
    "device": "cuda:0",
    "precision": "bf16",
    "compile": True,
    "deterministic": True,
    "env": "tf220",
    "seed": 1,
    "threads": 2,
    "devices": 2,
    "recipe": Recipe(epochs=4, learning_rate=0.1),
    "protocol": Protocol(window_s=1.0),
    "task_options": {"length": 8},
    "dataset_options": {"draw": 1},
    "model_options": {"sizes": [2, 1], "bias": True},
    "metric": "f1_macro",
}


def test_key_is_pinned() -> None:
    """A different key for the same spec would separate new repeats from stored ones."""
    assert SPEC.key == KEY


def test_stored_protocols_and_keys_are_unchanged() -> None:
    """Fields of a protocol may be renamed in Python, but keep their names in records and in the input of the key."""
    runs = Store(REFERENCE).load().runs
    for run in runs:
        stored = msgspec.json.decode((run.path / RECORD).read_bytes())
        if stored["schema_version"] == SCHEMA_VERSION:
            added = {"save_outputs": False}  # fields that are missing from older records
            assert msgspec.to_builtins(run.record.spec.protocol) == {**added, **stored["spec"]["protocol"]}
    assert any(run.record.spec.key == run.record.key for run in runs)  # the other runs are older than some options


def test_protocol_is_stored_with_the_names_of_its_first_version() -> None:
    assert set(msgspec.to_builtins(Protocol())) >= {"steady_windows", "steady_s", "interval", "budget_s"}
    stored = {"steady_s": 1.0, "interval": 0.5}
    assert msgspec.convert(stored, Protocol) == Protocol(min_steady_s=1.0, max_relative_half_width=0.5)


def test_key_is_the_same_in_another_process() -> None:
    code = "import sys, msgspec; from harness.records import Pretrained, RunSpec;"
    code += "print(msgspec.json.decode(sys.argv[1], type=RunSpec).key)"
    command = [sys.executable, "-c", code, msgspec.json.encode(SPEC).decode()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert done.stdout.strip() == KEY


def test_every_field_is_part_of_the_key() -> None:
    assert set(CHANGES) == set(RunSpec.__struct_fields__) - {"source"}
    keys = [structs.replace(SPEC, **{name: value}).key for name, value in CHANGES.items()]
    assert len({SPEC.key, *keys}) == 1 + len(CHANGES)


def test_path_and_name_of_user_data_are_not_part_of_the_key() -> None:
    own = structs.replace(SPEC, dataset="a.csv", source=DataSource(path="/here/a.csv", guessed=("text_column",)))
    moved = structs.replace(own, dataset="b.csv", source=DataSource(path="/there/b.csv"))
    assert own.key == moved.key != SPEC.key
    changed = structs.replace(own, dataset_options={**own.dataset_options, "sha256": "another"})
    assert changed.key != own.key


def test_every_setting_of_the_recipe_is_part_of_the_key() -> None:
    changes: dict[str, Any] = {
        "epochs": 4,
        "batch_size": 1,
        "optimizer": "sgd",
        "learning_rate": 0.2,
        "momentum": 0.1,
        "nesterov": True,
        "beta1": 0.1,
        "beta2": 0.1,
        "epsilon": 0.1,
        "weight_decay": 0.1,
        "schedule": "linear",
        "warmup_fraction": 0.1,
        "clip_norm": 1.0,
        "label_smoothing": 0.1,
        "dropout": 0.1,
        "l1": 0.1,
        "decoupled_decay": True,
        "accumulation_steps": 2,
        "class_weights": "balanced",
        "ema_decay": 0.9,
        "loss_scale": 8.0,
        "frozen": ("a.*",),
        "layer_decay": 0.5,
        "distillation_alpha": 0.5,
        "distillation_temperature": 2.0,
        "early_stopping": 2,
        "keep_best": True,
        "max_steps": 5,
        "max_seconds": 1.0,
        "step_size": 2,
        "milestones": (1,),
        "gamma": 0.5,
        "plateau_patience": 2,
        "monitor": "loss",
    }
    assert set(changes) == set(Recipe.__struct_fields__)
    start = structs.replace(SPEC, recipe=structs.replace(SPEC.recipe, optimizer="rmsprop"))
    recipe = {name: structs.replace(start.recipe, **{name: value}) for name, value in changes.items()}
    assert len({start.key, *(structs.replace(SPEC, recipe=changed).key for changed in recipe.values())}) == 35


def test_order_of_options_does_not_change_the_key() -> None:
    reordered = structs.replace(SPEC, model_options={"bias": True, "sizes": [1, 2]})
    assert reordered.key == SPEC.key


def test_group_key_ignores_only_the_seed() -> None:
    seeds = {structs.replace(SPEC, seed=seed).group_key for seed in range(3)}
    assert seeds == {SPEC.group_key}
    for name, value in CHANGES.items():
        if name != "seed":
            assert structs.replace(SPEC, **{name: value}).group_key != SPEC.group_key


def test_options_of_all_splits_do_not_depend_on_the_version_of_the_record() -> None:
    older = structs.replace(SPEC, dataset_options={"draw": 1})
    newer = structs.replace(SPEC, dataset_options={"draw": 1, "weight_column": None, "folds": None, "split": None})
    fold = structs.replace(SPEC, dataset_options={"draw": 1, "folds": 5, "split": 2})
    assert older.options_of_all_splits == newer.options_of_all_splits == {"draw": 1}
    assert older.key == newer.key
    assert fold.options_of_all_splits == {"draw": 1, "folds": 5}
    assert (fold.split_title, fold.split_kind, older.split_title) == ("fold 2/5", "fold", "")


def test_options_of_two_specs_are_not_shared() -> None:
    first, second = (RunSpec(task="t", dataset="d", model="m", backend="b", recipe=Recipe()) for _ in range(2))
    first.task_options["x"] = 1
    assert second.task_options == {}


@given(specs)
def test_spec_round_trips_through_json(spec: RunSpec) -> None:
    decoded = msgspec.json.decode(msgspec.json.encode(spec), type=RunSpec)
    assert decoded == spec
    assert decoded.key == spec.key


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(records)
def test_record_round_trips_through_json(record: RunRecord) -> None:
    text = msgspec.json.format(msgspec.json.encode(record), indent=1)
    assert msgspec.json.decode(text, type=RunRecord) == record


@given(recipes, protocols)
def test_settings_round_trip_through_builtins(recipe: Recipe, protocol: Protocol) -> None:
    assert msgspec.convert(msgspec.to_builtins(recipe), Recipe) == recipe
    assert msgspec.convert(msgspec.to_builtins(protocol), Protocol) == protocol


def test_spec_is_immutable() -> None:
    with pytest.raises(AttributeError):
        SPEC.seed = 1  # type: ignore[misc]


def test_event_without_a_type_is_rejected() -> None:
    with pytest.raises(msgspec.ValidationError, match="type"):
        msgspec.json.decode(b'{"kind": "oom", "message": "x"}', type=Event)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": -1}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learning_rate": NAN}, "learning_rate"),
        ({"learning_rate": INF}, "learning_rate"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"dropout": NAN}, "dropout"),
        ({"momentum": 1.0}, "momentum"),
        ({"beta1": 1.0}, "beta1"),
        ({"beta2": 1.5}, "beta2"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"warmup_fraction": 1.1}, "warmup_fraction"),
        ({"warmup_fraction": -0.1}, "warmup_fraction"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"clip_norm": NAN}, "clip_norm"),
        ({"clip_norm": INF}, "clip_norm"),
        ({"weight_decay": -1e-9}, "weight_decay"),
        ({"weight_decay": NAN}, "weight_decay"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": INF}, "epsilon"),
        ({"l1": -0.1}, "l1"),
        ({"l1": INF}, "l1"),
        ({"optimizer": "adam", "decoupled_decay": True}, "use the optimizer adamw"),
        ({"optimizer": "lion", "decoupled_decay": True}, "always decoupled"),
        ({"schedule": "step"}, "step_size or milestones"),
        ({"schedule": "step", "step_size": 2, "milestones": (1,)}, "step_size or milestones"),
        ({"step_size": 0}, "step_size"),
        ({"milestones": (2, 1)}, "milestones"),
        ({"milestones": (0,)}, "milestones"),
        ({"gamma": 1.0}, "gamma"),
        ({"gamma": NAN}, "gamma"),
        ({"plateau_patience": 0}, "plateau_patience"),
        ({"schedule": "one_cycle"}, "warmup_fraction"),
        ({"accumulation_steps": 0}, "accumulation_steps"),
        ({"class_weights": ()}, "class_weights"),
        ({"class_weights": (1.0, 0.0)}, "class_weights"),
        ({"class_weights": (1.0, NAN)}, "class_weights"),
        ({"ema_decay": 0.0}, "ema_decay"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"loss_scale": 0.0}, "loss_scale"),
        ({"loss_scale": INF}, "loss_scale"),
        ({"frozen": ("",)}, "frozen"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"layer_decay": 1.5}, "layer_decay"),
        ({"early_stopping": 0}, "early_stopping"),
        ({"max_steps": 0}, "max_steps"),
        ({"max_seconds": 0.0}, "max_seconds"),
        ({"max_seconds": NAN}, "max_seconds"),
    ],
)
def test_recipe_with_an_invalid_value_is_rejected(values: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Recipe(**values)


def test_recipe_accepts_boundary_values() -> None:
    Recipe(epochs=1, batch_size=1, warmup_fraction=1.0, beta2=0.9999999, momentum=0.0, epsilon=0.0, clip_norm=1e-6)


def test_recipe_fields_added_later_are_part_of_the_key_unless_they_have_their_defaults() -> None:
    plain = structs.replace(SPEC, recipe=Recipe())
    stored = msgspec.json.decode(msgspec.json.encode(plain))
    del stored["recipe"]["l1"], stored["recipe"]["milestones"]
    assert key_of(stored) == plain.key
    for changed in (Recipe(l1=0.1), Recipe(monitor="loss"), Recipe(schedule="step", milestones=(3,))):
        assert structs.replace(SPEC, recipe=changed).key != plain.key


@pytest.mark.parametrize(
    "values",
    [
        {"window_s": 0.0},
        {"window_s": NAN},
        {"min_steady_s": 0.0},
        {"throughput_budget_s": INF},
        {"latency_budget_s": -1.0},
        {"min_steady_windows": 0},
        {"max_relative_half_width": 0.0},
        {"max_relative_half_width": 1.5},
        {"target": NAN},
        {"latency_batches": 0},
    ],
)
def test_protocol_with_an_invalid_value_is_rejected(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Protocol(**values)


@pytest.mark.parametrize("kind", [Recipe, Protocol, RunSpec])
def test_unknown_fields_are_rejected(kind: type[Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(b'{"epoch": 3}', type=kind)
