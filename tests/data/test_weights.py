"""Tests of the weights of training examples, from a column of a table to a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import harness
from harness import Batch, DataInfo, InputSpec, PreparedData, RawData, Split
from harness.data.batches import Part, training_batches
from harness.data.prepared import dataset_digest
from harness.data.raw import check_raw
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.options import TableOptions, TextOptions
from harness.data.weights import effective_number, weighted
from harness.errors import DataError, UsageError

ROWS = [f"{number},{number % 2},{(number % 5) / 2},x{number}" for number in range(60)]


def table(folder: Path, rows: list[str] = ROWS) -> Path:
    path = folder / "rows.csv"
    path.write_text("a,label,w,text\n" + "\n".join(rows) + "\n")
    return path


def split(weights: list[float] | None) -> Split:
    return Split(
        inputs={"features": np.arange(4.0, dtype=np.float32)[:, None]},
        targets=np.array([0, 1, 0, 1]),
        weights=None if weights is None else np.array(weights),
    )


def raw(weights: list[float] | None) -> RawData:
    return RawData(train=split(weights), validation=split(None), test=split(None), label_names=("a", "b"))


def prepared(weights: list[float] | None) -> PreparedData:
    info = DataInfo(
        kind="features",
        inputs={"features": InputSpec(shape=(1,), dtype="float32")},
        objective="classification",
        outputs=2,
    )
    data = PreparedData(train=split(None), validation=split(None), test=split(None), info=info)
    return weighted(data, raw(weights))


def test_weight_column_is_not_a_feature_and_follows_its_rows(tmp_path: Path) -> None:
    dataset = UserDataset(table(tmp_path), "table", "classification")
    data = dataset.load(TableOptions(target_column="label", weight_column="w", feature_columns=("a",)))
    for part in (data.train, data.validation, data.test):
        assert part.weights is not None
        np.testing.assert_array_equal(part.weights, (part.inputs["features"][:, 0] % 5) / 2)
    settled, _, _ = dataset.settle(
        TableOptions(target_column="label", weight_column="w", group_column="text", on_bad_row="skip")
    )
    assert settled.feature_columns == ("a",)


def test_weight_column_of_texts(tmp_path: Path) -> None:
    options = TextOptions(text_column="text", target_column="label", weight_column="w")
    data = UserDataset(table(tmp_path), "text", "classification").load(options)
    numbers = [int(text[1:]) for text in data.train.inputs["text"]]
    np.testing.assert_array_equal(data.train.weights, [number % 5 / 2 for number in numbers])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", "weight column 'w' has no value"),
        ("-1", "weight column 'w' contains -1, but a weight must be at least 0"),
        ("heavy", "weight column 'w' contains 'heavy', which is not a number"),
        ("inf", "weight column 'w' contains 'inf', which is not finite"),
    ],
)
def test_bad_weight_is_a_bad_row(cell: str, message: str, tmp_path: Path) -> None:
    dataset = UserDataset(table(tmp_path, [*ROWS, f"99,1,{cell},y"]), "table", "classification")
    options = TableOptions(target_column="label", weight_column="w", feature_columns=("a",))
    with pytest.raises(DataError, match=message):
        dataset.load(options)


def test_weight_column_with_another_role_raises(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="specified for two roles"):
        UserDataset(table(tmp_path), "table", "classification").load(
            TableOptions(target_column="label", weight_column="label")
        )


def test_weighted_divides_by_the_mean_of_the_training_split() -> None:
    data = prepared([1, 2, 3, 10])
    np.testing.assert_array_equal(data.train.weights, np.array([0.25, 0.5, 0.75, 2.5], np.float32), strict=True)
    assert data.validation.weights is None
    assert data.info.details == {"effective_train_examples": round(16**2 / 114, 1)}
    assert prepared(None).info.details == {}


def test_digest_depends_on_the_weights() -> None:
    digests = {dataset_digest(prepared(weights)) for weights in (None, [1, 1, 1, 1], [1, 1, 1, 2])}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0, 1, 1], "training weights must be finite and at least 0, but example 1"),
        ([1.0, 1.0, np.nan, 1], "but example 2"),
        ([0.0] * 4, "all weights of the training split are 0"),
        ([1.0] * 3, r"the weights of the training split are float64 of shape \(3,\)"),
    ],
)
def test_check_raw_rejects_invalid_weights(weights: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_raw(raw(weights), "classification")


def test_batches_have_the_weights_of_their_examples() -> None:
    data = prepared([1, 2, 3, 10]).train
    assert data.weights is not None
    for part in (Part(0, 1), Part(1, 2)):
        for batch in training_batches(data, 2, seed=0, epoch=1, part=part):
            examples = batch.inputs["features"][:, 0].astype(int)
            np.testing.assert_array_equal(batch.example_weights, data.weights[examples], strict=True)
    assert next(training_batches(split(None), 2, seed=0, epoch=1)).example_weights is None


def test_parts_of_a_batch_have_the_weights_of_their_examples() -> None:
    weights = np.arange(5, dtype=np.float32)
    batch = Batch({"x": np.arange(5)}, np.zeros(5, np.int64), example_weights=weights)
    parts = [part for part, _ in batch.parts(2)]
    np.testing.assert_array_equal(np.concatenate([part.example_weights for part in parts]), weights)


def test_effective_number_of_equal_weights_is_their_number() -> None:
    assert effective_number(np.full(7, 1e200)) == pytest.approx(7)
    assert effective_number(np.array([0.0, 0.0, 5.0])) == 1


def test_take_selects_the_weights() -> None:
    assert harness.Split(inputs={}, targets=np.arange(3), weights=np.array([1.0, 2, 3])).take(
        np.array([2, 0])
    ).weights.tolist() == [3, 1]
