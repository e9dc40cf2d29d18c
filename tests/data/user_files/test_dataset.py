"""A path in the place of a dataset's name: planning, identity, guesses, and what is refused."""

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


def test_which_names_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "digits"):
        Path(folder).mkdir()
    Path("odd.xyz").touch()
    for name in ("photos", "./digits", "digits/", "a/b", "nowhere.csv", "NOWHERE.PARQUET", "odd.xyz", "."):
        assert is_path(name, {"digits"}), name
    for name in ("digits", "nowhere", "", "v1.0"):
        assert not is_path(name, {"digits"}), name


def test_a_name_that_is_neither_is_unknown(catalog: Catalog) -> None:
    with pytest.raises(UnknownNameError, match="unknown dataset 'diabetis'; did you mean 'diabetes'"):
        plan(catalog, "regression", "diabetis")


def test_a_path_that_is_not_there(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.csv: there is no such file or folder"):
        plan(catalog, "regression", tmp_path / "nowhere.csv")


def test_a_task_on_another_kind_of_data_reads_no_files(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(CombinationError, match="tasks on 'points' cannot read files; those on text, table"):
        plan(catalog, "toy-regress", write_csv(tmp_path / "t.csv", houses()))


def test_options_of_other_kinds_are_unknown(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"dataset\.text_column"):
        plan(catalog, "regression", write_csv(tmp_path / "t.csv", houses()), "dataset.text_column=price")


# ---- identity ---------------------------------------------------------------------------------------------


def test_moving_keeps_the_key_and_a_byte_changes_it(catalog: Catalog, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", houses())
    (spec,) = plan(catalog, "regression", path, "dataset.target_column=price")
    assert (spec.dataset, spec.source) == ("t.csv", DataSource(path=str(path), guessed=("feature_columns",)))
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / "u.csv")
    assert plan(catalog, "regression", moved, "dataset.target_column=price")[0].key == spec.key
    assert plan(catalog, "regression", moved, 'dataset.target_column=["price"]')[0].key == spec.key
    assert plan(catalog, "regression", moved, "dataset.target_column=rooms")[0].key != spec.key
    moved.write_bytes(moved.read_bytes().replace(b"Ulm", b"Uln", 1))
    assert plan(catalog, "regression", moved, "dataset.target_column=price")[0].key != spec.key


def test_what_is_guessed_and_what_is_said_is_one_run(catalog: Catalog, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {**houses(), "split": ["train"] * 30 + ["test"] * 10})
    guessed = plan(catalog, "regression", path, "dataset.target_column=price")[0]
    said = plan(
        catalog,
        "regression",
        path,
        "dataset.target_column=price",
        "dataset.split_column=split",
        'dataset.feature_columns=["rooms", "area", "town"]',
    )[0]
    assert guessed.key == said.key
    assert guessed.source is not None
    assert said.source is not None
    assert (guessed.source.guessed, said.source.guessed) == (("split_column", "feature_columns"), ())


def test_every_file_of_a_folder_counts(tmp_path: Path) -> None:
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


def test_content_that_changed_after_planning_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", reviews())
    dataset = UserDataset(path, "text", "classification")
    options, _ = dataset.settle(dataset.Options())
    path.write_bytes(path.read_bytes().replace(b"dull", b"dumb", 1))
    with pytest.raises(DataError, match="the content is not what it was"):
        dataset.load(options)


# ---- texts ------------------------------------------------------------------------------------------------


def test_texts_come_as_they_are(tmp_path: Path) -> None:
    columns = reviews()
    data = load(write_csv(tmp_path / "t.csv", columns), "text")
    assert data.label_names == ("neg", "pos")
    seen = {
        (text, data.label_names[target])
        for split in (data.train, data.validation, data.test)
        for text, target in zip(split.inputs["text"], split.targets, strict=True)
    }
    assert seen == set(zip(*columns.values(), strict=True))
    assert data.details == {"skipped_rows": 0, "splits": "validation and test drawn stratified, seed 0"}


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
def test_a_column_is_guessed_where_only_one_is_possible(
    tmp_path: Path, columns: dict[str, str], options: dict[str, str], expected: tuple[str, str] | None
) -> None:
    cells = {"t": reviews()["review"], "c": reviews()["label"], "n": list(range(30))}
    path = write_csv(tmp_path / "t.csv", {name: cells[what] for name, what in columns.items()})
    dataset = UserDataset(path, "text", "classification")
    if expected is None:
        with pytest.raises(UsageError, match=rf"cannot tell which .* columns: {', '.join(columns)}"):
            dataset.settle(dataset.Options(**options))
        return
    settled, source = dataset.settle(dataset.Options(**options))
    assert (settled.text_column, settled.target_column) == expected  # type: ignore[attr-defined]
    assert set(source.guessed) == {"text_column", "target_column"} - set(options)


BAD_TEXTS = [
    ({"review": "  "}, r"row 8 \(line 8\): the text in column 'review' is empty"),
    ({"review": 3}, r"row 8 \(line 8\): column 'review' holds 3, not a text"),
    ({"label": None}, r"row 8 \(line 8\): the label in column 'label' is missing"),
    ({"label": 1}, r"row 8 \(line 8\): mixed types: the label in column 'label' is 1, not a text"),
    ({"split": "practice"}, r"row 8 \(line 8\): column 'split' holds 'practice', no split: train"),
    ({"who": ""}, r"row 8 \(line 8\): the group in column 'who' is missing"),
]


@pytest.mark.parametrize(("change", "message"), BAD_TEXTS)
def test_a_bad_row_is_told_or_skipped(tmp_path: Path, change: dict[str, Any], message: str) -> None:
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
        (["a"] * 30, "there is a single class, 'a'"),
        (["a"] * 28 + ["b"] * 2, "too few examples of a class for 3 splits, .*'b' has 2"),
    ],
)
def test_classes_that_cannot_be_learned(tmp_path: Path, labels: list[str], message: str) -> None:
    with pytest.raises(DataError, match=rf"t\.csv: {message}"):
        load(write_csv(tmp_path / "t.csv", {"review": reviews()["review"], "label": labels}), "text")


