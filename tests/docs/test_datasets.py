"""Tests that the page on standard datasets agrees with the datasets and the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from packed import tar_of

import harness
from harness.data import archives
from harness.interfaces.remote import mirror_path
from harness.plugins import discover

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "datasets.md").read_text()


def test_example_of_a_declaration_is_a_dataset() -> None:
    namespace: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], namespace)  # type: ignore[index]
    reviews = namespace["Reviews"]()
    assert isinstance(reviews, harness.Dataset)
    assert [file.local_name for file in reviews.files] == ["train.tsv.gz", "archive.zip"]
    assert list(reviews.examples) == ["train", "validation", "test"]
    assert reviews.inputs["text"] == harness.RawInput(shape=(), dtype="str")


def rows() -> dict[str, list[str]]:
    """Return the cells of the table of datasets by name, with abbreviated names such as ``-energy`` completed."""
    cells_by_name = {}
    table = re.search(r"^\| name \|.*?(?=\n\n)", PAGE, re.DOTALL | re.MULTILINE)[0]  # type: ignore[index]
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        first, *others = re.findall(r"`(.*?)`", cells[0])
        for name in (first, *(first.partition("-")[0] + other for other in others)):
            cells_by_name[name] = cells
    return cells_by_name


ROWS = rows()
DATASETS = {
    name: provided.value
    for name, provided in discover().datasets.items()
    if provided.plugin.distribution == "ml-harness" and provided.value.files
}


@pytest.mark.plugins("nlp", "vision", "speech", "regression")
def test_table_lists_every_fetched_dataset() -> None:
    assert ROWS.keys() == DATASETS.keys()


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_table_agrees_with_the_declaration(name: str) -> None:
    _, _, classes, sizes, _, metric = ROWS[name]
    dataset = DATASETS[name]
    assert dataset.metric in metric.lower()
    if dataset.splits:
        same_row = [other for other in DATASETS if ROWS[other] is ROWS[name]]
        totals = sorted(sum(DATASETS[other].examples.values()) for other in same_row)
        assert sizes == f"{totals[0]:,} to {totals[-1]:,} rows, 20 splits (`-protein` 5)"
        assert len(dataset.splits) == (5 if name.endswith("-protein") else 20)
        return
    assert sizes.startswith(" / ".join(f"{count:,}" for count in dataset.examples.values()))
    if dataset.objective == "classification":
        assert re.match(r"\d+", classes)[0] == str(len(dataset.label_names))  # type: ignore[index]
    if "image" in dataset.inputs:
        assert sizes.endswith("x".join(map(str, dataset.inputs["image"].shape)))


def test_example_of_a_mirror_path_is_correct() -> None:
    url, path = re.search(r"`(https://\S+)` is `(.*?)`", PAGE, re.DOTALL).groups()  # type: ignore[union-attr]
    assert mirror_path(url) == path


def test_command_for_a_listing_prints_the_digest_that_is_checked(tmp_path: Path) -> None:
    files = {f"archive/{name}.wav": name.encode() for name in ("b", "B", "a", "é")}
    archive, into = tmp_path / "a.tar", tmp_path / "into"
    archive.write_bytes(tar_of(files))
    into.mkdir()
    archives.extract(archive, "a.tar", into, {})
    command = re.search(r"^find .*", PAGE, re.MULTILINE)[0]  # type: ignore[index]
    printed = subprocess.run(command, shell=True, cwd=into, capture_output=True, text=True, check=True).stdout
    (tmp_path / "again").mkdir()
    wanted = {"archive/*.wav": printed.split()[0]}
    assert archives.extract(archive, "a.tar", tmp_path / "again", wanted).keys() == files.keys()
