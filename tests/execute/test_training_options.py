"""Options of the recipe that refer to parameters or classes."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import UsageError
from harness.execute.training_options import class_weights, frozen_names, layer_of, rate_factors, with_frozen
from harness.interfaces import Batch, Parameter
from harness.records import IGNORED, DataInfo, InputSpec, Recipe, SplitInfo

NAMES = [
    "bert.embeddings.word.weight",
    "bert.embeddings.norm.bias",
    "bert.encoder.layer.0.query.weight",
    "bert.encoder.layer.0.norm.0.weight",
    "bert.encoder.layer.1.query.weight",
    "bert.pooler.dense.weight",
    "classifier.weight",
]
PARAMETERS = [Parameter(name=name, shape=(2,)) for name in NAMES]


def info(objective: str = "classification", counts: tuple[int, ...] = (6, 3, 1)) -> DataInfo:
    return DataInfo(
        kind="features",
        inputs={"features": InputSpec(shape=(4,), dtype="float32")},
        objective=objective,  # type: ignore[arg-type]
        outputs=len(counts),
        label_names=("a", "b", "c")[: len(counts)],
        splits={"train": SplitInfo(examples=sum(counts), classes=counts)},
    )


def test_patterns_select_trainable_parameters() -> None:
    names = frozen_names(Recipe(frozen=("*.norm.*", "classifier.weight")), PARAMETERS)
    assert names == {NAMES[1], NAMES[3], NAMES[6]}
    assert [each.name for each in with_frozen(PARAMETERS, names) if not each.trainable] == [NAMES[n] for n in (1, 3, 6)]


@pytest.mark.parametrize(
    ("patterns", "message"), [(("bart.*",), "'bart.\\*' matches no trainable parameter"), (("*",), "leave some")]
)
def test_patterns_that_match_nothing_or_everything_are_refused(patterns: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        frozen_names(Recipe(frozen=patterns), PARAMETERS)


def test_rates_decrease_from_the_output_to_the_input() -> None:
    assert [layer_of(name) for name in NAMES] == [
        "bert.embeddings",
        "bert.embeddings",
        "bert.encoder.layer.0",
        "bert.encoder.layer.0",
        "bert.encoder.layer.1",
        "bert.pooler",
        "classifier",
    ]
    factors = rate_factors(Recipe(layer_decay=0.5), PARAMETERS)
    assert [factors[name] for name in NAMES] == [1 / 16, 1 / 16, 1 / 8, 1 / 8, 1 / 4, 1 / 2, 1]
    assert rate_factors(Recipe(), PARAMETERS) == {}
    with pytest.raises(UsageError, match="only one layer"):
        rate_factors(Recipe(layer_decay=0.5), PARAMETERS[-1:])


def test_class_weights_have_a_mean_of_one_over_the_training_examples() -> None:
    assert class_weights(Recipe(), info()) is None
    assert class_weights(Recipe(class_weights="balanced"), info()) == pytest.approx((10 / 18, 10 / 9, 10 / 3))
    given = class_weights(Recipe(class_weights=(1.0, 2.0, 8.0)), info())
    assert given == pytest.approx((0.5, 1.0, 4.0))


@pytest.mark.parametrize(
    ("recipe", "data", "message"),
    [
        (Recipe(class_weights=(1.0, 2.0)), info(), "2 weights for 3 classes"),
        (
            Recipe(class_weights="balanced"),
            info(counts=(5, 0, 1)),
            "class 'b' is undefined because the class has no training examples",
        ),
        (Recipe(class_weights="balanced"), info("regression"), "regression has no classes"),
    ],
)
def test_class_weights_that_do_not_fit_the_data_are_refused(recipe: Recipe, data: DataInfo, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        class_weights(recipe, data)


@pytest.mark.parametrize(("examples", "count", "sizes"), [(6, 4, [2, 2, 1, 1]), (6, 6, [1] * 6), (2, 3, [1, 1])])
def test_parts_contain_every_example_once_and_keep_the_weight(examples: int, count: int, sizes: list[int]) -> None:
    rows = np.arange(examples)
    parts = list(Batch({"x": rows}, rows, 0.25, teacher_logits=rows[:, None] / 2).parts(count))
    assert [len(part.targets) for part, _ in parts] == sizes
    assert np.concatenate([part.inputs["x"] for part, _ in parts]).tolist() == rows.tolist()
    assert [share for _, share in parts] == [size / examples for size in sizes]
    assert {part.weight for part, _ in parts} == {0.25}
    assert all(np.array_equal(part.teacher_logits, part.targets[:, None] / 2) for part, _ in parts)


def test_shares_of_parts_are_those_of_positions_with_targets() -> None:
    targets = np.array([[1, 0, 2], [1, IGNORED, IGNORED]])
    assert [share for _, share in Batch({}, targets).parts(2)] == [3 / 4, 1 / 4]