def test_whole_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    columns = {"text": reviews()["review"], "label": [(2, 10, 1)[n % 3] for n in range(30)]}
    assert load(write_csv(tmp_path / "t.csv", columns), "text").label_names == ("1", "2", "10")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"text_column": "revue"}, "unknown column 'revue'; did you mean 'review'"),
        ({"text_column": "review", "target_column": "review"}, "column 'review' of t.csv cannot play two parts"),
        ({"target_column": ("label", "review")}, "classification has one target column"),
    ],
)
def test_columns_that_there_are_not(tmp_path: Path, option: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(write_csv(tmp_path / "t.csv", reviews()), "text", **option)


# ---- tables -----------------------------------------------------------------------------------------------


def test_a_table_has_numbers_and_categories(tmp_path: Path) -> None:
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
        ("price", "", "target 'price' is missing"),
        ("price", "NaN", "target 'price' is missing"),
        ("price", "much", "target 'price' is 'much', not a number"),
        ("price", "inf", "target 'price' is 'inf', which is not finite"),
        ("price", "1e300", "target 'price' is '1e300', too large to compute with"),
        ("rooms", "-1e200", "column 'rooms' is '-1e200', too large to compute with"),
        ("rooms", "many", "mixed types: column 'rooms' is 'many', not a number"),
        ("town", "7", "mixed types: column 'town' is '7', a number among texts"),
    ],
)
def test_bad_cells(tmp_path: Path, column: str, cell: str, message: str) -> None:
    columns = houses()
    columns[column][3] = cell
    path = write_csv(tmp_path / "t.csv", columns)
    with pytest.raises(DataError, match=rf"row 4 \(line 5\): {message}"):
        load(path, "table", target_column="price")
    assert load(path, "table", target_column="price", on_bad_row="skip").details["skipped_rows"] == 1


