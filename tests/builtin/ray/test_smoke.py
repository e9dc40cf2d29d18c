"""A fast test of the executor on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import gone
from ray_cluster import Log, Nodes, gated_specs, ray_catalog, ray_cluster, run_on

from harness.execute.runner import run_all
from harness.plan.selection import Selection
from harness.records import Success, Trial
from harness.records.store import Store
from harness.tuning.driver import tune
from harness.tuning.open_study import Settings
from harness.tuning.request import Tuning, plan
from harness.tuning.sampling import Asked
from harness.tuning.study import TRIALS, directory

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.plugins("ray")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with ray_cluster(tmp_path_factory.mktemp("cluster"), 2) as cluster:
        yield cluster


def test_runs_on_two_nodes_are_stored_like_local_ones_although_a_worker_is_killed(nodes: Nodes, tmp_path: Path) -> None:
    specs = gated_specs(ray_catalog(), seeds=3)
    store, log = Store(tmp_path / "results"), Log()
    killed = []

    def kill_one_worker() -> None:
        child = nodes.gated(2)[0]
        child.parent().kill()
        killed.append(gone(child.pid))
        nodes.open_gate()

    import threading

    thread = threading.Thread(target=kill_one_worker)
    thread.start()
    returned = run_on(nodes, specs, store, log)
    thread.join()
    assert killed == [True]
    local = run_all(specs, ray_catalog(), Store(tmp_path / "local"), timeout_s=60)
    assert [run.record for run in store.load().runs] == sorted(returned, key=lambda record: record.started_at)
    assert len([text for text in log.messages if "was lost" in text]) == 2  # the node and the run
    for one, other in zip(returned, local, strict=True):
        assert isinstance(one.outcome, Success)
        assert isinstance(other.outcome, Success)
        assert one.outcome.scores == other.outcome.scores
        assert (one.key, one.run_id, one.provenance) == (other.key, other.run_id, other.provenance)
        assert one.environment.packages == other.environment.packages


def test_trials_on_two_nodes_are_pruned(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, log = ray_catalog(), Log()
    monkeypatch.setattr(Asked, "is_hopeless", lambda self, epoch, value: epoch >= 2)
    request = Tuning(
        selection=Selection(
            tasks=("toy-regress",), backends=("toy-numpy",), threads=1, overrides=("recipe.epochs=1000000",)
        ),
        search=("recipe.learning_rate=log:1e-3:1.0",),
        trials=2,
        confirm=0,
        jobs=2,
        executor="ray",
        executor_options={"address": nodes.address},
    )
    store = Store(tmp_path / "results")
    (study,) = tune(plan(request, catalog), catalog, store, Settings(timeout_s=120), log).studies
    assert sorted(log.started) == [1, 2]
    assert [each.state for each in study.trials] == ["pruned", "pruned"]
    runs = {run.record.run_id: run.record for run in Store(directory(store.path, study.name) / TRIALS).load().runs}
    assert runs.keys() == {each.run_id for each in study.trials}
    for each in study.trials:
        outcome = runs[each.run_id].outcome
        assert isinstance(outcome, Trial)
        assert [epoch.epoch for epoch in outcome.curves] == list(range(1, each.epochs + 1))
        assert 2 <= each.epochs < 1_000_000
