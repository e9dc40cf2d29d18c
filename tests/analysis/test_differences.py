from __future__ import annotations

from typing import Any

from sample_records import spec

from harness.analysis.differences import settings_of, varying


def test_settings_of_names_the_options_of_task_dataset_and_model() -> None:
    run = spec(task_options={"max_length": 64}, dataset_options={"split": 1, "noise": 0.5}, model_options={"depth": 2})
    settings = settings_of(run)
    named = {name: settings.get(name) for name in ("task.max_length", "dataset.noise", "model.depth")}
    assert named == {"task.max_length": "64", "dataset.noise": "0.5", "model.depth": "2"}
    assert not [name for name in settings if name.endswith("_options")]


def test_varying_ignores_options_that_older_records_lack() -> None:
    added = dict.fromkeys(("weight_column", "folds", "fold_column", "random_splits", "split"))
    options: list[dict[str, Any]] = [{"sha256": "0"}, {"sha256": "0", **added}, {"sha256": "0", **added, "folds": 3}]
    assert varying([spec(dataset_options=each) for each in options[:2]]) == []
    assert varying([spec(dataset_options=each) for each in options]) == ["dataset.folds"]


def test_varying_ignores_the_split() -> None:
    assert varying([spec(dataset_options={"split": number}) for number in (0, 1)]) == []
