"""The mirror, the cache and the lock, which processes share, and offline mode."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from file_server import FileServer, held
from remote_dataset import contents, dataset, remote, visible

import harness
from harness.data.cache import cache_dir, out_of_reach, state
from harness.data.install import verify
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog, Provided
from harness.records import PluginRef

BODY = bytes(range(256)) * 400
PUBLISHER = "https://data.invalid/~me/a+b%20c.zip?v=1/2"
KEPT = "data.invalid/~me/a+b c.zip?v=1%2F2"

pytestmark = pytest.mark.usefixtures("cache")

FETCH = """
import sys
from pathlib import Path
from remote_dataset import dataset, remote
import harness
files = [remote(url, Path(sys.argv[1]).read_bytes()) for url in sys.argv[2:]]
print(harness.installed(dataset(*files)))
"""


def start(tmp_path: Path, *urls: str) -> subprocess.Popen[str]:
    body = tmp_path / "body"
    body.write_bytes(BODY)
    helpers = str(Path(__file__).parents[1] / "helpers")
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, str(body), *urls],
        env={**os.environ, "PYTHONPATH": helpers},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_installed_uses_mirror_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "mirror" / KEPT
    kept.parent.mkdir(parents=True)
    kept.write_bytes(BODY)
    monkeypatch.setenv("HARNESS_DATA_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    far = dataset(remote(PUBLISHER, BODY))
    assert out_of_reach(far) is None
    assert contents(harness.installed(far)) == {"a+b_c.zip": BODY}
    assert kept.read_bytes() == BODY


def test_installed_uses_mirror_server(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve("/pub/data.invalid/~me/a+b%20c.zip%3Fv=1%252F2", BODY)
    monkeypatch.setenv("HARNESS_DATA_MIRROR", f"{server.url}/pub/")
    assert contents(harness.installed(dataset(remote(PUBLISHER, BODY)))) == {"a+b_c.zip": BODY}


@pytest.mark.parametrize("kept", [None, b"something else"])
def test_installed_mirror_without_the_right_file_falls_back_to_the_publisher(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bytes | None
) -> None:
    mirror = tmp_path / "mirror"
    mirrored = mirror / server.url.removeprefix("http://") / "a"
    mirrored.parent.mkdir(parents=True)
    if kept is not None:
        mirrored.write_bytes(kept)
    monkeypatch.setenv("HARNESS_DATA_MIRROR", str(mirror))
    file = remote(server.serve("/a", BODY), BODY)
    assert contents(harness.installed(dataset(file))) == {"a": BODY}
    with pytest.raises(harness.DataError) as caught:
        harness.installed(dataset(remote(f"{server.url}/b", b"")))
    assert f"tried {mirrored.with_name('b')}: No such file or directory" in str(caught.value)


def test_installed_missing_mirror_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA_MIRROR", str(tmp_path / "mirrror"))
    with pytest.raises(harness.UsageError, match=r"mirrror: the directory does not exist; set the variable to"):
        harness.installed(dataset(remote(PUBLISHER, BODY)))


def test_installed_offline_sends_no_request(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = dataset(remote(server.serve("/a", BODY), BODY))
    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    monkeypatch.setenv("HARNESS_DATA_MIRROR", server.url)
    with pytest.raises(harness.DataError) as caught:
        harness.installed(far)
    assert str(caught.value) == (
        f"dataset 'far' is not available: it is not in the cache ({cache_dir()}), and HARNESS_OFFLINE is set; unset "
        "HARNESS_OFFLINE, or run `harness data fetch far` with network access and the same HARNESS_CACHE"
    )
    assert (server.asked, visible()) == ([], [])
    monkeypatch.setenv("HARNESS_DATA_MIRROR", str(tmp_path))
    with pytest.raises(
        harness.DataError, match=rf"the mirror does not contain {tmp_path}/127\.0\.0\.1:\d+/a, and HARNESS_OFFLINE"
    ):
        harness.installed(far)
    monkeypatch.setenv("HARNESS_OFFLINE", "0")
    monkeypatch.delenv("HARNESS_DATA_MIRROR")
    assert state(far) == "to fetch"
    folder = harness.installed(far)
    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    assert (state(far), harness.installed(far)) == ("cached", folder)


def test_expand_offline_reports_unavailable_dataset(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toy_plugin import TOY_REF

    from harness.plugins import load

    catalog: Catalog = load([TOY_REF])
    ref = PluginRef(name="far", value="far", distribution="far", version="1")
    catalog.datasets["far"] = Provided(dataset(remote(PUBLISHER, BODY)), ref)
    selection = Selection(tasks=("toy-classify",), datasets=("far",), backends=("toy-numpy",))
    assert len(expand(selection, catalog)) == 1, "planning must not need the network"
    with monkeypatch.context() as patch:
        patch.setenv("HARNESS_DATA_MIRROR", "/no/such/mirror")
        with pytest.raises(
            harness.UsageError, match="HARNESS_DATA_MIRROR=/no/such/mirror: the directory does not exist"
        ):
            expand(selection, catalog)
    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    with pytest.raises(harness.UsageError, match="dataset 'far' is not available: it is not in the cache"):
        expand(selection, catalog)


def test_installed_concurrent_processes_download_once(server: FileServer, tmp_path: Path) -> None:
    finish, started = threading.Event(), threading.Event()
    url = server.serve("/a", held(BODY, finish, started))
    first = start(tmp_path, url)
    assert started.wait(60)
    second = start(tmp_path, url)
    assert second.stderr is not None
    assert "another process is fetching dataset 'far'; waiting for it" in second.stderr.readline()
    assert (visible(), server.asked) == ([], ["/a"])
    finish.set()
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert outputs[0] == outputs[1] != ""
    assert contents(Path(outputs[0].strip())) == {"a": BODY}
    assert server.asked == ["/a"]


def test_installed_killed_process_leaves_no_incomplete_dataset(server: FileServer, tmp_path: Path) -> None:
    never, started = threading.Event(), threading.Event()
    whole, half = server.serve("/whole", BODY), server.serve("/half", held(BODY, never, started))
    process = start(tmp_path, whole, half)
    assert started.wait(60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert visible() == []
    never.set()
    server.serve("/half", BODY)
    folder = harness.installed(dataset(remote(whole, BODY), remote(half, BODY)))
    assert contents(folder) == {"whole": BODY, "half": BODY}
    assert server.asked == ["/whole", "/half", "/half"], "the complete file must be kept"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("last", range(1, 11))
def test_installed_killed_at_any_step_resumes(server: FileServer, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """Every step is a rename: two per file, one per file to merge them, and the last one. A KeyboardInterrupt simulates
    the end of the process."""
    far = dataset(*(remote(server.serve(f"/{name}", BODY), BODY) for name in "abc"))
    calls = 0
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == last:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            harness.installed(far)
    assert visible() == []
    assert contents(harness.installed(far)) == dict.fromkeys("abc", BODY)
    assert verify(far) == []


def test_cache_dir_follows_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", "~/some")
    assert cache_dir() == Path.home() / "some"
    monkeypatch.delenv("HARNESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert cache_dir() == tmp_path / "harness"
