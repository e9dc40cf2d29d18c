from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError, PluginError, UsageError
from harness.records.files import replacing, safe_name, write_directory, write_whole


def test_a_directory_replaces_the_one_that_was_written_before(tmp_path: Path) -> None:
    assert write_directory(tmp_path / "site", [("index.html", b"1"), ("runs/a.html", b"2")]) == 2
    assert write_directory(tmp_path / "site", [("index.html", b"3")]) == 1
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == [".harness-site", "index.html"]
    assert (tmp_path / "site" / "index.html").read_bytes() == b"3"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="contains other files"):
        write_directory(tmp_path, [("index.html", b"")])
    with pytest.raises(UsageError, match="is a file"):
        write_directory(tmp_path / "thesis.tex", [("index.html", b"")])


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", ""])
def test_nothing_is_written_outside(name: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="not a path inside"):
        write_directory(tmp_path / "site", [(name, b"")])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_on_the_way_leaves_the_old_directory(tmp_path: Path) -> None:
    write_directory(tmp_path / "site", [("index.html", b"old")])

    def broken():  # type: ignore[no-untyped-def]
        yield "index.html", b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(HarnessError, match="No space left"):
        write_directory(tmp_path / "site", broken())
    assert (tmp_path / "site" / "index.html").read_bytes() == b"old"


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    with pytest.raises(HarnessError, match="cannot be written"):
        write_whole(tmp_path / "none" / "a", b"x")


def test_replacing_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def write_half() -> None:
        with replacing(tmp_path / "a") as file:
            file.write(b"ne")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_replacing_follows_a_link_and_gives_the_mode_of_new_files(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "target").chmod(0o600)
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "new").touch()
    write_whole(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"x"
    assert (tmp_path / "target").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_whole(tmp_path / "pipe", b"x")
    reader.join(10)
    assert received == [b"x"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_directory_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(HarnessError, match="a: cannot be written: Is a directory"):
        write_whole(tmp_path / "a", b"x")
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


@given(st.text(), st.text())
def test_safe_names_are_safe_and_tell_names_apart(one: str, other: str) -> None:
    for name in (safe_name(one), safe_name(other)):
        assert name not in ("", ".", "..")
        assert "/" not in name
        assert name.isascii()
    assert (safe_name(one) == safe_name(other)) == (one == other)
