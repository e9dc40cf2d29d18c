"""Tests of names that are spelled in several ways."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_files import write_csv, write_image

from harness import DataError, RawData
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.spelling import composed, lookalikes, skeleton

EQUIVALENT = [
    ("Caf\u00e9", "Cafe\u0301"),
    ("\u00c5", "A\u030a"),
    ("\ud55c", "\u1112\u1161\u11ab"),
    ("\u2126", "\u03a9"),
]


def loaded(path: Path, kind: str, objective: str = "classification", **options: object) -> RawData:
    dataset = UserDataset(path, kind, objective)  # type: ignore[arg-type]
    return dataset.load(dataset.settle(dataset.Options(**options))[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(("one", "other"), EQUIVALENT)
def test_labels_in_two_unicode_forms_are_one_class(tmp_path: Path, one: str, other: str) -> None:
    labels = [(one, other, "tea")[number % 3] for number in range(60)]
    path = write_csv(tmp_path / "drinks.csv", {"text": [f"text {number}" for number in range(60)], "label": labels})
    data = loaded(path, "text")
    normal = unicodedata.normalize("NFC", one)
    assert data.label_names == tuple(sorted((normal, "tea")))
    assert list(data.warnings) == [f"composed and decomposed spellings of the label {normal!r} were merged"]


def test_class_folders_in_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="images are read by Pillow")
    for number, label in enumerate(("Caf\u00e9", "Cafe\u0301", "tea")):
        for n in range(6):
            write_image(tmp_path / "p" / label / f"{n}.png", (4, 4), seed=n + 10 * number)
    assert loaded(tmp_path / "p", "image").label_names == ("Caf\u00e9", "tea")


def test_categories_and_groups_in_two_unicode_forms_are_merged(tmp_path: Path) -> None:
    towns = [("K\u00f6ln", "Ko\u0308ln", "Bonn", "Kiel", "Ulm")[number % 5] for number in range(60)]
    columns = {"town": towns, "size": [*range(60)], "price": [number * 1.5 for number in range(60)]}
    path = write_csv(tmp_path / "t.csv", columns)
    data = loaded(path, "table", "regression", target_column="price")
    assert set(data.train.inputs["categories"].ravel()) == {"K\u00f6ln", "Bonn", "Kiel", "Ulm"}
    assert "category of column 'town' 'K\u00f6ln' were merged" in data.warnings[0]
    grouped = loaded(path, "table", "regression", target_column="price", feature_columns=("size",), group_column="town")
    parts = [set(split.groups["town"].tolist()) for split in (grouped.train, grouped.validation, grouped.test)]
    assert sum(map(len, parts)) == 4
    assert "spellings of the group 'K\u00f6ln' were merged" in grouped.warnings[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "Cat"),
        ("1", "1.0"),
        ("1000", "1e3"),
        ("01", "1"),
        ("cat", "cat\u200b"),
        ("cat", "\ufeffcat"),
        ("new york", "new  york"),
        ("new york", "new\u00a0york"),
        ("cat", "c\u0430t"),
        ("fish", "\ufb01sh"),
        ("it's", "it\u2019s"),
        ("soft", "so\u00adft"),
        ("cat", "cat."),
        ("cat", '"cat"'),
        ("big cat", "big_cat"),
        ("big cat", "big-cat"),
        ("x-ray", "x\u2010ray"),
        ("x-ray", "x\u2013ray"),
        ("\u263a", "\u263a\ufe0f"),
        ("istanbul", "\u0130stanbul"),
        ("0", "-0"),
        ("1", "\u0661"),
        ("cat", "\uff43\uff41\uff54"),
    ],
)
def test_names_that_look_alike_are_reported(one: str, other: str) -> None:
    (warning,) = lookalikes([one, other, "dog", one], "label")
    assert warning.startswith("labels that look alike are treated as different:")
    assert lookalikes([one, "dog", None, ""], "label") == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A-", "A"),
        ("C++", "C"),
        ("1", "2"),
        ("1.2.3", "1.2"),
        ("yes", "no"),
        ("a b", "ab"),
        ("x_y", "xy"),
        ("-1", "1"),
        ("...", ".."),
    ],
)
def test_names_that_differ_visibly_are_not_reported(one: str, other: str) -> None:
    assert lookalikes([one, other], "label") == []


@given(st.lists(st.text(max_size=6), max_size=8))
def test_composed_names_are_normal_and_composing_again_changes_nothing(names: list[str]) -> None:
    result, warnings = composed(names, "label")
    assert result == [unicodedata.normalize("NFC", name) for name in names]
    assert bool(warnings) == (len(set(names)) > len(set(result)))
    assert composed(result, "label") == (result, [])


@given(st.text(max_size=8))
def test_skeleton_ignores_case_invisible_characters_and_blanks(name: str) -> None:
    assert skeleton(f" {name}\u200b\t") == skeleton(name)


def test_reported_labels_show_what_cannot_be_seen() -> None:
    (warning,) = lookalikes(["cat", "cat\u200b"], "label")
    assert r"'cat' and 'cat\u200b'" in warning


@pytest.mark.parametrize(
    "words",
    [
        ["true", "false", "1"],
        ["TRUE", "yes", "no"],
        ["0", "1", "true", "false"],
        ["ja", "nein", "1"],
        ["t", "f", "true"],
        ["wahr", "falsch", "true"],
        ["oui", "non", "yes"],
        ["0", "1", "1.0"],
    ],
)
def test_labels_that_mean_true_and_false_in_several_words_are_reported(tmp_path: Path, words: list[str]) -> None:
    columns = {"text": [f"text {n}" for n in range(60)], "label": [words[n % len(words)] for n in range(60)]}
    warnings = loaded(write_csv(tmp_path / "t.csv", columns), "text").warnings
    assert any(
        "labels seem to be spellings of true and false, but are treated as different values" in text
        for text in warnings
    )


@pytest.mark.parametrize("words", [["true", "false"], ["yes", "no", "maybe"], ["1", "0", "2"], ["on", "off"]])
def test_other_labels_are_not_taken_for_true_and_false(tmp_path: Path, words: list[str]) -> None:
    columns = {"text": [f"text {n}" for n in range(60)], "label": [words[n % len(words)] for n in range(60)]}
    assert loaded(write_csv(tmp_path / "t.csv", columns), "text").warnings == ()


@pytest.mark.parametrize("text", ["\u200b\u200b", "\u00ad", "\ufeff", "\u200e \u3000", "\x07", "\u2060"])
def test_texts_of_invisible_characters_are_empty(tmp_path: Path, text: str) -> None:
    columns = {"text": [text if n == 3 else f"text {n}" for n in range(30)], "label": ["ab"[n % 2] for n in range(30)]}
    with pytest.raises(DataError, match=r"row 4 \(line 5\): the text in column 'text' is empty"):
        loaded(write_csv(tmp_path / "t.csv", columns), "text")


def test_text_with_half_of_a_character_is_named(tmp_path: Path) -> None:
    rows = [f'{{"text": "text {n}", "label": "{"ab"[n % 2]}"}}' for n in range(30)]
    rows[3] = '{"text": "a \\ud800 b", "label": "a"}'
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    with pytest.raises(
        DataError, match=r"row 4 \(line 4\): the text in column 'text' contains an incomplete character"
    ):
        loaded(tmp_path / "t.jsonl", "text")
