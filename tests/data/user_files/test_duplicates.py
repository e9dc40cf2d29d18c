"""Tests of duplicates of an example, which are kept in one split or counted in a warning."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_files import write_csv, write_image

from harness import DataError, RawData
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.splitting import SPLITS, split


def loaded(path: Path, kind: str, objective: str = "classification", **options: Any) -> RawData:
    dataset = UserDataset(path, kind, objective)  # type: ignore[arg-type]
    return dataset.load(dataset.settle(dataset.Options(**options))[0])


def texts(data: RawData) -> list[set[str]]:
    return [{" ".join(t.lower().split()) for t in s.inputs["text"]} for s in (data.train, data.validation, data.test)]


@given(
    st.lists(st.integers(0, 40), min_size=40, max_size=90),
    st.integers(0, 20),
    st.booleans(),
    st.booleans(),
)
def test_split_keeps_duplicates_together(duplicates: list[int], seed: int, classified: bool, grouped: bool) -> None:
    rows = len(duplicates)
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 2, rows) if classified else None
    groups = rng.integers(0, 30, rows) if grouped else None
    try:
        parts, description = split(
            None, classes, groups, rows=rows, seed=seed, validation_share=0.1, test_share=0.2,
            label_names=("a", "b"), duplicates=np.array(duplicates),
        )  # fmt: skip
    except DataError:
        return  # too few distinct rows or groups
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(rows))
    assert all(len(part) for part in parts.values())
    for values in (duplicates, *([] if groups is None else [groups.tolist()])):
        owners = [{values[row] for row in parts[name]} for name in SPLITS]
        assert sum(map(len, owners)) == len(set(values))
    assert "duplicates kept in one split" in description


@pytest.mark.parametrize("seed", range(20))
def test_split_duplicates_with_different_classes_are_drawn_for_every_class(seed: int) -> None:
    """Each class has at least three distinct examples, although most of them are duplicates of examples of other
    classes."""
    rng = np.random.default_rng(seed)
    classes = np.concatenate([np.repeat([0, 1, 2], (20, 8, 4)), rng.integers(0, 3, 6)])
    duplicates = np.concatenate([np.arange(20), np.arange(8), np.arange(4), rng.integers(0, 20, 6)])
    order = rng.permutation(len(classes))
    classes, duplicates = classes[order], duplicates[order]
    parts, _ = split(
        None, classes, None, rows=len(classes), seed=seed, validation_share=0.1, test_share=0.2,
        label_names=("a", "b", "c"), duplicates=duplicates,
    )  # fmt: skip
    assert [set(classes[parts[name]].tolist()) for name in SPLITS] == [{0, 1, 2}] * 3
    assert sum(len(set(duplicates[parts[name]].tolist())) for name in SPLITS) == 20


@pytest.mark.parametrize("distinct", [1, 2, 3])
def test_split_distinct_examples_of_a_class_are_counted_among_duplicates_of_other_classes(distinct: int) -> None:
    """The class b has four rows, which are duplicates of rows of the rarer class a."""
    duplicates = np.array([0, 1, 2, *(n % distinct for n in range(4)), *range(10, 20)])
    classes = np.array([0] * 3 + [1] * 4 + [2] * 10)
    settings: dict[str, Any] = {"validation_share": 0.1, "test_share": 0.2, "label_names": ("a", "b", "c")}
    if distinct == 3:
        parts, _ = split(None, classes, None, rows=17, seed=0, duplicates=duplicates, **settings)
        assert [set(classes[parts[name]].tolist()) for name in SPLITS] == [{0, 1, 2}] * 3
        return
    with pytest.raises(DataError, match=f"at least 3 distinct examples of each class, but 'b' has {distinct};"):
        split(None, classes, None, rows=17, seed=0, duplicates=duplicates, **settings)


def test_split_without_duplicates_is_as_before() -> None:
    classes = np.arange(60) % 3
    settings = {"rows": 60, "seed": 4, "validation_share": 0.1, "test_share": 0.2}
    plain, _ = split(None, classes, None, **settings)  # type: ignore[arg-type]
    distinct, _ = split(None, classes, None, duplicates=np.arange(60), **settings)  # type: ignore[arg-type]
    assert all(np.array_equal(plain[name], distinct[name]) for name in SPLITS)


@pytest.mark.parametrize(
    "variant",
    [
        lambda text: text,
        str.upper,
        lambda text: f"  {text} ",
        lambda text: text.replace(" ", "  "),
        lambda text: text.replace(" ", "\u00a0"),
        lambda text: text.replace("e", "e\u0301").replace("e\u0301", "\u00e9"),
    ],
    ids=["equal", "case", "ends", "blanks", "no-break", "unicode-form"],
)
def test_duplicates_of_texts_are_kept_in_one_split(tmp_path: Path, variant: Any) -> None:
    originals = [f"caf\u00e9 review number {n} of a film" for n in range(60)]
    duplicates = [variant(text) for text in originals]
    rng = np.random.default_rng(0)
    path = write_csv(
        tmp_path / "t.csv", {"text": originals + duplicates, "label": rng.choice(["no", "yes"], 120).tolist()}
    )
    data = loaded(path, "text")
    train, validation, test = texts(data)
    if "\u00e9\u0301" not in duplicates[0] and "caf\u00e9\u00e9" not in duplicates[0]:
        assert not train & test
        assert not train & validation
        assert not validation & test


def test_texts_with_duplicates_warn_with_exact_counts(tmp_path: Path) -> None:
    rows = [f"text {n % 50}" for n in range(80)]
    path = write_csv(tmp_path / "t.csv", {"text": rows, "label": [str(n % 50 % 2) for n in range(80)]})
    data = loaded(path, "text")
    assert list(data.warnings) == ["30 of 80 rows are duplicates of other rows"]
    independent = loaded(path, "text", copies="independent")
    assert independent.warnings == ()
    assert texts(independent)[0] & texts(independent)[2]


def test_duplicates_of_files_are_kept_in_one_split(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    for number, label in enumerate("ab"):
        for n in range(10):
            file = write_image(tmp_path / "p" / label / f"{n}.png", (4, 4), seed=n + 100 * number)
            shutil.copy(file, file.with_name(f"copy of {n}.png"))
    data = loaded(tmp_path / "p", "image")
    owners = [{image.tobytes() for image in s.inputs["image"]} for s in (data.train, data.validation, data.test)]
    assert sum(map(len, owners)) == 20
    assert data.warnings == ("20 of 40 rows are duplicates of other rows",)


def test_duplicates_of_table_rows_are_kept_in_one_split(tmp_path: Path) -> None:
    x = [n + 0.5 for n in range(40)] * 2
    path = write_csv(tmp_path / "t.csv", {"x": x[:70], "y": [2 * value for value in x[:70]]})
    data = loaded(path, "table", "regression", target_column="y")
    owners = [set(s.inputs["features"].ravel().tolist()) for s in (data.train, data.validation, data.test)]
    assert sum(map(len, owners)) == 40


def test_rows_of_a_table_with_few_distinct_rows_are_not_duplicates(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {"sex": rng.choice(["f", "m"], 90).tolist(), "class": rng.choice(["a", "b", "c"], 90).tolist()}
    path = write_csv(tmp_path / "t.csv", {**columns, "y": rng.normal(size=90).tolist()})
    data = loaded(path, "table", "regression", target_column="y")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [63, 9, 18]


def test_class_with_too_few_distinct_examples_is_refused(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "t.csv", {"text": ["x"] * 10 + [f"y {n}" for n in range(10)], "label": ["a"] * 10 + ["b"] * 10}
    )
    with pytest.raises(
        DataError, match=r"3 distinct examples of each class, but 'a' has 1; .*dataset\.copies=independent"
    ):
        loaded(path, "text")
    assert len(loaded(path, "text", copies="independent").test) == 4


FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("bmp", {}),
    ("tiff", {}),
    ("ppm", {}),
    ("gif", {}),
    ("webp", {"lossless": True}),
    ("png", {"compress_level": 0}),
    ("png", {"dpi": (300, 300)}),
    ("tiff", {"compression": "tiff_lzw"}),
]


@pytest.mark.parametrize(("suffix", "settings"), FORMATS)
def test_duplicates_of_images_in_other_files_stay_in_one_split(
    tmp_path: Path, suffix: str, settings: dict[str, Any]
) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    shape = (5, 6) if suffix == "gif" else (5, 6, 3)
    for number in range(24):
        label = "ab"[number % 2]
        write_image(tmp_path / "p" / label / f"{number}.png", shape, seed=number)
        write_image(tmp_path / "p" / label / f"copy {number}.{suffix}", shape, seed=number, **settings)
    data = loaded(tmp_path / "p", "image")
    parts = [
        {pixels[..., 0].tobytes() for pixels in split.inputs["image"]}
        for split in (data.train, data.validation, data.test)
    ]
    assert sum(map(len, parts)) == 24
    assert "24 of 48 rows are duplicates of other rows (24 in another format or with other metadata)" in data.warnings


def test_duplicates_of_gray_images_in_color_are_found(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="images are read by Pillow")
    for number in range(12):
        path = write_image(tmp_path / "p" / "ab"[number % 2] / f"{number}.png", (5, 6), seed=number)
        image.open(path).convert("RGB").save(path.with_suffix(".bmp"))
    assert "12 of 24 rows are duplicates" in loaded(tmp_path / "p", "image").warnings[0]


@pytest.mark.parametrize(
    ("suffix", "settings"), [("flac", {}), ("aiff", {}), ("au", {}), ("wav", {"subtype": "PCM_24"}), ("caf", {})]
)
def test_duplicates_of_recordings_in_other_files_stay_in_one_split(
    tmp_path: Path, suffix: str, settings: dict[str, Any]
) -> None:
    soundfile = pytest.importorskip("soundfile", reason="recordings are read by soundfile")
    for number in range(20):
        samples = np.random.default_rng(number).integers(-9000, 9000, 50).astype(np.int16)
        folder = tmp_path / "s" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{number}.wav", samples, 8000)
        soundfile.write(folder / f"copy {number}.{suffix}", samples, 8000, **settings)
    data = loaded(tmp_path / "s", "audio")
    parts = [{w.tobytes() for w in split.inputs["waveform"]} for split in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == 20
    assert "20 of 40 rows are duplicates of other rows (20 in another format or with other metadata)" in data.warnings


@pytest.mark.parametrize("change", ["{}\u200b", "\u00ad{}", "{}\x07", "  {}\u3000", "\ufeff{}", "\u200e{}\u200f"])
def test_texts_that_differ_in_invisible_characters_stay_in_one_split(tmp_path: Path, change: str) -> None:
    plain = [f"text number {number}" for number in range(30)]
    rows = [text for number, text in enumerate(plain) for text in (text, change.format(text))]
    path = write_csv(tmp_path / "t.csv", {"text": rows, "label": ["ab"[n % 4 // 2] for n in range(60)]})
    data = loaded(path, "text")
    assert "30 of 60 rows are duplicates of other rows" in data.warnings
    parts = [{re.sub(r"\D", "", t) for t in s.inputs["text"]} for s in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == 30


@pytest.mark.parametrize("times", [2, 3, 5])
def test_load_tables_that_were_repeated_are_kept_together(tmp_path: Path, times: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 50, 60).tolist(), rng.normal(size=60).tolist()
    path = write_csv(tmp_path / "t.csv", {"x": x * times, "z": [1, 2, 3] * 20 * times, "y": y * times})
    data = loaded(path, "table", "regression", target_column="y")
    parts = [set(split.targets.ravel().tolist()) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == len({round(value, 12) for value in y})
    assert any("are duplicates of other rows" in text for text in data.warnings)


def test_load_measurements_that_were_repeated_are_different_rows(tmp_path: Path) -> None:
    """A designed experiment measures each setting several times."""
    rng = np.random.default_rng(0)
    path = write_csv(tmp_path / "t.csv", {"x": list(range(30)) * 3, "y": rng.normal(size=90).tolist()})
    data = loaded(path, "table", "regression", target_column="y")
    assert not any("duplicates of other rows" in text for text in data.warnings)
