"""A path in place of a dataset's name: planning, run keys, inferred options and errors."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_files import houses, photos, reviews, write_csv, write_image, write_jsonl, write_sound

from harness import DataError, RawData, UsageError
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.location import is_path
from harness.errors import CombinationError, UnknownNameError
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog
from harness.records import DataSource, RunSpec

KINDS = {"text": "classification", "table": "regression", "image": "classification", "audio": "classification"}


def load(path: Path, kind: str, **options: Any) -> RawData:
    dataset = UserDataset(path, kind, KINDS[kind])  # type: ignore[arg-type]
    return dataset.load(dataset.settle(dataset.Options(**options))[0])


def plan(catalog: Catalog, task: str, path: Path | str, *overrides: str, **selection: Any) -> tuple[RunSpec, ...]:
    chosen = {"tasks": (task,), "backends": ("toy-numpy",), "models": ("toy-linear",), "datasets": (str(path),)}
    return expand(Selection(**{**chosen, **selection}, overrides=overrides), catalog)


# ---- names and paths --------------------------------------------------------------------------------------


def test_is_path_recognizes_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "digits"):
        Path(folder).mkdir()
    Path("odd.xyz").touch()
    for name in ("photos", "./digits", "digits/", "a/b", "nowhere.csv", "NOWHERE.PARQUET", "odd.xyz", "."):
        assert is_path(name, {"digits"}), name
    for name in ("digits", "nowhere", "", "v1.0"):
        assert not is_path(name, {"digits"}), name


def test_expand_unknown_dataset_name_is_refused(catalog: Catalog) -> None:
    with pytest.raises(UnknownNameError, match="unknown dataset 'diabetis'; did you mean 'diabetes'"):
        plan(catalog, "regression", "diabetis")


def test_expand_missing_file_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.csv: no such file or folder"):
        plan(catalog, "regression", tmp_path / "nowhere.csv")


def test_expand_task_without_file_support_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(
        CombinationError,
        match="tasks of kind 'points' read only datasets from plugins, not files; use a task of kind text or table or",
    ):
        plan(catalog, "toy-regress", write_csv(tmp_path / "t.csv", houses()))


def test_expand_option_of_another_kind_is_unknown(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"dataset\.text_column"):
        plan(catalog, "regression", write_csv(tmp_path / "t.csv", houses()), "dataset.text_column=price")


# ---- run keys ---------------------------------------------------------------------------------------------


def test_run_key_depends_on_the_content_but_not_on_the_path(catalog: Catalog, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", houses())
    (spec,) = plan(catalog, "regression", path, "dataset.target_column=price")
    warnings = ("1 of 40 rows is a duplicate of another row",)
    assert spec.source is not None
    source = DataSource(
        path=str(path),
        guessed=("feature_columns",),
        warnings=warnings,
        training_examples=28,
        defaults=spec.source.defaults,
    )
    assert (spec.dataset, spec.source) == ("t.csv", source)
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / "u.csv")
    assert plan(catalog, "regression", moved, "dataset.target_column=price")[0].key == spec.key
    assert plan(catalog, "regression", moved, 'dataset.target_column=["price"]')[0].key == spec.key
    assert plan(catalog, "regression", moved, "dataset.target_column=rooms")[0].key != spec.key
    moved.write_bytes(moved.read_bytes().replace(b"Ulm", b"Uln", 1))
    assert plan(catalog, "regression", moved, "dataset.target_column=price")[0].key != spec.key


def test_run_key_is_the_same_for_inferred_and_given_columns(catalog: Catalog, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {**houses(), "split": ["train"] * 30 + ["test"] * 10})
    inferred = plan(catalog, "regression", path, "dataset.target_column=price")[0]
    given = plan(
        catalog,
        "regression",
        path,
        "dataset.target_column=price",
        "dataset.split_column=split",
        'dataset.feature_columns=["rooms", "area", "town"]',
    )[0]
    assert inferred.key == given.key
    assert inferred.source is not None
    assert given.source is not None
    assert (inferred.source.guessed, given.source.guessed) == (("split_column", "feature_columns"), ())


def test_digest_of_a_folder_depends_on_every_image(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    root = photos(tmp_path / "photos")

    def digest(path: Path) -> str:
        dataset = UserDataset(path, "image", "classification")
        return dataset.settle(dataset.Options())[0].sha256

    before = digest(root)
    (root / "cat" / ".DS_Store").write_bytes(b"x")
    (root / "README.txt").write_text("not an image")
    assert digest(shutil.copytree(root, tmp_path / "copy")) == before
    write_image(root / "cat" / "0.png", seed=99)
    assert digest(root) != before


def test_load_content_changed_after_planning_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", reviews())
    dataset = UserDataset(path, "text", "classification")
    options, *_ = dataset.settle(dataset.Options())
    path.write_bytes(path.read_bytes().replace(b"dull", b"dumb", 1))
    with pytest.raises(DataError, match="the content has changed"):
        dataset.load(options)


# ---- text -------------------------------------------------------------------------------------------------


def test_load_text_returns_all_rows_unchanged(tmp_path: Path) -> None:
    columns = reviews()
    data = load(write_csv(tmp_path / "t.csv", columns), "text")
    assert data.label_names == ("neg", "pos")
    rows = {
        (text, data.label_names[target])
        for split in (data.train, data.validation, data.test)
        for text, target in zip(split.inputs["text"], split.targets, strict=True)
    }
    assert rows == set(zip(*columns.values(), strict=True))
    assert data.details == {"skipped_rows": 0, "splits": "validation and test drawn at random by class, seed 0"}


@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        ({"review": "t", "label": "c"}, {}, ("review", "label")),
        ({"Text": "t", "note": "t", "class": "c"}, {}, ("Text", "class")),
        ({"id": "n", "body": "t", "target": "c"}, {}, ("body", "target")),
        ({"body": "t", "mood": "c"}, {"text_column": "body"}, ("body", "mood")),
        ({"body": "t", "mood": "c"}, {"target_column": "mood"}, ("body", "mood")),
        ({"body": "t", "mood": "c"}, {}, None),
        ({"a": "t", "b": "t", "label": "c"}, {}, None),
    ],
)
def test_settle_infers_columns_only_if_unambiguous(
    tmp_path: Path, columns: dict[str, str], options: dict[str, str], expected: tuple[str, str] | None
) -> None:
    cells = {"t": reviews()["review"], "c": reviews()["label"], "n": list(range(30))}
    path = write_csv(tmp_path / "t.csv", {name: cells[what] for name, what in columns.items()})
    dataset = UserDataset(path, "text", "classification")
    if expected is None:
        with pytest.raises(UsageError, match=rf"cannot infer the .* the columns are: {', '.join(columns)}"):
            dataset.settle(dataset.Options(**options))
        return
    settled, source, _ = dataset.settle(dataset.Options(**options))
    assert (settled.text_column, settled.target_column) == expected  # type: ignore[attr-defined]
    assert set(source.guessed) == {"text_column", "target_column"} - set(options)


BAD_TEXTS = [
    ({"review": "  "}, r"row 8 \(line 8\): the text in column 'review' is empty"),
    ({"review": 3}, r"row 8 \(line 8\): column 'review' contains 3, which is not text"),
    ({"label": None}, r"row 8 \(line 8\): the label in column 'label' is missing"),
    ({"label": 1.5}, r"row 8 \(line 8\): the label in column 'label' is 1\.5, which is neither text nor an integer"),
    (
        {"label": 1},
        r"row 8 \(line 8\): mixed types: the label in column 'label' is 1, but most of the column's cells are text",
    ),
    ({"split": "practice"}, r"row 8 \(line 8\): column 'split' contains 'practice'; expected one of train, "),
    ({"who": ""}, r"row 8 \(line 8\): the group in column 'who' is missing"),
]


@pytest.mark.parametrize(("change", "message"), BAD_TEXTS)
def test_load_bad_row_is_reported_or_skipped(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = [
        {"review": text, "label": label, "split": "train" if n < 24 else "test", "who": f"{n // 2}"}
        for n, (text, label) in enumerate(zip(*reviews().values(), strict=True))
    ]
    rows[7] |= change
    path = write_jsonl(tmp_path / "t.jsonl", rows)
    with pytest.raises(DataError, match=message):
        load(path, "text", group_column="who")
    data = load(path, "text", group_column="who", on_bad_row="skip")
    assert sum(map(len, (data.train, data.validation, data.test))) == 29
    assert data.details["skipped_rows"] == 1
    assert "row 8" in str(data.details["skipped"])
    owners = [set(split.groups["who"].tolist()) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, owners)) == len(set.union(*owners))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 30, "all rows have the label 'a'"),
        (["a"] * 28 + ["b"] * 2, "3 splits need at least 3 examples of each class, but 'b' has 2"),
    ],
)
def test_load_too_few_classes_or_examples_is_refused(tmp_path: Path, labels: list[str], message: str) -> None:
    with pytest.raises(DataError, match=rf"t\.csv: {message}"):
        load(write_csv(tmp_path / "t.csv", {"review": reviews()["review"], "label": labels}), "text")


def test_load_integer_labels_are_sorted_by_value(tmp_path: Path) -> None:
    columns = {"text": reviews()["review"], "label": [(2, 10, 1)[n % 3] for n in range(30)]}
    assert load(write_csv(tmp_path / "t.csv", columns), "text").label_names == ("1", "2", "10")
    columns["label"] = [(-2, 10, -10)[n % 3] for n in range(30)]
    assert load(write_csv(tmp_path / "u.csv", columns), "text").label_names == ("-10", "-2", "10")
    for folder in ("2", "10", "1"):
        for n in range(8):
            write_image(tmp_path / "photos" / folder / f"{n}.png", seed=10 * n + int(folder))
    assert load(tmp_path / "photos", "image").label_names == ("1", "2", "10")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"text_column": "revue"}, "unknown column 'revue'; did you mean 'review'"),
        ({"text_column": "review", "target_column": "review"}, "column 'review' of t.csv is specified for two roles"),
        ({"target_column": ("label", "review")}, "classification takes one target column, got 2: label, review"),
    ],
)
def test_load_invalid_columns_are_refused(tmp_path: Path, option: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(write_csv(tmp_path / "t.csv", reviews()), "text", **option)


# ---- tables -----------------------------------------------------------------------------------------------


def test_load_table_returns_numbers_and_categories(tmp_path: Path) -> None:
    columns = {**houses(), "tax": range(40)}
    data = load(write_csv(tmp_path / "t.csv", columns), "table", target_column=("price", "tax"))
    everything = [data.train, data.validation, data.test]
    order = np.argsort(np.concatenate([split.targets[:, 1] for split in everything]))
    features, categories, targets = (
        np.concatenate(parts)[order]
        for parts in (
            [split.inputs["features"] for split in everything],
            [split.inputs["categories"] for split in everything],
            [split.targets for split in everything],
        )
    )
    assert data.label_names == ("price", "tax")
    np.testing.assert_array_equal(features[:, 0], columns["rooms"])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(features[:, 1])), [0, 11, 22, 33])
    assert [town or "" for town in categories[:, 0]] == columns["town"]
    np.testing.assert_array_equal(targets[:, 0], columns["price"])


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("price", "", r"target column 'price' has no value \(''\)"),
        ("price", "NaN", r"target column 'price' has no value \('NaN'\)"),
        ("price", "much", "target column 'price' contains 'much', which is not a number"),
        ("price", "inf", "target column 'price' contains 'inf', which is not finite"),
        ("price", "1e300", r"target column 'price' contains '1e300', which is larger than 1e\+100"),
        ("rooms", "-1e200", r"column 'rooms' contains '-1e200', which is larger than 1e\+100 in absolute value"),
        ("rooms", "many", "mixed types: column 'rooms' contains 'many', which is not a number"),
        ("town", "7", "mixed types: column 'town' contains the number '7', but most of its cells are text"),
    ],
)
def test_load_bad_cell_is_reported_or_skipped(tmp_path: Path, column: str, cell: str, message: str) -> None:
    columns = houses()
    columns[column][3] = cell
    path = write_csv(tmp_path / "t.csv", columns)
    with pytest.raises(DataError, match=rf"row 4 \(line 5\): {message}"):
        load(path, "table", target_column="price")
    assert load(path, "table", target_column="price", on_bad_row="skip").details["skipped_rows"] == 1


def test_load_integer_too_large_for_float_is_reported(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", [{"x": -(10**400) if n == 1 else n, "y": n} for n in range(40)])
    with pytest.raises(DataError, match=r"row 2 \(line 2\): column 'x' contains -10+\.\.\., which is not finite"):
        load(path, "table", target_column="y")


def test_load_empty_feature_column_is_named_in_the_error(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {**houses(), "note": ["", "NA"] * 20})
    with pytest.raises(DataError, match=r"column 'note' has no values; select the features with --feature-columns"):
        load(path, "table", target_column="price")


def test_load_declared_categorical_column_contains_categories(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", houses())
    data = load(path, "table", target_column="price", categorical_columns=("rooms", "town"))
    assert data.train.inputs["features"].shape[1] == 1
    assert set(data.train.inputs["categories"][:, 0]) <= {str(n) for n in range(1, 9)}


def test_load_slice_texts_are_truncated_to_one_short_line(tmp_path: Path) -> None:
    rows = [{"text": f"t {n}", "label": n % 2, "note": "two\nlines " + "z" * 9**5 * (n % 2)} for n in range(40)]
    rows = [{**row, "seen": n % 2 == 0} for n, row in enumerate(rows)]
    groups = load(write_jsonl(tmp_path / "t.jsonl", rows), "text", slice_columns=("note", "seen")).train.groups
    assert set(groups["note"]) == {"two lines", "two lines " + "z" * 50 + "..."}
    assert set(groups["seen"]) == {"true", "false"}


def test_load_slice_column_declared_categorical_contains_texts(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {**houses(), "zip": [f"0{n % 3}" for n in range(40)]})
    options = {"target_column": "price", "slice_columns": ("zip",)}
    assert set(load(path, "table", **options).train.groups["zip"]) == {0, 1, 2}
    assert set(load(path, "table", **options, categorical_columns=("zip",)).train.groups["zip"]) == {"00", "01", "02"}


def test_load_column_with_too_many_distinct_texts_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {**houses(), "address": [f"Road {n}" for n in range(40)]})
    with pytest.raises(
        DataError, match=r"column 'address' has 40 distinct strings in 40 rows, too many .*--feature-columns"
    ):
        load(path, "table", target_column="price")


# ---- images and recordings --------------------------------------------------------------------------------


@pytest.mark.parametrize("splits", [(), ("train", "val", "test"), ("train", "test")])
def test_load_image_folders_returns_classes_and_splits(tmp_path: Path, splits: tuple[str, ...]) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    for split in splits:
        photos(tmp_path / "photos" / split)
    data = load(tmp_path / "photos" if splits else photos(tmp_path / "photos"), "image")
    assert data.label_names == ("cat", "dog")
    assert {image.shape for image in data.train.inputs["image"]} == {(6, 8, 3), (7, 8, 3), (8, 8, 3)}
    drawn = {(): "validation and test drawn", ("train", "test"): "validation drawn"}.get(splits, "given")
    assert str(data.details["splits"]).startswith(drawn)
    if len(splits) == 3:
        assert [len(part) for part in (data.train, data.validation, data.test)] == [12, 12, 12]


def test_load_recordings_with_metadata_file(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="recordings are read by soundfile")
    files = [write_sound(tmp_path / "s" / f"{n}.{s}", 300 + n, 8000 * (1 + n % 2), channels=1 + n % 2, seed=n)
             for n, s in enumerate(("wav", "flac", "ogg") * 4)]  # fmt: skip
    rows = [
        {"file": f"s/{file.name}", "word": "yes" if n % 2 else "no", "speaker": n // 2} for n, file in enumerate(files)
    ]
    path = write_jsonl(tmp_path / "metadata.jsonl", rows)
    for source in (path, tmp_path):
        data = load(source, "audio", target_column="word", group_column="speaker")
        assert sorted(
            np.concatenate([s.groups["speaker"] for s in (data.train, data.validation, data.test)]).tolist()
        ) == (sorted(str(n // 2) for n in range(12)))
        assert not set(data.train.groups["speaker"]) & set(data.test.groups["speaker"])
    kept = {
        (len(w), rate)
        for w, rate in zip(data.train.inputs["waveform"], data.train.inputs["sample_rate_hz"], strict=True)
    }
    assert kept <= {(300 + n, 8000 * (1 + n % 2)) for n in range(12)}
    stereo, _ = soundfile.read(files[1], dtype="float32")
    everything = np.concatenate([split.inputs["waveform"] for split in (data.train, data.validation, data.test)])
    (mono,) = [waveform for waveform in everything if len(waveform) == 301]
    np.testing.assert_allclose(mono, stereo.mean(axis=1), atol=1e-6)


def test_load_damaged_image_is_reported_with_its_path_or_skipped(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    root = photos(tmp_path / "photos")
    (root / "cat" / "text.png").write_text("not an image")
    big = write_image(root / "dog" / "cut.png", (64, 64, 3))
    big.write_bytes(big.read_bytes()[:4000])
    (root / "dog" / "none.jpg").touch()
    dataset = UserDataset(root, "image", "classification")
    with pytest.raises(DataError) as raised:
        dataset.settle(dataset.Options())
    assert "cat/text.png: the file cannot be decoded (its format is unknown); " in str(raised.value)
    assert "dog/none.jpg: the file cannot be decoded (it is empty); " in str(raised.value)
    data = load(root, "image", on_bad_row="skip")
    assert data.details["skipped_rows"] == 3
    assert "dog/cut.png: the file cannot be decoded" in str(data.details["skipped"])
    assert sum(map(len, (data.train, data.validation, data.test))) == 12


def test_settle_truncated_recording_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("soundfile", reason="recordings are read by soundfile")
    root = tmp_path / "recordings"
    for n in range(12):
        whole = write_sound(root / ("yes" if n % 2 else "no") / f"{n}.wav", seed=n)
    whole.write_bytes(whole.read_bytes()[:-100])
    dataset = UserDataset(root, "audio", "classification")
    with pytest.raises(DataError, match=f"{whole.name}: the file is truncated: its header states"):
        dataset.settle(dataset.Options())


def test_load_bad_file_in_metadata_is_reported_with_row_and_path(tmp_path: Path) -> None:
    pytest.importorskip("soundfile", reason="recordings are read by soundfile")
    names = [f"{n}.wav" for n in range(8)]
    for name in names[:6]:
        write_sound(tmp_path / name)
    write_sound(tmp_path / "6.wav", 0)
    path = write_csv(tmp_path / "t.csv", {"path": names, "label": ["no", "yes"] * 4})
    with pytest.raises(DataError) as raised:
        load(path, "audio")
    assert f"row 7 (line 8): {tmp_path / '6.wav'}: the recording has no samples" in str(raised.value)
    assert f"row 8 (line 9): {tmp_path / '7.wav'}: the file does not exist" in str(raised.value)


def test_read_image_all_modes_return_gray_or_rgb(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="images are read by Pillow")
    from harness.data.user_files.media import read_image

    for mode, channels in {"1": 1, "L": 1, "I;16": 1, "P": 3, "RGB": 3, "RGBA": 3, "LA": 3}.items():
        black = image.new(mode, (5, 4))
        if mode in ("RGBA", "LA"):
            black.putpixel((0, 0), (0, 0, 0, 255)[-len(mode) :])  # the others are transparent
        black.save(tmp_path / "i.png")
        pixels = read_image(tmp_path / "i.png", 256)
        assert (pixels.shape, pixels.dtype) == ((4, 5, channels), np.float32 if mode == "I;16" else np.uint8), mode
        assert pixels.mean() == (255 * 19 / 20 if mode in ("RGBA", "LA") else 0), mode
    image.new("CMYK", (5, 4)).save(tmp_path / "i.jpg")
    assert read_image(tmp_path / "i.jpg", 256).shape == (4, 5, 3)
    image.fromarray(np.full((4, 5), 0x1234, np.uint16)).save(tmp_path / "i.png")
    assert set(read_image(tmp_path / "i.png", 256).ravel()) == {0x1234}


def test_read_image_large_and_rotated_image_is_scaled_and_turned(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="images are read by Pillow")
    from harness.data.user_files.media import read_image

    exif = image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    image.new("RGB", (80, 40)).save(tmp_path / "i.jpg", exif=exif)
    assert read_image(tmp_path / "i.jpg", 256).shape == (80, 40, 3)
    assert read_image(tmp_path / "i.jpg", 20).shape == (40, 20, 3)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "the folder and its subfolders contain no image files"),
        (["a.png", "cat/b.png"], r"a\.png is not in a class folder; move each file"),
        (["train/a.png", "test/cat/b.png"], r"train/a\.png is in a split folder, but not in a class folder"),
        (
            ["train/cat/a.png", "test/cat/b.png", "more/c.png"],
            r"split folders \(test, train\) are mixed with other folders \(more\)",
        ),
        (["test/cat/a.png", "val/cat/b.png", "val/dog/b.png"], "the training split has no rows"),
    ],
)
def test_load_invalid_folder_structure_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    (tmp_path / "p").mkdir()
    for file in files:
        write_image(tmp_path / "p" / file)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "p", "image")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
@pytest.mark.parametrize(("closed", "message"), [("cat", "cat: the folder cannot be read"), (".", "cannot be read")])
def test_load_unreadable_folder_is_reported(tmp_path: Path, closed: str, message: str) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    folder = photos(tmp_path / "photos") / closed
    folder.chmod(0)
    try:
        with pytest.raises((DataError, UsageError), match=f"{message}: Permission denied"):
            load(tmp_path / "photos", "image")
    finally:
        folder.chmod(0o755)


def test_load_class_may_be_named_train(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    for label in ("plane", "train"):
        for n in range(4):
            write_image(tmp_path / "p" / label / f"{n}.png", seed=n)
    assert load(tmp_path / "p", "image").label_names == ("plane", "train")


def test_load_text_from_folder_lists_its_tables_in_the_error(tmp_path: Path) -> None:
    write_csv(tmp_path / "d" / "t.csv", reviews())
    with pytest.raises(UsageError, match=r"is a folder; pass a CSV, .* file; the folder contains t\.csv"):
        load(tmp_path / "d", "text")


def test_all_unsuitable_columns_are_named_with_an_option_for_the_others(tmp_path: Path) -> None:
    rows = "".join(f"name {i},ticket {i},2024-01-{i % 28 + 1:02},{i},a{i % 2},{i * 2}\n" for i in range(60))
    path = tmp_path / "t.csv"
    path.write_text(f"name,ticket,day,age,kind of fare,target\n{rows}")
    with pytest.raises(DataError) as caught:
        load(path, "table")
    message = str(caught.value)
    assert message.startswith(
        "t.csv: 3 columns cannot be used as features: column 'name' has 60 distinct strings in 60 rows"
    )
    for name in ("ticket", "day"):
        assert f"column '{name}' " in message
    assert message.endswith("; to use only the other columns, pass --feature-columns 'age,kind of fare'")


@pytest.mark.parametrize("count", [1, 2, 4])
def test_option_with_the_other_columns_reads_the_file(tmp_path: Path, count: int) -> None:
    names = [f"id{number}" for number in range(count)]
    rows = "".join(",".join(f"{name}-{i}" for name in names) + f",{i},{i * 2}\n" for i in range(60))
    path = tmp_path / "t.csv"
    path.write_text(f"{','.join(names)},age,target\n{rows}")
    with pytest.raises(DataError) as caught:
        load(path, "table")
    columns = str(caught.value).rpartition("--feature-columns ")[2]
    assert columns == "age"
    assert load(path, "table", feature_columns=tuple(columns.split(","))).feature_names == ("age",)


def test_categories_of_the_training_split_are_recorded(tmp_path: Path) -> None:
    rows = "".join(f"{'abc'[i % 3] if i % 5 else ''},{i},{i * 2}\n" for i in range(60))
    path = tmp_path / "t.csv"
    path.write_text(f"kind,age,target\n{rows}")
    data = load(path, "table")
    listed = dict(part[:-1].split(" (") for part in str(data.details["categories of kind"]).split(", "))
    assert listed.keys() == {"a", "b", "c", "missing"}
    assert sum(map(int, listed.values())) == len(data.train.targets)
