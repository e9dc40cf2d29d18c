"""A run with a dataset that its worker downloads first."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import MAIN
from file_server import FileServer
from toy_plugin import SET_FAST

import harness
from harness.records import Failure, Success

PLUGIN = """
import os
import harness
from harness_toy import ToyClasses

class Far(ToyClasses):
    name = "far"
    files = (harness.RemoteFile(url=os.environ["FAR_URL"], sha256=os.environ["FAR_SHA256"]),)

    def load(self, options):
        assert (harness.installed(self) / "points.bin").read_bytes() == b"points"
        return super().load(options)

@harness.hookimpl
def harness_datasets():
    yield Far()
"""


def test_run_with_remote_dataset_fails_with_reason_and_then_succeeds(
    toy: Path, cache: Path, server: FileServer, tmp_path: Path
) -> None:
    from remote_dataset import sha256

    info = tmp_path / "site" / "far-1.0.dist-info"
    info.mkdir(parents=True)
    (info.parent / "far_plugin.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: far\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[harness]\nfar = far_plugin\n")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(info.parent), os.environ["PYTHONPATH"]]),
        "FAR_URL": f"{server.url}/points.bin",
        "FAR_SHA256": sha256(b"points"),
    }

    def run(results: str) -> tuple[int, harness.RunRecord]:
        command = ["run", "--task", "toy-classify", "--dataset", "far", "--backend", "toy-numpy", "--results", results]
        done = subprocess.run(
            [*MAIN, *command, *SET_FAST],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        (tmp_path / results / "stderr").write_text(done.stderr)
        (record,) = harness.load(tmp_path / results)
        return done.returncode, record

    status, record = run("1")
    assert status == 1
    assert isinstance(record.outcome, Failure)
    assert (record.outcome.kind, record.outcome.phase) == ("error", "prepare")
    assert record.outcome.message == (
        f"dataset 'far': cannot download {server.url}/points.bin: HTTP status 404 Not Found"
    )
    assert "To provide the file yourself, save it as DIR/" in record.outcome.log_tail

    server.serve("/points.bin", b"points")
    status, record = run("2")
    assert status == 0
    assert isinstance(record.outcome, Success)
    log = next((tmp_path / "2").rglob("log.txt")).read_text()
    assert "harness: fetching dataset 'far': 1 file, unknown size" in log

    assert "downloading far: points.bin, " in (tmp_path / "2" / "stderr").read_text()

    first = record.outcome
    _, record = run("3")
    assert isinstance(record.outcome, Success)
    assert ("prepare" in first.phases_s, "prepare" in record.outcome.phases_s) == (True, False)
    assert first.scores == record.outcome.scores
    others = [peak for phase, peak in first.memory.host_peak_by_phase_bytes.items() if phase != "prepare"]
    assert first.memory.host_peak_bytes == max(others)

    (installed,) = cache.rglob("points.bin")
    installed.write_bytes(b"pointz")
    shutil.rmtree(cache / "datasets" / "far" / "prepared")
    status, record = run("4")
    assert status == 1
    assert isinstance(record.outcome, Failure)
    damage = "dataset 'far' is damaged; run: harness data clear far && harness data fetch far: "
    assert record.outcome.message.startswith(f"{damage}{installed}: expected SHA-256")


@pytest.mark.skipif(not os.environ.get("HARNESS_DATA_MIRROR"), reason="HARNESS_DATA_MIRROR is not set")
def test_installed_real_archive_comes_from_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from remote_dataset import contents, dataset

    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    sms = harness.RemoteFile(
        url="https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
        members={"SMSSpamCollection": "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"},
    )
    found = contents(harness.installed(dataset(sms, name="sms")))
    assert {name: body.count(b"\n") for name, body in found.items()} == {"SMSSpamCollection": 5574}
