"""Tests of the structure of folders: classes, splits, empty folders and ignored files."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_files import write_csv, write_image

from harness import DataError, RawData
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.folders import ClassFolders, files_by_class


def tree(root: Path, *names: str) -> Path:
    """Create empty files, and folders for names that end with a slash."""
    root.mkdir(exist_ok=True)
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return root


def grid(tops: list[str], inner: list[str], suffix: str = ".png") -> list[str]:
    return [f"{top}/{folder}/{number}{suffix}" for top in tops for folder in inner for number in range(2)]


def found(root: Path, *names: str, level: int | None = None) -> ClassFolders:
    return files_by_class(tree(root, *names), "image", level)


@pytest.mark.parametrize(
    ("tops", "splits"),
    [
        (["train", "test"], {"train", "test"}),
        (["Training", "Testing"], {"train", "test"}),
        (["TRAIN", "TEST"], {"train", "test"}),
        (["train", "eval"], {"train", "test"}),
        (["train", "evaluation", "dev"], {"train", "validation", "test"}),
        (["train", "val", "test"], {"train", "validation", "test"}),
        (["train", "valid"], {"train", "validation"}),
        (["training", "Validation", "TESTING"], {"train", "validation", "test"}),
    ],
)
def test_split_folders_define_splits(tmp_path: Path, tops: list[str], splits: set[str]) -> None:
    classes = found(tmp_path / "p", *grid(tops, ["glioma", "healthy"]))
    assert set(classes.labels) == {"glioma", "healthy"}
    assert set(classes.splits or ()) == splits
    assert classes.warnings == []


@pytest.mark.parametrize(
    "tops",
    [["train", "plane"], ["test", "sample"], ["dev", "sales", "support"], ["cat", "dog"], ["0", "1"]],
)
def test_classes_may_be_named_like_a_split(tmp_path: Path, tops: list[str]) -> None:
    classes = found(tmp_path / "p", *(f"{top}/{number}.png" for top in tops for number in range(2)))
    assert (set(classes.labels), classes.splits) == (set(tops), None)


@pytest.mark.parametrize(
    ("tops", "inner"),
    [
        (["lern", "pruef"], ["a", "b"]),
        (["Training_set", "Testing_set"], ["cat", "dog", "fox"]),
        (["fold1", "fold2", "fold3"], ["a", "b"]),
        (["site_a", "site_b"], ["glioma", "healthy", "meningioma"]),
        (["2023", "2024"], ["yes", "no"]),
    ],
)
def test_unknown_level_is_refused_with_both_levels(tmp_path: Path, tops: list[str], inner: list[str]) -> None:
    with pytest.raises(DataError, match="cannot determine which folders are the classes") as raised:
        found(tmp_path / "p", *grid(tops, inner))
    assert all(name in str(raised.value) for name in (*tops, *inner, "class_level=1", "class_level=2"))
    assert set(found(tmp_path / "p", level=1).labels) == set(tops)
    below = found(tmp_path / "p", level=2)
    assert (set(below.labels), below.splits) == (set(inner), None)
    assert "were ignored, because the class level is 2" in below.warnings[0]


def test_unknown_level_is_refused_if_a_split_lacks_a_class(tmp_path: Path) -> None:
    names = [name for name in grid(["alpha", "beta"], ["a", "b", "c"]) if not name.startswith("beta/c")]
    with pytest.raises(DataError, match="cannot determine"):
        found(tmp_path / "p", *names)


def test_subfolders_of_classes_with_different_names_belong_to_the_class(tmp_path: Path) -> None:
    classes = found(tmp_path / "p", "cat/s1/0.png", "cat/s2/0.png", "dog/s3/0.png", "dog/s4/1.png")
    assert classes.labels == ["cat", "cat", "dog", "dog"]


def test_a_single_outer_folder_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"all files are in the folder data; pass the path .*p/data"):
        found(tmp_path / "p", *grid(["data"], ["cat", "dog"]))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("c_empty/", r"no image files \(.*\) in the class folder c_empty;"),
        ("d_nested/deeper/", r"in the class folder d_nested;"),
        ("e_text/notes.txt", r"in the class folder e_text; it contains e_text/notes\.txt;"),
        ("f_hidden/.DS_Store", r"in the class folder f_hidden;"),
        ("g_thumbs/Thumbs.db", r"in the class folder g_thumbs;"),
    ],
)
def test_class_folder_without_files_is_refused(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        found(tmp_path / "p", "a/0.png", "b/0.png", extra)


def test_all_class_folders_without_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in the class folders c, d;"):
        found(tmp_path / "p", "a/0.png", "b/0.png", "c/", "d/deeper/")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["test/"], "the split folder test has no image files"),
        (["test/a/", "test/b/"], "the split folder test has no image files"),
        (["val/"], "the split folder val has no image files"),
        (["test/a/0.txt"], "the split folder test has no image files"),
        (["train/c/"], "in the class folder train/c;"),
        (["test/a/0.png", "test/c/"], "in the class folder test/c;"),
    ],
)
def test_split_folder_without_files_is_refused(tmp_path: Path, extra: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        found(tmp_path / "p", "train/a/0.png", "train/b/0.png", *extra)


def test_class_folder_that_is_empty_in_one_split_is_reported(tmp_path: Path) -> None:
    classes = found(tmp_path / "p", "train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/")
    assert classes.warnings == ["the folder test/b has no files"]


@pytest.mark.parametrize(
    ("others", "warning"),
    [
        (["a/x.txt"], "1 file is not in a format that can be read as images and was ignored (.txt: 1)"),
        (
            ["a/x.svg", "a/y.SVG", "b/z.raw"],
            "3 files are not in a format that can be read as images and were ignored (.svg: 2, .raw: 1)",
        ),
        (["a/README"], "1 file is not in a format that can be read as images and was ignored (no suffix: 1)"),
        (["notes.md"], "1 file is not in a format that can be read as images and was ignored (.md: 1)"),
        (["a/x.mp4"], "1 file is not in a format that can be read as images and was ignored (.mp4: 1)"),
        (["a/Thumbs.db", "b/desktop.ini", ".DS_Store", "__MACOSX/a/._0.png", ".cache/x.txt"], None),
        (["__MACOSX/a/0.png"], "1 image file is hidden or in a hidden folder and was ignored (__MACOSX)"),
        (
            ["a/.thumbs/0.png", "a/.thumbs/deep/1.JPG", "b/.2.png"],
            "3 image files are hidden or in hidden folders and were ignored (.2.png, .thumbs)",
        ),
    ],
)
def test_files_of_other_formats_are_counted(tmp_path: Path, others: list[str], warning: str | None) -> None:
    classes = found(tmp_path / "p", "a/0.png", "b/0.png", *others)
    assert classes.warnings == ([warning] if warning else [])


def test_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "p", "a/0.png", "b/0.png")
    try:
        (root / "b" / "caf\udce9.png").touch()
    except OSError:
        pytest.skip("this file system stores names in UTF-8 only")
    with pytest.raises(DataError, match=r"the name b/caf\\udce9\.png is not encoded in UTF-8"):
        found(root)


def photos_of(root: Path, split: str, count: int) -> None:
    for number in range(count):
        write_image(root / split / f"{number:03}.png", (6, 6), seed=number)


def loaded(root: Path, **options: object) -> RawData:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    dataset = UserDataset(root, "image", "classification")
    return dataset.load(dataset.settle(dataset.Options(**options))[0])  # type: ignore[arg-type]


def test_metadata_in_split_folders_are_read(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("test", 6)):
        photos_of(tmp_path / "hf", split, count)
        names = [f"{number:03}.png" for number in range(count)]
        labels = ["ab"[number % 2] for number in range(count)]
        write_csv(tmp_path / "hf" / split / "metadata.csv", {"file_name": names, "label": labels})
    data = loaded(tmp_path / "hf")
    assert (len(data.train) + len(data.validation), len(data.test)) == (20, 6)
    assert data.test.targets.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"train": {"file_name": ["000.png"], "label": ["a"]}, "test": None}, "the folder test has no metadata file"),
        (
            {"train": {"file_name": ["000.png"], "label": ["a"]}, "more": {"file_name": ["000.png"], "label": ["a"]}},
            "more is not the name of a split",
        ),
        (
            {"train": {"file_name": ["000.png"], "label": ["a"]}, "test": {"path": ["000.png"], "label": ["a"]}},
            "have different columns",
        ),
        (
            {"train": {"file_name": ["9.png"], "label": ["a"]}, "test": {"file_name": ["000.png"], "label": ["a"]}},
            r"train/metadata\.csv row 1 \(line 2\): .*the file does not exist",
        ),
    ],
)
def test_inconsistent_metadata_in_split_folders_are_refused(
    tmp_path: Path, folders: dict[str, dict[str, list[str]] | None], message: str
) -> None:
    for split, columns in folders.items():
        photos_of(tmp_path / "hf", split, 1)
        if columns is not None:
            write_csv(tmp_path / "hf" / split / "metadata.csv", columns)
    with pytest.raises(DataError, match=message):
        loaded(tmp_path / "hf")


@pytest.mark.parametrize(
    "written",
    ["Images\\{}.png", ".\\Images\\{}.png", "./Images/{}.png", "Images/{}.png", "Images\\..\\Images\\{}.png"],
)
def test_paths_of_metadata_may_be_written_on_windows(tmp_path: Path, written: str) -> None:
    for number in range(12):
        write_image(tmp_path / "win" / "Images" / f"{number}.png", (6, 6), seed=number)
    names = [written.format(number) for number in range(12)]
    write_csv(tmp_path / "win" / "metadata.csv", {"path": names, "label": ["a", "b"] * 6})
    data = loaded(tmp_path / "win")
    assert len(data.train) + len(data.validation) + len(data.test) == 12
    expected = ["12 paths with backslashes were read as paths with slashes"] if "\\" in written else []
    assert list(data.warnings) == expected


@pytest.mark.parametrize("stored", ["Caf\u00e9", "Cafe\u0301"])
@pytest.mark.parametrize("written", ["Caf\u00e9", "Cafe\u0301"])
def test_paths_of_metadata_may_be_in_another_unicode_form(tmp_path: Path, stored: str, written: str) -> None:
    for number in range(12):
        write_image(tmp_path / "m" / stored / f"{number}.png", (6, 6), seed=number)
    names = [f"{written}/{number}.png" for number in range(12)]
    write_csv(tmp_path / "m" / "metadata.csv", {"path": names, "label": ["a", "b"] * 6})
    assert loaded(tmp_path / "m").warnings == ()


def test_files_that_metadata_do_not_list_are_counted(tmp_path: Path) -> None:
    for number in range(14):
        write_image(tmp_path / "m" / f"{number:02}.png", (6, 6), seed=number)
    (tmp_path / "m" / "notes.txt").touch()
    names = [f"{number:02}.png" for number in range(12)]
    write_csv(tmp_path / "m" / "metadata.csv", {"path": names, "label": ["a", "b"] * 6})
    assert list(loaded(tmp_path / "m").warnings) == [
        "1 file is not in a format that can be read as images and was ignored (.txt: 1)",
        "2 image files are not listed in the metadata and were ignored: 12.png, ...",
    ]


@pytest.mark.parametrize(
    "tops",
    [
        ["train", "training"],
        ["Train", "train"],
        ["val", "valid"],
        ["dev", "validation"],
        ["test", "eval"],
        ["TEST", "Test"],
    ],
)
def test_folders_with_two_names_of_one_split_are_refused(tmp_path: Path, tops: list[str]) -> None:
    others = [] if tops[0].lower() == "train" else ["train"]
    with pytest.raises(
        DataError, match=r"the folders \w+ and \w+ are both named after the (train|validation|test) split"
    ) as raised:
        found(tmp_path / "p", *grid([*tops, *others], ["a", "b"]))
    assert all(top in str(raised.value) for top in tops)


@pytest.mark.parametrize(
    "tops",
    [
        ["training_set", "test_set"],
        ["trainset", "testset"],
        ["Train Images", "Test Images"],
        ["my-train", "my-val"],
        ["TrainData-train", "TestData-test"],
        ["train1", "test1"],
    ],
)
def test_folders_named_similarly_to_splits_are_not_taken_as_classes(tmp_path: Path, tops: list[str]) -> None:
    names = [*grid(tops[:1], ["a", "b"]), *grid(tops[1:], ["a"])]
    with pytest.raises(DataError, match="cannot determine which folders are the classes"):
        found(tmp_path / "p", *names)
    assert set(found(tmp_path / "p", *names, level=2).labels) == {"a", "b"}


def test_class_folders_named_similarly_to_splits_without_inner_folders_are_classes(tmp_path: Path) -> None:
    names = ["train_station/0.png", "train_station/1.png", "test_tube/0.png", "test_tube/1.png"]
    assert set(found(tmp_path / "p", *names).labels) == {"train_station", "test_tube"}


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["cat/in/0.png", "cat/out/0.png", "dog/0.png"], 2),
        (["train/x/a/0.png", "train/y/0.png", "test/x/0.png", "test/y/deep/er/0.png"], 2),
    ],
)
def test_folders_inside_class_folders_are_reported(tmp_path: Path, names: list[str], count: int) -> None:
    (warning,) = found(tmp_path / "p", *names).warnings
    assert warning.startswith(f"{count} files are in subfolders of class folders")


@pytest.mark.parametrize("suffix", ["m4a", "AAC", "wma", "webm"])
def test_recordings_in_formats_that_cannot_be_read_are_counted_with_a_remedy(tmp_path: Path, suffix: str) -> None:
    root = tree(tmp_path / "s", "a/0.wav", "b/0.wav", f"b/1.{suffix}")
    (warning,) = files_by_class(root, "audio").warnings
    assert f"(.{suffix.lower()}: 1); convert the recordings, for example with: ffmpeg" in warning


@pytest.mark.parametrize(
    ("tops", "named"),
    [
        (
            ["train", "car", "bus"],
            "train: this folder is named after a split, but is read as a class, because there are also other folders",
        ),
        (["test", "rest"], "this folder is named after a split"),
        (["train", "train_aug"], "train: this folder is named after a split"),
        (["Valid", "void"], "Valid: this folder is named after a split"),
        (["eval", "evil"], "eval"),
        (["car", "bus"], None),
        (["trains", "cars"], None),
        (["training_set_1", "other"], None),
    ],
)
def test_class_folders_named_like_a_split_are_reported(tmp_path: Path, tops: list[str], named: str | None) -> None:
    names = [f"{top}/{number}.png" for top in tops for number in range(3)]
    warnings = found(tmp_path / "p", *names).warnings
    assert [named in text for text in warnings] == [True] if named else warnings == []
    assert found(tmp_path / "p", *names, level=1).warnings == []
