"""What docs/datasets.md shows is tried here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from packed import tar_of

import harness
from harness.data import archives
from harness.data.remote import mirror_path

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()


def test_the_declared_dataset_is_one() -> None:
    found: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], found)  # type: ignore[index]
    reviews = found["Reviews"]()
    assert isinstance(reviews, harness.Dataset)
    assert [file.local_name for file in reviews.files] == ["train.tsv.gz", "archive.zip"]


def test_the_mirror_is_laid_out_as_shown() -> None:
    url, path = re.search(r"`(https://\S+)` is `(.*?)`", PAGE, re.DOTALL).groups()  # type: ignore[union-attr]
    assert mirror_path(url) == path


def test_the_command_for_a_listing_prints_what_is_checked(tmp_path: Path) -> None:
    files = {f"archive/{name}.wav": name.encode() for name in ("b", "B", "a", "é")}
    archive, into = tmp_path / "a.tar", tmp_path / "into"
    archive.write_bytes(tar_of(files))
    into.mkdir()
    archives.extract(archive, "a.tar", into, {})
    command = re.search(r"`(find .*?)`", PAGE)[1]  # type: ignore[index]
    printed = subprocess.run(command, shell=True, cwd=into, capture_output=True, text=True, check=True).stdout
    (tmp_path / "again").mkdir()
    wanted = {"archive/*.wav": printed.split()[0]}
    assert archives.extract(archive, "a.tar", tmp_path / "again", wanted).keys() == files.keys()
