"""Fetching from a real server that behaves, or does not: a dataset is complete or it is not there."""

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
    """The message with which these files are not installed; nothing may be left that looks like a dataset."""
    with pytest.raises(harness.DataError) as caught:
        harness.installed(dataset(*files))
    assert visible() == []
    return str(caught.value)


def test_files_arrive_once_under_their_local_names(
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
    assert not (cache / "locks").exists(), "a cache that is filled may be read-only"
    assert visible() == [folder.name]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing else is left"
    assert "harness: fetching dataset 'far': 4 files, " in capfd.readouterr().err


def test_progress_reaches_the_last_byte(server: FileServer) -> None:
    heard: list[tuple[str, int, int | None]] = []
    url = server.serve("/a", BODY)
    install(dataset(remote(url, BODY)), lambda *told: heard.append(told))
    assert heard[0] == ("a", 0, len(BODY))
    assert heard[-1] == ("a", len(BODY), len(BODY))


def test_a_changed_declaration_is_fetched_anew(server: FileServer) -> None:
    old, new = (
        harness.installed(dataset(remote(server.serve(f"/{n}", n.encode()), n.encode(), name="a"))) for n in "on"
    )
    assert (contents(old), contents(new)) == ({"a": b"o"}, {"a": b"n"})


def test_the_message_names_url_reason_and_remedy(server: FileServer) -> None:
    url = f"{server.url}/gone.zip"
    message = refused(remote(url, BODY))
    assert message == (
        f"dataset 'far': {url} could not be fetched: HTTP status 404 Not Found\n"
        f"  tried {url}: HTTP status 404 Not Found\n"
        "  Run `harness data fetch far` to try again. To bring the file by hand, put it at "
        f"DIR/{url.removeprefix('http://')} and set HARNESS_DATA_MIRROR=DIR"
    )
    assert server.asked == ["/gone.zip"], "what is not there is not asked for again"


def test_a_page_that_comes_with_status_200(server: FileServer) -> None:
    url = server.serve("/a.tsv", PAGE)
    assert f"expected {len(BODY)} bytes, came {len(PAGE)}, a web page with the title 'Sign in, please'" in refused(
        remote(url, BODY)
    )
    assert "expected SHA-256 " in refused(remote(url, BODY, bytes=None))
    assert "expected a.zip, came" in refused(remote(url, BODY, sha256="", name="a.zip", members={"a": sha256(b"a")}))


def test_a_wrong_digest(server: FileServer) -> None:
    other = BODY[:-1] + b"x"
    message = refused(remote(server.serve("/a", other), BODY))
    assert f"expected SHA-256 {sha256(BODY)}, came {len(other)} bytes with SHA-256 {sha256(other)}" in message
    assert server.asked == ["/a"], "the same server would send the same bytes"


def test_more_bytes_than_declared_are_not_taken(server: FileServer) -> None:
    endless = BODY * 100
    assert f"expected {len(BODY)} bytes, more came" in refused(remote(server.serve("/a", endless), BODY))


@pytest.mark.parametrize("declared", [True, False])
def test_a_truncated_body_is_asked_for_again(server: FileServer, declared: bool) -> None:
    url = server.serve("/a", truncated(BODY, declared=declared), truncated(BODY, declared=declared), BODY)
    assert contents(harness.installed(dataset(remote(url, BODY)))) == {"a": BODY}
    assert server.asked == ["/a"] * 3


def test_a_body_that_is_always_truncated(server: FileServer) -> None:
    half = len(BODY) // 2
    assert "IncompleteRead" in refused(remote(server.serve("/a", truncated(BODY)), BODY))
    url = server.serve("/b", truncated(BODY, declared=False))
    assert f"expected {len(BODY)} bytes, came {half}" in refused(remote(url, BODY))
    assert len(server.asked) == 2 * download.TRIES


@pytest.mark.parametrize("code", [503, 429])
def test_a_busy_server_is_asked_again(server: FileServer, code: int) -> None:
    url = server.serve("/a", status(code, PAGE), BODY)
    assert contents(harness.installed(dataset(remote(url, BODY)))) == {"a": BODY}


def test_a_server_that_is_not_there() -> None:
    assert "Connection refused" in refused(remote("http://127.0.0.1:9/a", BODY))


def test_a_server_that_says_nothing(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from file_server import held

    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(download, "TRIES", 1)
    end = threading.Event()
    message = refused(remote(server.serve("/a", held(BODY, end)), BODY))
    end.set()
    assert "timed out" in message


def test_alternates_in_their_order(server: FileServer) -> None:
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


def test_whole_files_outlive_the_failure_of_another(server: FileServer) -> None:
    first = remote(server.serve("/first", BODY), BODY)
    second = remote(f"{server.url}/second", b"second")
    refused(first, second)
    server.serve("/second", b"second")
    assert contents(harness.installed(dataset(first, second))) == {"first": BODY, "second": b"second"}
    assert server.asked == ["/first", "/second", "/second"]


def test_members_are_verified_where_the_container_varies(server: FileServer) -> None:
    def declared(path: str, **members: bytes) -> harness.RemoteFile:
        digests = {name: sha256(body) for name, body in members.items()}
        return harness.RemoteFile(url=server.url + path, members=digests, bytes=999)

    for path, archive in (("/1/a.tar", tar_of({"x": b"x", "y": b"y"})), ("/2/a.zip", zip_of({"y": b"y", "x": b"x"}))):
        server.serve(path, archive)
        assert contents(harness.installed(dataset(declared(path, x=b"x")))) == {"x": b"x"}
    with pytest.raises(harness.DataError, match="its member 'x' has SHA-256"):
        harness.installed(dataset(declared("/1/a.tar", x=b"other")))


def test_a_container_may_be_larger_than_the_one_we_saw(server: FileServer) -> None:
    """Such as one with material that no member asks for."""
    archive = tar_of({"wanted": b"x", "unwanted": bytes(200_000)})
    file = harness.RemoteFile(url=server.serve("/a.tar", archive), members={"wanted": sha256(b"x")}, bytes=50_000)
    assert contents(harness.installed(dataset(file))) == {"wanted": b"x"}


def test_an_archive_that_leads_out_leaves_nothing(server: FileServer, tmp_path: Path) -> None:
    evil = tar_of({"good": b"", "../../../../evil": b"evil"})
    assert "outside of the dataset's folder" in refused(remote(server.serve("/a.tar", evil), evil, extract=True))
    assert list(tmp_path.rglob("evil")) == list(tmp_path.rglob("good")) == []


def test_without_a_digest_a_warning_says_so(server: FileServer, capfd: pytest.CaptureFixture[str]) -> None:
    far = dataset(harness.RemoteFile(url=server.serve("/a", BODY)))
    assert contents(harness.installed(far)) == {"a": BODY}
    assert f"the digest of {server.url}/a is not known" in capfd.readouterr().err
    assert verify(far) == []


def test_two_files_that_would_be_one_are_refused(server: FileServer) -> None:
    a, b = remote(server.serve("/1/a", b"1"), b"1"), remote(server.serve("/2/a", b"2"), b"2")
    with pytest.raises(harness.PluginError, match="two files of one name"):
        harness.installed(dataset(a, b))
    packed = tar_of({"a": b"3"})
    with pytest.raises(harness.PluginError, match="two of its files hold a"):
        harness.installed(dataset(a, remote(server.serve("/a.tar", packed), packed, extract=True)))
    assert visible() == []


# ---- the disk ---------------------------------------------------------------------------------------------


def full_disk(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_cache_that_may_not_be_written(server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(download._Counted, "write", refuse)
    message = refused(remote(server.serve("/first", b"1"), b"1"))
    assert "Permission denied; make it writable or set HARNESS_CACHE to another directory" in message


@pytest.mark.parametrize("step", ["receiving", "unpacking"])
def test_a_full_disk(server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    archive = zip_of({"a": BODY})
    file = remote(server.serve("/a.zip", archive), archive, extract=True)
    with monkeypatch.context() as patch:
        if step == "receiving":
            patch.setattr(download._Counted, "write", full_disk)
        else:
            patch.setattr(archives, "_copy", full_disk)
        message = refused(remote(server.serve("/first", b"1"), b"1"), file)
    assert f"cannot write to the cache {cache}: no space left; the download is 0." in message
    assert message.endswith("make room or set HARNESS_CACHE to another directory")
    assert list((cache / "datasets" / "far").iterdir()) == [], "the space is given back"
    assert contents(harness.installed(dataset(file))) == {"a": BODY}


def test_too_little_space_is_seen_before_the_download(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    assert "no space left; the download is 0.1 MB" in refused(remote(server.serve("/a", BODY * 2), BODY * 2))
    assert server.asked == []


def test_a_cache_that_cannot_be_written(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    message = refused(remote(server.serve("/a", BODY), BODY))
    assert f"cannot write to the cache {tmp_path / 'file'}: " in message


# ---- afterwards -------------------------------------------------------------------------------------------


def test_verify_finds_what_changed(server: FileServer) -> None:
    archive = zip_of({"a": b"a", "b": b"b", "c": b"c"})
    far = dataset(remote(server.serve("/a.zip", archive), archive, extract=True))
    with pytest.raises(harness.DataError, match="'far' is not here; run `harness data fetch far`"):
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


def test_clear_frees_finished_and_unfinished(server: FileServer) -> None:
    first, second = remote(server.serve("/a", BODY), BODY), remote(f"{server.url}/gone", b"")
    assert clear(dataset(first)) == 0
    refused(first, second)
    folder = harness.installed(dataset(first))
    assert clear(dataset(first)) > 2 * len(BODY)
    assert not folder.parent.exists()
    assert harness.installed(dataset(first)) == install_dir(dataset(first)) == folder


def test_an_embedded_dataset_has_nothing_to_install() -> None:
    for act in (harness.installed, verify, clear):
        with pytest.raises(harness.UsageError, match="'far' is embedded"):
            act(dataset())
