"""Tests of single trials: they do not use the test split, and a pruned trial is stopped and recorded with its curve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from toy_runs import toy_specs

from harness.execute import worker
from harness.execute.attempt import execute_run
from harness.execute.child import ChildContext
from harness.execute.resume import decide
from harness.interfaces import PlannedRun, TrialPruned
from harness.measure import training
from harness.plugins.catalog import Catalog
from harness.records import EpochEnded, Event, Success, Trial
from harness.records.store import ARRAYS, Store


def planned(catalog: Catalog, **changes: Any) -> PlannedRun:
    (spec,) = toy_specs(catalog, *changes.pop("overrides", ()), **changes)
    return PlannedRun(index=1, total=1, spec=spec, plugins=catalog.refs_for(spec), timeout_s=60, trial="quality")


def test_trial_has_no_test_examples_and_no_test_scores(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is executed in this process, so that the data that it trains and scores on can be examined."""
    seen: list[Any] = []
    train = training.train

    def watched(session: Any, data: Any, *arguments: Any, **more: Any) -> Any:
        seen.append(data)
        return train(session, data, *arguments, **more)

    monkeypatch.setattr(training, "train", watched)
    run = planned(catalog)
    job = worker.RunJob(spec=run.spec, plugins=run.plugins, trial="quality")
    record = worker.carry_out(job, ChildContext(tmp_path, lambda event: None, lambda result: None))
    (data,) = seen
    assert [len(split) for split in (data.train, data.validation, data.test)] == [160, 40, 0]
    outcome = record.outcome
    assert isinstance(outcome, Trial), outcome
    assert outcome.state == "complete"
    assert outcome.validation["rmse"] == outcome.curves[-1].validation["rmse"]
    assert set(outcome.validation) == {"rmse", "mae", "r2"}
    assert (outcome.examples, outcome.steps, outcome.planned_steps) == ({"train": 160, "validation": 40}, 30, 30)
    assert "test" not in json.loads(msgspec.json.encode(outcome))["examples"]
    with np.load(tmp_path / ARRAYS) as arrays:
        assert {name.partition("_")[0] for name in arrays} == {"train", "sampling", "validation"}


def test_trial_trains_like_a_complete_run(catalog: Catalog, tmp_path: Path) -> None:
    run = planned(catalog)
    curves = []
    for trial in ("quality", "speed", None):
        (folder := tmp_path / str(trial)).mkdir()
        job = worker.RunJob(spec=run.spec, plugins=run.plugins, trial=trial)  # type: ignore[arg-type]
        record = worker.carry_out(job, ChildContext(folder, lambda event: None, lambda result: None))
        assert isinstance(record.outcome, Trial | Success)
        curves.append([(each.step, each.train_loss, each.validation) for each in record.outcome.curves])
        if trial == "speed":
            assert isinstance(record.outcome, Trial)
            assert record.outcome.train_samples_per_s
    assert curves[0] == curves[1] == curves[2]


def test_trial_that_is_pruned_is_ended_and_recorded_with_its_curve(catalog: Catalog, tmp_path: Path) -> None:
    run = planned(catalog, overrides=("recipe.epochs=2000",))
    epochs: list[EpochEnded] = []

    def prune(event: Event) -> None:
        if isinstance(event, EpochEnded):
            epochs.append(event)
            if event.epoch == 2:
                raise TrialPruned

    results = Store(tmp_path / "results")
    results.prepare()
    with results.scratch() as scratch:
        record = execute_run(run, scratch, prune)
        assert record.outcome == Trial(state="pruned", metric="rmse", curves=epochs)
        assert [each.epoch for each in epochs] == [1, 2]
        assert record.outcome.planned_steps == 2000 * record.outcome.steps // 2
        assert not (scratch / ARRAYS).exists()
        stored = results.commit(scratch, msgspec.structs.replace(record, request_key=run.spec.key))
    assert [each.record for each in results.load().runs] == [stored.record]
    (decision,) = decide([run.spec], catalog, results)
    assert (decision.stored, decision.reason) == (None, "")  # a trial does not replace a complete run
