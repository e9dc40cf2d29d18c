from __future__ import annotations

from typing import Any

import msgspec
from sample_records import spec

from harness.analysis.differences import changes, settings_of, titles, varying
from harness.records import PROTOCOLS, Recipe


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


def test_varying_protocols_are_named_without_the_settings_that_follow_from_the_name() -> None:
    quick, standard = (PROTOCOLS[name].protocol for name in ("quick", "standard"))
    changed = msgspec.structs.replace(quick, window_s=0.5)
    assert varying([spec(protocol=quick), spec(protocol=standard)]) == ["protocol.name"]
    assert varying([spec(protocol=changed), spec(protocol=standard)]) == ["protocol.name", "protocol.window_s"]
    before, after = settings_of(spec(protocol=quick)), settings_of(spec(protocol=standard))
    assert changes(before, after) == [("protocol.name", "quick", "standard")]


def test_titles_distinguish_the_runs_of_a_plan() -> None:
    small, large = Recipe(batch_size=16), Recipe(batch_size=32)
    specs = [
        spec(recipe=small),
        spec(recipe=large, seed=1),
        spec(recipe=small, dataset="sst2", dataset_options={"split": 1}),
        spec(backend="tensorflow", recipe=large),
    ]
    found = titles(specs)
    assert [found[one.key] for one in specs] == [
        "nlp · bert-tiny · torch · seed 0 · dataset=cldr-langid · recipe.batch_size=16",
        "nlp · bert-tiny · torch · seed 1 · dataset=cldr-langid · recipe.batch_size=32",
        "nlp · bert-tiny · torch · split 1 · seed 0 · dataset=sst2 · recipe.batch_size=16",
        "nlp · bert-tiny · tensorflow · seed 0",
    ]
