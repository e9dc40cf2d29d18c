"""Tests of the standard tables, on small generated files and on the downloaded files if present."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness_regression.datasets import california_housing, uci, wine_quality
from real_files import load_real

from harness import DataError, RawData, SeededSplit, Split


def rows(split: Split) -> set[tuple[float, ...]]:
    return set(map(tuple, split.inputs["features"].tolist()))


def sizes(data: RawData) -> tuple[int, int, int]:
    return len(data.train), len(data.validation), len(data.test)


def write_uci(folder: Path) -> None:
    table = np.arange(80.0).reshape(20, 4)
    (folder / "data.txt").write_text("\n".join(" \t".join(map(str, row)) for row in table) + "\n\n")
    (folder / "index_features.txt").write_text("0\n1\n3\n")
    (folder / "index_target.txt").write_text("2\n")
    (folder / "index_train_4.txt").write_text("\n".join(str(n) for n in range(18)))
    (folder / "index_test_4.txt").write_text("1.8e+01\n1.9e+01\n")


def test_uci_selects_columns_and_rows_by_the_published_indices(tmp_path: Path) -> None:
    write_uci(tmp_path)
    data = uci.read(tmp_path, 4, "strength", "MPa")
    assert sizes(data) == (16, 2, 2)
    assert data.test.inputs["features"].tolist() == [[72.0, 73.0, 75.0], [76.0, 77.0, 79.0]]
    assert data.test.targets.tolist() == [[74.0], [78.0]]
    assert not rows(data.train) & rows(data.validation)
    assert (data.label_names, data.details["target_unit"]) == (("strength",), "MPa")
    with pytest.raises(DataError, match=r"index_train_5.txt"):
        uci.read(tmp_path, 5, "strength", "MPa")
    (tmp_path / "index_test_4.txt").write_text("20\n")
    with pytest.raises(DataError, match="indices from 20 to 20; expected 0 to 19"):
        uci.read(tmp_path, 4, "strength", "MPa")


PUBLISHED = {"concrete": (1030, 8), "energy": (768, 8), "kin8nm": (8192, 8), "naval": (11934, 16)}
PUBLISHED |= {"power": (9568, 4), "protein": (45730, 9), "wine": (1599, 11), "yacht": (308, 6)}


@pytest.mark.parametrize("table", uci.UCI, ids=lambda table: table.name)
def test_uci_as_published(real_data: None, table: type[uci.Uci]) -> None:
    count, columns = PUBLISHED[table.name.removeprefix("uci-")]
    first, last = (load_real(table(), split=split) for split in (0, table.splits[-1]))
    for data in (first, last):
        assert sum(sizes(data)) == count
        assert data.train.inputs["features"].shape[1] == columns
        assert abs(len(data.test) - count / 10) <= 1
    assert rows(first.test) != rows(last.test)
    assert len(table.splits) == (5 if table.name == "uci-protein" else 20)


def test_california_housing_keeps_missing_values_and_categories(tmp_path: Path) -> None:
    names = (*california_housing.NUMBERS, california_housing.TARGET, california_housing.CATEGORY)
    lines = [",".join(names)] + [f"-122.2,37.9,{n},880.0,,322.0,126.0,8.3,452600.0,NEAR BAY" for n in range(20)]
    (tmp_path / "housing.csv").write_text("\n".join(lines) + "\n")
    data = california_housing.read(tmp_path, SeededSplit())
    assert sizes(data) == (14, 2, 4)
    assert data.label_names == ("median_house_value",)
    assert np.isnan(data.train.inputs["features"][:, 4]).all()
    assert data.train.inputs["categories"].tolist() == [["NEAR BAY"]] * 14
    assert data.test.targets.tolist() == [[452600.0]] * 4
    (tmp_path / "housing.csv").write_text("longitude,latitude\n1,2\n")
    with pytest.raises(DataError, match=r"housing.csv"):
        california_housing.read(tmp_path, SeededSplit())


def test_california_housing_as_published(real_data: None) -> None:
    data = load_real(california_housing.CaliforniaHousing())
    splits = (data.train, data.validation, data.test)
    assert sizes(data) == (14_861, 1_651, 4_128)
    assert sum(int(np.isnan(split.inputs["features"]).sum()) for split in splits) == 207
    words, counts = np.unique(np.concatenate([split.inputs["categories"] for split in splits]), return_counts=True)
    assert dict(zip(words.tolist(), counts.tolist(), strict=True)) == {
        "<1H OCEAN": 9136,
        "INLAND": 6551,
        "ISLAND": 5,
        "NEAR BAY": 2290,
        "NEAR OCEAN": 2658,
    }
    targets = np.concatenate([split.targets for split in splits])
    assert (targets.max(), int((targets == targets.max()).sum())) == (500_001, 965)


def write_wine(folder: Path, wine: str, count: int) -> None:
    header = ";".join(f'"{name}"' for name in [*"abcdefghijk", "quality"])
    lines = [";".join(map(str, [n // 2, *range(10), n % 7 + 3])) for n in range(count)]
    (folder / f"winequality-{wine}.csv").write_text("\n".join([header, *lines]) + "\n")


def test_wine_quality_marks_red_wines_and_keeps_duplicates_together(tmp_path: Path) -> None:
    write_wine(tmp_path, "red", 100)
    write_wine(tmp_path, "white", 60)
    both = wine_quality.read(tmp_path, wine_quality.WineQualityOptions())
    assert sum(sizes(both)) == 160
    assert both.label_names == ("quality",)
    assert both.train.inputs["features"].shape[1] == 12
    for split in (both.train, both.validation, both.test):
        assert (split.inputs["features"][:, -1] == (split.groups["wine"] == "red")).all()
    assert not rows(both.train) & rows(both.test)
    assert not rows(both.train) & rows(both.validation)
    red = wine_quality.read(tmp_path, wine_quality.WineQualityOptions(wines="red"))
    assert sizes(red) == (72, 8, 20)
    assert red.train.inputs["features"].shape[1] == 11
    (tmp_path / "winequality-red.csv").write_text("a;b\n1;2\n")
    with pytest.raises(DataError, match="has 2 columns"):
        wine_quality.read(tmp_path, wine_quality.WineQualityOptions(wines="red"))


def test_wine_quality_as_published(real_data: None) -> None:
    for wines, count in (("red", 1_599), ("white", 4_898), ("both", 6_497)):
        data = load_real(wine_quality.WineQuality(), wines=wines)
        assert sum(sizes(data)) == count
        assert not rows(data.train) & rows(data.test)
    targets = np.concatenate([split.targets for split in (data.train, data.validation, data.test)])
    _, counts = np.unique(targets, return_counts=True)
    assert counts.tolist() == [30, 216, 2_138, 2_836, 1_079, 193, 5]  # scores 3 to 9; Cortez et al. 2009
