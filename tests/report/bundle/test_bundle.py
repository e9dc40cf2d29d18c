"""Tests of bundles: round trips, and rejection of modified archives."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_records import comparison
from sample_store import hostile, report_of, write

from harness.errors import RecordError
from harness.records.store import Store
from harness.report.bundle import unpack as unpacking
from harness.report.bundle.manifest import MANIFEST, BundleEntry, BundleManifest
from harness.report.bundle.pack import pack
from harness.report.bundle.unpack import unpack


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    pack(report_of(write(tmp_path / "results", comparison())), tmp_path / "comparison.zip", "0.1.0")
    return tmp_path / "comparison.zip"


def test_pack_and_unpack_round_trip(bundle: Path, tmp_path: Path) -> None:
    manifest, digest = unpack(bundle, tmp_path / "out")
    assert manifest.runs == len(comparison())
    assert len(digest) == 64
    before, after = Store(tmp_path / "results").load(), Store(tmp_path / "out" / "records").load()
    assert after.problems == []
    assert [run.record for run in after.runs] == [run.record for run in before.runs]
    for old, new in zip(before.runs, after.runs, strict=True):
        for name in ("arrays.npz", "log.txt"):
            if (old.path / name).exists():
                assert (old.path / name).read_bytes() == (new.path / name).read_bytes()
    for name in (
        "README.md",
        "suite.toml",
        "environment.json",
        "report/report.md",
        "site/index.html",
        "site/assets/vega.js",
    ):
        assert (tmp_path / "out" / name).is_file()
    assert (
        "measured by `harness` on: Example CPU 2.0 GHz, 2 cores, no GPU."
        in (tmp_path / "out" / "README.md").read_text()
    )
    digests = json.loads((tmp_path / "out" / "digests.json").read_text())
    assert digests[before.runs[0].record.run_id]["dataset_digest"] == "d" * 64


def test_pack_equal_runs_gives_equal_files(bundle: Path, tmp_path: Path) -> None:
    pack(report_of(tmp_path / "results"), tmp_path / "again.zip", "0.1.0")
    one, other = (unpack(path, tmp_path / path.stem)[0] for path in (bundle, tmp_path / "again.zip"))
    assert one.files == other.files


def test_pack_hostile_names_can_be_unpacked(tmp_path: Path) -> None:
    pack(report_of(write(tmp_path / "results", hostile())), tmp_path / "b.zip", "0.1.0")
    unpack(tmp_path / "b.zip", tmp_path / "out")
    assert len(Store(tmp_path / "out" / "records").load().runs) == 3


def rewritten(bundle: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Rewrite the bundle with changed contents and return its path."""
    with zipfile.ZipFile(bundle) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    change(contents)
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return bundle


def a_record(contents: dict[str, bytes]) -> str:
    return next(name for name in contents if name.endswith("record.json"))


def earlier(contents: dict[str, bytes]) -> None:
    name = a_record(contents)
    contents[name] = contents[name].replace(b"2025", b"2024", 1)


def removed(contents: dict[str, bytes]) -> None:
    del contents["suite.toml"]


def added(contents: dict[str, bytes]) -> None:
    contents["records/extra/record.json"] = b"{}"


def shorter(contents: dict[str, bytes]) -> None:
    contents["README.md"] = contents["README.md"][:-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (earlier, "record.json' does not match the manifest"),
        (removed, "'suite.toml' is in the manifest, but not in the archive"),
        (added, "'records/extra/record.json' is not in the manifest"),
        (shorter, "'README.md' does not match the manifest"),
    ],
)
def test_unpack_modified_bundle_raises_and_names_the_file(
    bundle: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None], words: str
) -> None:
    with pytest.raises(RecordError, match=words):
        unpack(rewritten(bundle, change), tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "C:\\evil", "a\\b", "a//b", "a/./b", ".", "a\x00b", "a/", "con\n"]
)
def test_unpack_unsafe_path_raises(name: str, tmp_path: Path) -> None:
    content = b"x"
    entry = BundleEntry(bytes=1, sha256=unpacking.hashlib.sha256(content).hexdigest())
    manifest = BundleManifest(harness_version="0", made_at="", title="", runs=0, files={name: entry})
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = name  # assigned here, because the constructor would normalize it
        archive.writestr(info, content)
        archive.writestr(MANIFEST, msgspec.json.encode(manifest))
    with pytest.raises(RecordError):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "evil").exists()
    assert not list(tmp_path.glob("out/**/evil"))


def test_unpack_file_of_wrong_size_raises_before_extraction(bundle: Path, tmp_path: Path) -> None:
    def bomb(contents: dict[str, bytes]) -> None:
        contents["README.md"] = b"0" * 50_000_000

    with pytest.raises(RecordError, match=r"'README.md' does not match the manifest"):
        unpack(rewritten(bundle, bomb), tmp_path / "out")
    assert not (tmp_path / "out" / "README.md").exists()


def test_unpack_beyond_limits_raises(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_BYTES", bundle.stat().st_size)
    with pytest.raises(RecordError, match="but the limit is"):
        unpack(bundle, tmp_path / "out")
    monkeypatch.setattr(unpacking, "MAX_FILES", 3)
    with pytest.raises(RecordError, match="it has more than 3 members"):
        unpack(bundle, tmp_path / "out")


def test_unpack_newer_bundle_version_raises(bundle: Path, tmp_path: Path) -> None:
    def newer(contents: dict[str, bytes]) -> None:
        manifest = msgspec.json.decode(contents[MANIFEST], type=BundleManifest)
        contents[MANIFEST] = msgspec.json.encode(msgspec.structs.replace(manifest, bundle_version=99))

    with pytest.raises(RecordError, match="written by a newer version of harness"):
        unpack(rewritten(bundle, newer), tmp_path / "out")


def test_unpack_other_files_raises(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"not a zip archive at all")
    with pytest.raises(RecordError, match="not a readable zip archive"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(RecordError, match="not a bundle"):
        unpack(tmp_path / "b.zip", tmp_path / "out")


_BYTES = []


def _bytes(folder: Path) -> bytes:
    """Return the contents of a small bundle, which is created once."""
    if not _BYTES:
        pack(report_of(write(folder / "results", comparison()[:2])), folder / "b.zip", "0.1.0")
        _BYTES.append((folder / "b.zip").read_bytes())
    return _BYTES[0]


@settings(max_examples=60)
@given(data=st.data())
def test_unpack_with_one_changed_byte_raises_or_gives_equal_files(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Changing any byte raises, unless zip does not use the byte; then the files are unchanged."""
    folder = tmp_path_factory.mktemp("damage")
    whole = bytearray(_bytes(folder))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    (folder / "bad.zip").write_bytes(bytes(whole))
    try:
        unpack(folder / "bad.zip", folder / "out")
    except RecordError:
        pass
    else:
        (folder / "good.zip").write_bytes(_bytes(folder))
        manifest, _ = unpack(folder / "good.zip", folder / "good")
        for name, entry in manifest.files.items():
            assert len((folder / "out" / name).read_bytes()) == entry.bytes
    shutil.rmtree(folder)


def test_pack_to_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = report_of(write(tmp_path / "results", comparison()[:1]))

    def full(*_: object, **__: object) -> io.BytesIO:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(RecordError, match="No space left"):
        pack(report, tmp_path / "b.zip", "0.1.0")
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
