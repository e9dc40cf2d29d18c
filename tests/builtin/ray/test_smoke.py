"""A fast test of the executor on a real cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import gone
from ray_cluster import Log, gated_specs, ray_catalog, ray_cluster, run_on

from harness.execute.runner import run_all
from harness.records import Success
from harness.records.store import Store

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.plugins("ray")


def test_runs_on_two_nodes_are_stored_like_local_ones_although_a_worker_is_killed(tmp_path: Path) -> None:
    with ray_cluster(tmp_path, 2) as nodes:
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