def test_a_whole_number_beyond_floating_point_is_told(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", [{"x": -(10**400) if n == 1 else n, "y": n} for n in range(40)])
    with pytest.raises(DataError, match=r"row 2 \(line 2\): column 'x' is -10+\.\.\., which is not finite"):
        load(path, "table", target_column="y")


def test_an_empty_column_is_told_by_its_name(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {**houses(), "note": ["", "NA"] * 20})
    with pytest.raises(DataError, match=r"column 'note' holds nothing; name the columns to use by --feature-columns"):
        load(path, "table", target_column="price")


def test_numbers_are_categories_where_the_user_says_so(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", houses())
    data = load(path, "table", target_column="price", categorical_columns=("rooms", "town"))
    assert data.train.inputs["features"].shape[1] == 1
    assert set(data.train.inputs["categories"][:, 0]) <= {str(n) for n in range(1, 9)}


def test_texts_to_score_by_stay_short_and_on_one_line(tmp_path: Path) -> None:
    rows = [{"text": f"t {n}", "label": n % 2, "note": "two\nlines " + "z" * 9**5 * (n % 2)} for n in range(40)]
    rows = [{**row, "seen": n % 2 == 0} for n, row in enumerate(rows)]
    groups = load(write_jsonl(tmp_path / "t.jsonl", rows), "text", slice_columns=("note", "seen")).train.groups
    assert set(groups["note"]) == {"two lines", "two lines " + "z" * 50 + "..."}
    assert set(groups["seen"]) == {"true", "false"}


def test_numbers_that_are_names_are_scored_by_name(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {**houses(), "zip": [f"0{n % 3}" for n in range(40)]})
    asked = {"target_column": "price", "slice_columns": ("zip",)}
    assert set(load(path, "table", **asked).train.groups["zip"]) == {0, 1, 2}
    assert set(load(path, "table", **asked, categorical_columns=("zip",)).train.groups["zip"]) == {"00", "01", "02"}


def test_a_column_of_names_is_no_category(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {**houses(), "address": [f"Road {n}" for n in range(40)]})
    with pytest.raises(DataError, match=r"column 'address' has 40 different texts in 40 rows.*--feature-columns"):
        load(path, "table", target_column="price")


# ---- images and recordings --------------------------------------------------------------------------------


@pytest.mark.parametrize("splits", [(), ("train", "val", "test"), ("train", "test")])
def test_folders_of_images(tmp_path: Path, splits: tuple[str, ...]) -> None:
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


def test_a_metadata_file_beside_the_recordings(tmp_path: Path) -> None:
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


def test_a_damaged_file_is_told_with_its_path_or_skipped(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    root = photos(tmp_path / "photos")
    (root / "cat" / "text.png").write_text("no image at all")
    big = write_image(root / "dog" / "cut.png", (64, 64, 3))
    big.write_bytes(big.read_bytes()[:4000])
    (root / "dog" / "none.jpg").touch()
    dataset = UserDataset(root, "image", "classification")
    with pytest.raises(DataError) as raised:
        dataset.settle(dataset.Options())
    assert "cat/text.png: it cannot be decoded (its format is not known); " in str(raised.value)
    assert "dog/none.jpg: it cannot be decoded (it is empty); " in str(raised.value)
    data = load(root, "image", on_bad_row="skip")
    assert data.details["skipped_rows"] == 3
    assert "dog/cut.png: it cannot be decoded" in str(data.details["skipped"])
    assert sum(map(len, (data.train, data.validation, data.test))) == 12


def test_a_recording_that_was_cut_off_is_told(tmp_path: Path) -> None:
    pytest.importorskip("soundfile", reason="recordings are read by soundfile")
    root = tmp_path / "recordings"
    for n in range(12):
        whole = write_sound(root / ("yes" if n % 2 else "no") / f"{n}.wav", seed=n)
    whole.write_bytes(whole.read_bytes()[:-100])
    dataset = UserDataset(root, "audio", "classification")
    with pytest.raises(DataError, match=f"{whole.name}: it is cut off: its header announces"):
        dataset.settle(dataset.Options())


def test_a_file_of_a_metadata_row_is_told_with_row_and_path(tmp_path: Path) -> None:
    pytest.importorskip("soundfile", reason="recordings are read by soundfile")
    names = [f"{n}.wav" for n in range(8)]
    for name in names[:6]:
        write_sound(tmp_path / name)
    write_sound(tmp_path / "6.wav", 0)
    path = write_csv(tmp_path / "t.csv", {"path": names, "label": ["no", "yes"] * 4})
    with pytest.raises(DataError) as raised:
        load(path, "audio")
    assert f"row 7 (line 8): {tmp_path / '6.wav'}: it holds no sound" in str(raised.value)
    assert f"row 8 (line 9): {tmp_path / '7.wav'}: there is no such file" in str(raised.value)


def test_images_of_every_color(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="images are read by Pillow")
    from harness.data.user_files.media import read_image

    for mode, channels in {"1": 1, "L": 1, "I;16": 1, "P": 3, "RGB": 3, "RGBA": 3, "LA": 3}.items():
        image.new(mode, (5, 4)).save(tmp_path / "i.png")
        pixels = read_image(tmp_path / "i.png", 256)
        assert (pixels.shape, pixels.dtype) == ((4, 5, channels), np.uint8), mode
        assert pixels.mean() == (255 if mode in ("RGBA", "LA") else 0), mode
    image.new("CMYK", (5, 4)).save(tmp_path / "i.jpg")
    assert read_image(tmp_path / "i.jpg", 256).shape == (4, 5, 3)
    image.fromarray(np.full((4, 5), 0x1234, np.uint16)).save(tmp_path / "i.png")
    assert set(read_image(tmp_path / "i.png", 256).ravel()) == {0x12}


def test_large_and_turned_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="images are read by Pillow")
    from harness.data.user_files.media import read_image

    exif = image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.new("RGB", (80, 40)).save(tmp_path / "i.jpg", exif=exif)
    assert read_image(tmp_path / "i.jpg", 256).shape == (80, 40, 3)
    assert read_image(tmp_path / "i.jpg", 20).shape == (40, 20, 3)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "there are no files of the kind image"),
        (["a.png", "cat/b.png"], r"a\.png is in no class's folder; put each file"),
        (["train/a.png", "test/cat/b.png"], r"train/a\.png is in a split's folder, but in no class's"),
        (["train/cat/a.png", "test/cat/b.png", "more/c.png"], r"folders of splits \(test, train\) and others \(more\)"),
        (["test/cat/a.png", "val/cat/b.png", "val/dog/b.png"], "no row is in the training split"),
    ],
)
def test_folders_that_say_nothing(tmp_path: Path, files: list[str], message: str) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    (tmp_path / "p").mkdir()
    for file in files:
        write_image(tmp_path / "p" / file)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "p", "image")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
