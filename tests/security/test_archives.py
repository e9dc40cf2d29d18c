"""Tests of the limits on archives, bundles and downloads, before and while they are read."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from file_server import FileServer, file_server, whole
from packed import tar_of, zip_of

from harness.data import archives, download, prepared_cache
from harness.data.archives import extract
from harness.errors import DataError, RecordError
from harness.interfaces import PreparedData, Split
from harness.interfaces.remote import RemoteFile
from harness.measure import roofline
from harness.records import DataInfo, InputSpec
from harness.records import arrays as stored_arrays
from harness.records.arrays import read_arrays
from harness.records.zip_index import index_bytes
from harness.report.bundle import unpack as unpacking
from harness.report.bundle.unpack import unpack


def _header_of(kind: bytes, size: int) -> bytes:
    """Return a tar archive whose first member is a header with this many bytes of zeros."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(size)


KINDS = {"longname": tarfile.GNUTYPE_LONGNAME, "longlink": tarfile.GNUTYPE_LONGLINK, "pax": tarfile.XHDTYPE}
KINDS |= {"global pax": tarfile.XGLTYPE, "solaris": tarfile.SOLARIS_XHDTYPE}
PACK: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", PACK)
def test_tar_header_bomb_is_refused_without_allocating(form: str, kind: str, tmp_path: Path) -> None:
    content = PACK[form](_header_of(KINDS[kind], 40 * 2**20))
    path = tmp_path / f"a.tar.{form}"
    path.write_bytes(content)
    (tmp_path / "out").mkdir()
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="rejected: a header has"):
            extract(path, path.name, tmp_path / "out", {})
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_members_that_are_not_wanted_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MIN_LIMIT_BYTES", 1000)
    monkeypatch.setattr(archives, "_TAR_OVERHEAD_BYTES", 10_000)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_of({"skipped": bytes(10**7), "wanted": b"x"})))
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="may be a decompression bomb"):
        extract(tmp_path / "a.tar.gz", "a.tar.gz", tmp_path / "out", {"wanted": "0" * 64})


@pytest.mark.parametrize("name", ["", "/", ".", "./", "a\0b", "n" * 300, "a/" * 3000 + "b", "..", "\udcff"])
def test_zip_member_with_a_bad_name_is_a_data_error(name: str, tmp_path: Path) -> None:
    content = zip_of({"ok.txt": b"x", "XXXX": b"y"}) if not name else b""
    if name:
        try:
            content = zip_of({"ok.txt": b"x", name: b"y"})
        except (UnicodeEncodeError, ValueError):
            pytest.skip("zipfile does not write this name")
    else:  # remove the name from both headers
        content = content.replace(b"XXXX", b"").replace(struct.pack("<H", 4) + struct.pack("<H", 0), bytes(4))
    (tmp_path / "a.zip").write_bytes(content)
    (tmp_path / "out").mkdir()
    with contextlib.suppress(DataError):
        extract(tmp_path / "a.zip", "a.zip", tmp_path / "out", {})
    assert all(tmp_path / "out" in path.parents for path in (tmp_path / "out").rglob("*"))


