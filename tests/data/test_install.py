"""Installation of datasets from a local HTTP server that may fail; an installed dataset is always complete."""

from __future__ import annotations

import errno
import gzip
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from file_server import FileServer, status, truncated
from packed import tar_of, zip_of
from remote_dataset import contents, dataset, remote, sha256, visible

import harness
from harness.data import archives, download
from harness.data.cache import install_dir
from harness.data.install import clear, install, verify

BODY = b"sentence\tlabel\n" * 5000
PAGE = b"<!DOCTYPE html><html><head><title>Sign in, please</title></head></html>"

pytestmark = pytest.mark.usefixtures("cache")


def refused(*files: harness.RemoteFile) -> str:
    """Return the error message for files that cannot be installed, and check that no installed folder remains."""
    with pytest.raises(harness.DataError) as caught:
        harness.installed(dataset(*files))
    assert visible() == []
    return str(caught.value)


def test_installed_downloads_files_once_under_their_local_names(
    server: FileServer, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = {"0/a.png": b"a", "1/b.png": b"b"}
    served = {"/train.tsv": BODY, "/i.zip": zip_of(images), "/l.gz": gzip.compress(b"labels"), "/k.gz": b"kept"}
    urls = [server.serve(path, body) for path, body in served.items()]
    far = dataset(
        remote(urls[0], BODY),
        remote(urls[1], served["/i.zip"], extract=True),
        remote(urls[2], served["/l.gz"], extract=True, name="labels.txt.gz"),
        remote(urls[3], b"kept"),
    )
    folder = harness.installed(far)
    assert contents(folder) == {"train.tsv": BODY, **images, "labels.txt": b"labels", "k.gz": b"kept"}
    shutil.rmtree(cache / "locks")
    assert harness.installed(far) == folder
    assert server.asked == list(served)
    assert not (cache / "locks").exists(), "an installed dataset must be usable from a read-only cache"
    assert visible() == [folder.name]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "temporary files remain"
    assert "harness: fetching dataset 'far': 4 files, " in capfd.readouterr().err


def test_install_reports_progress_up_to_the_last_byte(server: FileServer) -> None:
    reports: list[tuple[str, int, int | None]] = []
    url = server.serve("/a", BODY)
    install(dataset(remote(url, BODY)), lambda *report: reports.append(report))
    assert reports[0] == ("a", 0, len(BODY))
    assert reports[-1] == ("a", len(BODY), len(BODY))


def test_installed_changed_declaration_is_downloaded_again(server: FileServer) -> None:
    old, new = (
        harness.installed(dataset(remote(server.serve(f"/{n}", n.encode()), n.encode(), name="a"))) for n in "on"
    )
    assert (contents(old), contents(new)) == ({"a": b"o"}, {"a": b"n"})


def test_installed_missing_file_names_url_reason_and_remedy(server: FileServer) -> None:
    url = f"{server.url}/gone.zip"
    message = refused(remote(url, BODY))
    assert message == (
        f"dataset 'far': cannot download {url}: HTTP status 404 Not Found\n"
        f"  tried {url}: HTTP status 404 Not Found\n"
        "  Run `harness data fetch far` to try again. To provide the file yourself, save it as "
        f"DIR/{url.removeprefix('http://')} and set HARNESS_DATA_MIRROR=DIR"
    )
    assert server.asked == ["/gone.zip"], "a missing file must not be requested again"


def test_installed_web_page_instead_of_file_is_refused(server: FileServer) -> None:
    url = server.serve("/a.tsv", PAGE)
    assert f"expected {len(BODY)} bytes, received {len(PAGE)}, a web page titled 'Sign in, please'" in refused(
        remote(url, BODY)
    )
    assert "expected SHA-256 " in refused(remote(url, BODY, bytes=None))
    assert "expected a.zip, received" in refused(
        remote(url, BODY, sha256="", name="a.zip", members={"a": sha256(b"a")})
    )


def test_installed_wrong_digest_is_refused_without_retry(server: FileServer) -> None:
    other = BODY[:-1] + b"x"
    message = refused(remote(server.serve("/a", other), BODY))
    assert f"expected SHA-256 {sha256(BODY)}, received {len(other)} bytes with SHA-256 {sha256(other)}" in message
    assert server.asked == ["/a"], "a wrong digest must not be retried"


def test_installed_more_bytes_than_declared_is_refused(server: FileServer) -> None:
    longer = BODY * 100
    assert f"expected {len(BODY)} bytes, received more" in refused(remote(server.serve("/a", longer), BODY))


@pytest.mark.parametrize("declared", [True, False])
def test_installed_truncated_response_is_retried(server: FileServer, declared: bool) -> None:
    url = server.serve("/a", truncated(BODY, declared=declared), truncated(BODY, declared=declared), BODY)
    assert contents(harness.installed(dataset(remote(url, BODY)))) == {"a": BODY}
    assert server.asked == ["/a"] * 3


def test_installed_always_truncated_response_is_refused_after_all_tries(server: FileServer) -> None:
    half = len(BODY) // 2
    assert "IncompleteRead" in refused(remote(server.serve("/a", truncated(BODY)), BODY))
    url = server.serve("/b", truncated(BODY, declared=False))
    assert f"expected {len(BODY)} bytes, received {half}" in refused(remote(url, BODY))
    assert len(server.asked) == 2 * download.TRIES


@pytest.mark.parametrize("code", [503, 429])
def test_installed_busy_server_is_retried(server: FileServer, code: int) -> None:
    url = server.serve("/a", status(code, PAGE), BODY)
    assert contents(harness.installed(dataset(remote(url, BODY)))) == {"a": BODY}


def test_installed_unreachable_server_is_reported() -> None:
    assert "Connection refused" in refused(remote("http://127.0.0.1:9/a", BODY))


def test_installed_unresponsive_server_times_out(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from file_server import held

    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(download, "TRIES", 1)
    end = threading.Event()
    message = refused(remote(server.serve("/a", held(BODY, end)), BODY))
    end.set()
    assert "timed out" in message


def test_installed_tries_alternates_in_order(server: FileServer) -> None:
    bad, good = server.serve("/wrong", b"?" * len(BODY)), server.serve("/right", BODY)
    file = remote(f"{server.url}/gone", BODY, alternates=(bad, good, f"{server.url}/never"))
    assert contents(harness.installed(dataset(file))) == {"gone": BODY}
    assert server.asked == ["/gone", "/wrong", "/right"]
    clear(dataset(file))
    message = refused(remote(f"{server.url}/gone", b"other", alternates=(good, f"{server.url}/lost")))
    assert [line.split()[1] for line in message.splitlines() if line.startswith("  tried ")] == [
        f"{server.url}/gone:",
        f"{good}:",
        f"{server.url}/lost:",
    ]


def test_installed_complete_files_are_kept_if_another_fails(server: FileServer) -> None:
    first = remote(server.serve("/first", BODY), BODY)
    second = remote(f"{server.url}/second", b"second")
    refused(first, second)
    server.serve("/second", b"second")
    assert contents(harness.installed(dataset(first, second))) == {"first": BODY, "second": b"second"}
    assert server.asked == ["/first", "/second", "/second"]


def test_installed_varying_archive_is_verified_by_members(server: FileServer) -> None:
    def declared(path: str, **members: bytes) -> harness.RemoteFile:
        digests = {name: sha256(body) for name, body in members.items()}
        return harness.RemoteFile(url=server.url + path, members=digests, bytes=999)

    for path, archive in (("/1/a.tar", tar_of({"x": b"x", "y": b"y"})), ("/2/a.zip", zip_of({"y": b"y", "x": b"x"}))):
        server.serve(path, archive)
        assert contents(harness.installed(dataset(declared(path, x=b"x")))) == {"x": b"x"}
    with pytest.raises(harness.DataError, match="the member 'x' has SHA-256"):
        harness.installed(dataset(declared("/1/a.tar", x=b"other")))


def test_installed_archive_verified_by_members_may_be_larger_than_declared(server: FileServer) -> None:
    archive = tar_of({"wanted": b"x", "unwanted": bytes(200_000)})
    file = harness.RemoteFile(url=server.serve("/a.tar", archive), members={"wanted": sha256(b"x")}, bytes=50_000)
    assert contents(harness.installed(dataset(file))) == {"wanted": b"x"}


def test_installed_malicious_archive_leaves_no_files(server: FileServer, tmp_path: Path) -> None:
    evil = tar_of({"good": b"", "../../../../evil": b"evil"})
    assert "outside the dataset's folder" in refused(remote(server.serve("/a.tar", evil), evil, extract=True))
    assert list(tmp_path.rglob("evil")) == list(tmp_path.rglob("good")) == []


def test_installed_without_digest_warns(server: FileServer, capfd: pytest.CaptureFixture[str]) -> None:
    far = dataset(harness.RemoteFile(url=server.serve("/a", BODY)))
    assert contents(harness.installed(far)) == {"a": BODY}
    assert f"no digest is declared for {server.url}/a" in capfd.readouterr().err
    assert verify(far) == []


def test_installed_two_files_with_the_same_name_are_refused(server: FileServer) -> None:
    a, b = remote(server.serve("/1/a", b"1"), b"1"), remote(server.serve("/2/a", b"2"), b"2")
    with pytest.raises(harness.PluginError, match="two files with the same name"):
        harness.installed(dataset(a, b))
    packed = tar_of({"a": b"3"})
    with pytest.raises(harness.PluginError, match="two of its files contain a"):
        harness.installed(dataset(a, remote(server.serve("/a.tar", packed), packed, extract=True)))
    assert visible() == []


# ---- disk errors ------------------------------------------------------------------------------------------


def full_disk(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_installed_without_write_permission_names_the_remedy(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(download._Counted, "write", refuse)
    message = refused(remote(server.serve("/first", b"1"), b"1"))
    assert "Permission denied; make it writable or set HARNESS_CACHE to another directory" in message


@pytest.mark.parametrize("step", ["receiving", "unpacking"])
def test_installed_full_disk_is_reported_and_freed(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    archive = zip_of({"a": BODY})
    file = remote(server.serve("/a.zip", archive), archive, extract=True)
    with monkeypatch.context() as patch:
        if step == "receiving":
            patch.setattr(download._Counted, "write", full_disk)
        else:
            patch.setattr(archives, "_copy", full_disk)
        message = refused(remote(server.serve("/first", b"1"), b"1"), file)
    assert f"cannot write to the cache {cache}: no space left on the disk; the download needs 0." in message
    assert message.endswith("free some space or set HARNESS_CACHE to another directory")
    assert list((cache / "datasets" / "far").iterdir()) == [], "the unfinished download must be deleted"
    assert contents(harness.installed(dataset(file))) == {"a": BODY}


def test_installed_without_enough_space_is_refused_before_the_download(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    assert "no space left on the disk; the download needs 0.1 MB" in refused(
        remote(server.serve("/a", BODY * 2), BODY * 2)
    )
    assert server.asked == []


def test_installed_cache_path_that_is_a_file_is_reported(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    message = refused(remote(server.serve("/a", BODY), BODY))
    assert f"cannot write to the cache {tmp_path / 'file'}: " in message


# ---- verify and clear -------------------------------------------------------------------------------------


def test_verify_lists_changed_and_missing_files(server: FileServer) -> None:
    archive = zip_of({"a": b"a", "b": b"b", "c": b"c"})
    far = dataset(remote(server.serve("/a.zip", archive), archive, extract=True))
    with pytest.raises(harness.DataError, match="'far' is not installed; run `harness data fetch far`"):
        verify(far)
    folder = harness.installed(far)
    assert verify(far) == []
    (folder / "a").write_bytes(b"A")
    (folder / "b").unlink()
    assert verify(far) == [
        f"{folder / 'a'}: expected SHA-256 {sha256(b'a')}, found {sha256(b'A')}",
        f"{folder / 'b'}: cannot be read: No such file or directory",
    ]
    (folder / ".manifest.json").write_text("{")
    assert len(verify(far)) == 1


def test_clear_deletes_complete_and_unfinished_downloads(server: FileServer) -> None:
    first, second = remote(server.serve("/a", BODY), BODY), remote(f"{server.url}/gone", b"")
    assert clear(dataset(first)) == 0
    refused(first, second)
    folder = harness.installed(dataset(first))
    assert clear(dataset(first)) > 2 * len(BODY)
    assert not folder.parent.exists()
    assert harness.installed(dataset(first)) == install_dir(dataset(first)) == folder


def test_embedded_dataset_cannot_be_installed() -> None:
    for act in (harness.installed, verify, clear):
        with pytest.raises(harness.UsageError, match="'far' has no files to download"):
            act(dataset())