@pytest.mark.parametrize(("closed", "message"), [("cat", "cat: the folder cannot be read"), (".", "cannot be read")])
def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path, closed: str, message: str) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    folder = photos(tmp_path / "photos") / closed
    folder.chmod(0)
    try:
        with pytest.raises((DataError, UsageError), match=f"{message}: Permission denied"):
            load(tmp_path / "photos", "image")
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("folder", ["fox", "train/fox"])
def test_a_class_of_files_that_are_not_read_is_told(tmp_path: Path, folder: str) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    root = tmp_path / "photos"
    photos(root / "train" if "/" in folder else root)
    (root / folder / "deep").mkdir(parents=True)
    assert len(load(root, "image").label_names) == 2
    (root / folder / "deep" / "0.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=rf"{folder} holds {folder}/deep/0\.heic, but no file that can be read \(\.bmp"):
        load(root, "image")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    for label in ("plane", "train"):
        for n in range(4):
            write_image(tmp_path / "p" / label / f"{n}.png", seed=n)
    assert load(tmp_path / "p", "image").label_names == ("plane", "train")


def test_text_from_a_folder_names_the_files_to_choose_from(tmp_path: Path) -> None:
    write_csv(tmp_path / "d" / "t.csv", reviews())
    with pytest.raises(UsageError, match=r"is a folder; give a file: .* in it there are: t\.csv"):
        load(tmp_path / "d", "text")
