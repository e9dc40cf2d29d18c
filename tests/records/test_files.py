"""Tests of atomic writes of files and directories."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError, PluginError, UsageError
from harness.records.files import replacing, safe_name, write_directory, write_whole


def test_directory_replaces_the_one_written_before(tmp_path: Path) -> None:
    assert write_directory(tmp_path / "site", [("index.html", b"1"), ("runs/a.html", b"2")]) == 2
    assert write_directory(tmp_path / "site", [("index.html", b"3")]) == 1
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == [".harness-site", "index.html"]
    assert (tmp_path / "site" / "index.html").read_bytes() == b"3"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_directory_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="contains other files"):
        write_directory(tmp_path, [("index.html", b"")])
    with pytest.raises(UsageError, match="is a file"):
        write_directory(tmp_path / "thesis.tex", [("index.html", b"")])


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", ""])
def test_path_outside_the_directory_is_rejected(name: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="not a path inside"):
        write_directory(tmp_path / "site", [(name, b"")])
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_directory(tmp_path: Path) -> None:
    write_directory(tmp_path / "site", [("index.html", b"old")])

    def broken():  # type: ignore[no-untyped-def]
        yield "index.html", b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(HarnessError, match="No space left"):
        write_directory(tmp_path / "site", broken())
    assert (tmp_path / "site" / "index.html").read_bytes() == b"old"


def test_write_whole_creates_the_file_or_raises(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    with pytest.raises(HarnessError, match="cannot be written"):
        write_whole(tmp_path / "none" / "a", b"x")


def test_failed_replacement_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def write_half() -> None:
        with replacing(tmp_path / "a") as file:
            file.write(b"ne")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_replaced_file_gets_the_default_mode(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "old").chmod(0o600)
    (tmp_path / "new").touch()
    write_whole(tmp_path / "old", b"x")
    assert (tmp_path / "old").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_longest_file_name_is_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("n" * 255), b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 255]


def test_directory_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(HarnessError, match="a: cannot be written: Is a directory"):
        write_whole(tmp_path / "a", b"x")
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


@given(st.text(), st.text())
def test_safe_names_are_valid_and_distinct(one: str, other: str) -> None:
    for name in (safe_name(one), safe_name(other)):
        assert name not in ("", ".", "..")
        assert "/" not in name
        assert name.isascii()
    assert (safe_name(one) == safe_name(other)) == (one == other)
