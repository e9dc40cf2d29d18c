"""Tests of the extraction of valid, damaged and malicious archives."""

from __future__ import annotations

import gzip
import hashlib
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packed import FORMATS, tar_of, zip_of

from harness import DataError
from harness.data import archives

FILES = {"top.txt": b"top", "folder/deep/é b.bin": bytes(range(256)) * 9, "folder/empty": b""}


def extract(body: bytes, name: str, place: Path, wanted: dict[str, str] | None = None) -> dict[str, bytes]:
    place.mkdir(exist_ok=True)
    archive, into = place / "archive", place / "into"
    archive.write_bytes(body)
    into.mkdir()
    digests = archives.extract(archive, name, into, wanted or {})
    found = {path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*") if path.is_file()}
    assert digests == {name: hashlib.sha256(body).hexdigest() for name, body in found.items()}
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_extract_valid_archive_restores_files(name: str, tmp_path: Path) -> None:
    assert extract(FORMATS[name](FILES), name, tmp_path) == FILES


def test_extract_single_gz_file_drops_suffix(tmp_path: Path) -> None:
    assert extract(gzip.compress(b"labels"), "train-labels.gz", tmp_path) == {"train-labels": b"labels"}


names = st.text(st.characters(exclude_characters="/\\\0:", exclude_categories=("Cs",)), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..")
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    files=st.dictionaries(names, st.binary(max_size=200), min_size=1, max_size=5), name=st.sampled_from(list(FORMATS))
)
def test_extract_any_names_and_contents_restores_files(
    files: dict[str, bytes], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert extract(FORMATS[name](files), name, tmp_path_factory.mktemp("archive")) == files


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize(
    "member",
    ["../out", "a/../../out", "/out", "//out", "a//b", "C:/out", "C:out", "a\\..\\..\\out", "..", "a/.."],
)
def test_extract_member_outside_the_folder_is_refused(name: str, member: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="may lead outside the dataset's folder"):
        extract(FORMATS[name]({member: b"evil"}), name, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "into"}
    assert not Path("/out").exists()


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "device"),
    ],
)
def test_extract_tar_with_link_or_device_is_refused(kind: bytes, word: str, tmp_path: Path) -> None:
    info = tarfile.TarInfo("m")
    info.type, info.linkname = kind, "top.txt"
    with pytest.raises(DataError, match=f"the member 'm' is a {word}"):
        extract(tar_of({"top.txt": b"x"}, info), "a.tar", tmp_path)
    assert not (tmp_path / "into" / "m").exists()


@pytest.mark.parametrize(("mode", "word"), [(stat.S_IFLNK, "link"), (stat.S_IFCHR, "device"), (stat.S_IFIFO, "device")])
def test_extract_zip_with_link_or_device_is_refused(mode: int, word: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"the member 'm' is a {word}"):
        extract(zip_of({"m": b"/etc/passwd"}, {"m": mode | 0o777}), "a.zip", tmp_path)
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.parametrize("name", [*FORMATS, "a.gz"])
def test_extract_decompression_bomb_is_refused_within_the_limit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MIN_LIMIT_BYTES", 2**20)
    monkeypatch.setattr(archives, "EXPANSION", 0)
    zeros = {"a": bytes(700_000), "b": bytes(700_000)}
    body = gzip.compress(bytes(1_400_000)) if name == "a.gz" else FORMATS[name](zeros)
    with pytest.raises(DataError, match="may be a decompression bomb"):
        extract(body, name, tmp_path)
    assert sum(path.stat().st_size for path in (tmp_path / "into").iterdir()) <= 2**20


def test_extract_limit_grows_with_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MIN_LIMIT_BYTES", 0)
    with pytest.raises(DataError, match="may be a decompression bomb"):
        extract(zip_of({"a": bytes(2_000_000)}), "a.zip", tmp_path / "bomb")
    regular = "".join(f"{number} bottles\n" for number in range(100_000)).encode()
    assert extract(zip_of({"a": regular}), "a.zip", tmp_path / "regular") == {"a": regular}


def test_extract_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    with pytest.raises(DataError, match="more than 2 members"):
        extract(tar_of(FILES), "a.tar", tmp_path)


def test_extract_two_members_with_the_same_name_is_refused(tmp_path: Path) -> None:
    body = tar_of({"a": b"1", "./a": b"2"})
    with pytest.raises(DataError, match="two members are named 'a'"):
        extract(body, "a.tar", tmp_path)


def test_extract_file_that_is_also_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rejected"):
        extract(tar_of({"a": b"1", "a/b": b"2"}), "a.tar", tmp_path)


@pytest.mark.parametrize("name", [*FORMATS, "a.gz"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "page"])
def test_extract_damaged_archive_is_refused(name: str, damage: str, tmp_path: Path) -> None:
    whole = gzip.compress(FILES["folder/deep/é b.bin"]) if name == "a.gz" else FORMATS[name](FILES)
    middle = len(whole) // 2
    body = {
        "truncated": whole[:middle],
        "flipped": whole[:middle] + bytes(byte ^ 0xFF for byte in whole[middle : middle + 9]) + whole[middle + 9 :],
        "empty": b"",
        "page": b"<html>busy</html>",
    }[damage]
    packed = {"a": FILES["folder/deep/é b.bin"]} if name == "a.gz" else FILES
    with pytest.raises(DataError, match=r"damaged|has no member|has SHA-256"):
        extract(body, name, tmp_path, {member: digest(content) for member, content in packed.items()})


def test_extract_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot extract 'a\.rar': the supported archive formats are zip, tar"):
        extract(b"Rar!", "a.rar", tmp_path)


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_extract_with_wanted_members_ignores_others(tmp_path: Path) -> None:
    link = tarfile.TarInfo("unwanted-link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    wanted = {"top.txt": digest(b"top")}
    assert extract(tar_of(FILES, link), "a.tar", tmp_path, wanted) == {"top.txt": b"top"}


def test_extract_missing_or_different_member_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no member 'lost\.txt'"):
        extract(zip_of(FILES), "a.zip", tmp_path / "1", {"top.txt": digest(b"top"), "lost.txt": digest(b"")})
    with pytest.raises(
        DataError, match=f"the member 'top.txt' has SHA-256 {digest(b'top')}, expected {digest(b'tip')}"
    ):
        extract(zip_of(FILES), "a.zip", tmp_path / "2", {"top.txt": digest(b"tip")})


def test_extract_with_pattern_checks_digest_of_the_member_list(tmp_path: Path) -> None:
    files = {f"data/{name}.wav": name.encode() for name in "cab"} | {"data/read.me": b"no"}
    lines = [f"{digest(files[name])}  {name}\n" for name in sorted(files) if name.endswith("wav")]
    wanted = {"data/*.wav": digest("".join(lines).encode())}
    found = extract(tar_of(files), "a.tar", tmp_path / "1", wanted)
    assert sorted(found) == ["data/a.wav", "data/b.wav", "data/c.wav"]
    with pytest.raises(DataError, match=r"the list of the 4 members that match 'data/\*\.wav' has SHA-256"):
        extract(tar_of(files | {"data/d.wav": b"d"}), "a.tar", tmp_path / "2", wanted)