def _damaged(data: bytes) -> Iterator[bytes]:
    for place in range(0, len(data), max(1, len(data) // 60)):
        yield data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
        yield data[:place]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.gz"])
def test_damaged_archive_is_a_data_error(name: str, tmp_path: Path) -> None:
    files = {"one.txt": b"1" * 2000, "two/three.txt": b"2" * 10}
    data = {"a.zip": zip_of(files), "a.tar": tar_of(files), "a.gz": gzip.compress(b"x" * 5000)}
    data["a.tar.gz"] = gzip.compress(data["a.tar"])
    for number, content in enumerate(_damaged(data[name])):
        (tmp_path / name).write_bytes(content)
        (tmp_path / str(number)).mkdir()
        try:
            extract(tmp_path / name, name, tmp_path / str(number), {})
        except DataError:
            continue


def test_zip_with_an_oversized_list_of_members_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = zip_of({f"{number}.txt": b"" for number in range(2000)})
    (tmp_path / "a.zip").write_bytes(data)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(archives, "MAX_INDEX_BYTES", 50_000)
    with pytest.raises(DataError, match="list of members"):
        extract(tmp_path / "a.zip", "a.zip", tmp_path / "out", {})
    monkeypatch.setattr(unpacking, "MAX_INDEX_BYTES", 50_000)
    with pytest.raises(RecordError, match="list of members"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("count", [1, 100, 70_000])
def test_size_of_the_list_of_members_is_that_of_zipfile(count: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(count):
            archive.writestr(f"{number}", b"")
        start = archive.start_dir
    size = index_bytes(buffer)
    assert start + size <= len(buffer.getvalue()) <= start + size + 200


def _many_members(count: int) -> bytes:
    """Return a zip archive whose list repeats one entry without a name, and declares that there is one entry."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[0] * 16)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, count * len(entry), 0, 0)
    return count * entry + end


def test_members_are_counted_before_the_list_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`zipfile` needs ten times the size of the list in memory, whatever number of members the archive declares."""
    path = tmp_path / "a.zip"
    path.write_bytes(_many_members(200_000))
    monkeypatch.setattr(archives, "MAX_MEMBERS", 100_000)
    monkeypatch.setattr(unpacking, "MAX_FILES", 100_000)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="it has more than 100000 members"):
            extract(path, path.name, tmp_path / "out", {})
        with pytest.raises(RecordError, match="it has more than 100000 members"):
            unpack(path, tmp_path / "out")
        with pytest.raises(RecordError, match=f"it has more than {stored_arrays.MAX_ARRAYS} members"):
            read_arrays(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_bundle_with_many_repeated_names_is_refused_at_once(tmp_path: Path) -> None:
    names = [f"records/{number}" for number in range(30_000)]
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for name in [*names, names[-1]]:
            archive.filelist.append(zipfile.ZipInfo(name))
        for info in archive.filelist:
            info.header_offset = info.CRC = 0
        archive._didModify = True
    start = time.monotonic()
    with pytest.raises(RecordError, match="contains 'records/29999' more than once"):
        unpack(tmp_path / "b.zip", tmp_path / "out")
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("parts", [1, 2])
def test_dictionary_beyond_the_limit_is_refused(parts: int, tmp_path: Path) -> None:
    """The second stream of a file has its own dictionary."""
    content = tar_of({"a.txt": b"x" * 3000})
    # The encoder would allocate ten times the dictionary, so only the size in the header is changed.
    small = lzma.compress(content[1024:] if parts == 2 else content, check=lzma.CHECK_NONE)
    large = small.replace(b"\x21\x01\x16", b"\x21\x01\x22", 1)  # 512 MiB
    header = large[12:20]
    large = large[:20] + zlib.crc32(header).to_bytes(4, "little") + large[24:]
    assert large != small
    head = lzma.compress(content[:1024]) if parts == 2 else b""
    path = tmp_path / "a.tar.xz"
    path.write_bytes(head + large)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="Memory usage limit"):
        extract(path, path.name, tmp_path / "out", {})


@pytest.mark.parametrize("pad", [b"", bytes(8)])
def test_xz_file_with_several_streams_is_extracted(pad: bytes, tmp_path: Path) -> None:
    files = {f"{number}.bin": bytes([number]) * (100_000 + number) for number in range(40)}
    content = tar_of(files)
    cut = len(content) // 3
    path = tmp_path / "a.tar.xz"
    path.write_bytes(lzma.compress(content[:cut]) + pad + lzma.compress(content[cut:]) + pad)
    (tmp_path / "out").mkdir()
    extract(path, path.name, tmp_path / "out", {})
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == files


def test_zip_members_with_lzma_are_refused(tmp_path: Path) -> None:
    """Their dictionaries may have 4 GiB, and `zipfile` has no limit on it."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", b"x")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="uses compression method 14"):
        extract(tmp_path / "a.zip", "a.zip", tmp_path / "out", {})
    with pytest.raises(RecordError, match="uses a compression method that is not allowed in bundles"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    with pytest.raises(RecordError, match="unsupported compression method"):
        read_arrays(tmp_path / "a.zip")


def test_bundle_that_expands_a_thousandfold_is_refused(tmp_path: Path) -> None:
    from hashlib import sha256

    import msgspec

    from harness.report.bundle.manifest import MANIFEST, BundleEntry, BundleManifest

    zeros = bytes(100 * 2**20)
    entry = BundleEntry(bytes=len(zeros), sha256=sha256(zeros).hexdigest())
    manifest = BundleManifest(harness_version="0", made_at="", title="", runs=0, files={"records/x": entry})
    (tmp_path / "b.zip").write_bytes(zip_of({MANIFEST: msgspec.json.encode(manifest), "records/x": zeros}))
    with pytest.raises(RecordError, match="but the limit is"):
        unpack(tmp_path / "b.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- downloads ------------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as made:
        yield made


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    monkeypatch.delenv("HARNESS_DATA_MIRROR", raising=False)


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(bytes(2**16))
    except OSError:
        pass


def announced(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(10**15))
    request.end_headers()


def drip(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(600):
            request.wfile.write(b"x")
            request.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


def header_drip(request: BaseHTTPRequestHandler) -> None:
    try:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(600):
            request.wfile.write(b"x")
            request.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


def redirect_to(location: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", location)
        request.end_headers()

    return answer


def garbage(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"\x00\xff not http\r\n\r\n")


def bad_encoding(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Encoding", "gzip")
    request.end_headers()
    request.wfile.write(b"not gzip")


def status(number: int) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(number)
        request.end_headers()
        if number != 204:
            request.wfile.write(b"a part")

    return answer


def encoded(encoding: str, content: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Encoding", encoding)
        request.end_headers()
        request.wfile.write(content)

    return answer


def continues(request: BaseHTTPRequestHandler) -> None:
    with contextlib.suppress(OSError):
        request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000)


BAD: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {
    "endless": endless,
    "announced": announced,
    "drip": drip,
    "header drip": header_drip,
    "garbage": garbage,
    "bad encoding": bad_encoding,
    "redirect to a bad address": redirect_to("http://[::bad"),
    "redirect to a bad host": redirect_to("http://.../x"),
    "redirect to a long label": redirect_to(f"http://{'a' * 70}.invalid/"),
    "redirect to a file": redirect_to("file:///etc/passwd"),
    "redirect to data": redirect_to("data:,x"),
    "redirect without an end": redirect_to("/bad"),
    "redirect to nothing": redirect_to(""),
    "a part of the file": status(206),
    "no content": status(204),
    "unknown encoding": encoded("zstd", b"x"),
    "nested encodings": encoded("gzip, gzip", gzip.compress(gzip.compress(bytes(2**25)))),
    "compressed bomb": encoded("gzip", gzip.compress(bytes(2**25))),
    "headers without an end": continues,
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_source_falls_back_to_the_next_one(
    bad: str, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MAX_UNDECLARED_BYTES", 2**20)
    monkeypatch.setattr(download, "RATE_S", 0.3)
    monkeypatch.setattr(download, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(download, "TRIES", 1)
    first, second = server.serve("/bad", BAD[bad]), server.serve("/good", b"content")
    start = time.monotonic()
    file = RemoteFile(url=first, alternates=(second,), name="data.txt")
    assert download.obtain(file, tmp_path / "out", lambda *_: None) == second
    assert (tmp_path / "out" / "data.txt").read_bytes() == b"content"
    assert time.monotonic() - start < 20


def test_download_ends_at_the_deadline(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "DEADLINE_S", 0.3)
    url = server.serve("/slow", drip)
    with pytest.raises(DataError, match="did not finish within"):
        download.obtain(RemoteFile(url=url, name="data.txt"), tmp_path / "out", lambda *_: None)


@pytest.mark.parametrize("kind", ["pipe", "directory", "device"])
def test_mirror_without_a_regular_file_falls_back(
    kind: str, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from harness.interfaces.remote import mirror_path

    url = server.serve("/good", whole(b"content"))
    place = tmp_path / "mirror" / mirror_path(url)
    place.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero")
    monkeypatch.setenv("HARNESS_DATA_MIRROR", str(tmp_path / "mirror"))
    assert download.obtain(RemoteFile(url=url, name="data.txt"), tmp_path / "out", lambda *_: None) == url


# ---- files in the cache ---------------------------------------------------------------------------------------------

DAMAGE = [
    b"",
    b"\xff",
    b"{}",
    b"null",
    b"[" * 10**5,
    b'{"backend": "\xff"}',
    b"\0" * 1000,
    "pipe",
    "directory",
    "zeros",
]


def plant(path: Path, damage: bytes | str) -> None:
    import os

    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
def test_damaged_roofline_does_not_end_a_run(
    damage: bytes | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sample_records import record, success

    monkeypatch.setattr(roofline, "_path", lambda *_: tmp_path / "roofline.json")
    plant(tmp_path / "roofline.json", damage)
    assert roofline.lookup(record(success()), ("torch",)) is None


@pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
def test_damaged_metadata_of_prepared_data_are_prepared_again(
    damage: bytes | str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path / "a-b" / prepared_cache.META, damage)
    assert prepared_cache.load(tmp_path / "a-b") is None
    assert "are damaged" in capsys.readouterr().err


@pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
def test_damaged_copy_of_the_plotting_library_is_not_used(
    damage: bytes | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vl_convert

    from harness.report.plots import embedding

    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda _: "the library")
    assert embedding.vega() == b"the library"
    (cached,) = (tmp_path / "site").iterdir()
    cached.unlink()
    plant(cached, damage)
    assert embedding.vega() == b"the library"


# ---- the cache of prepared data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("large", [False, True])
def test_every_changed_byte_of_a_cache_entry_is_noticed(
    large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepared_cache, "IN_MEMORY_BYTES", 0 if large else 2**30)
    rng = np.random.default_rng(0)
    folder = tmp_path / "a-b"
    split = Split(inputs={"x": np.ones((10, 4), np.float32)}, targets=np.arange(10), groups={})
    form = {"x": InputSpec(shape=(4,), dtype="float32")}
    info = DataInfo(kind="points", inputs=form, objective="classification", outputs=10)
    prepared_cache.save(folder, PreparedData(train=split, validation=split, test=split, info=info, digest="d" * 64))
    assert prepared_cache.load(folder) is not None
    for path in sorted(folder.iterdir()):
        whole_file = path.read_bytes()
        for place in {0, len(whole_file) - 1, *rng.integers(0, len(whole_file), 12).tolist()}:
            prepared_cache._verified.clear()
            path.write_bytes(whole_file[:place] + bytes([whole_file[place] ^ 1]) + whole_file[place + 1 :])
            loaded = prepared_cache.load(folder)
            if loaded is not None:  # padding in the header of a .npy file
                assert path.suffix == ".npy"
                assert place < 128
        path.write_bytes(whole_file)
    assert "are damaged" in capsys.readouterr().err
    assert prepared_cache.load(folder) is not None
