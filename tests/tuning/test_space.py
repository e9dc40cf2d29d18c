"""Tests of search spaces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from harness.errors import UnknownNameError, UsageError
from harness.records import Recipe
from harness.tuning.space import Dimension, grid, overrides, parse, search_texts


class Config(Struct, frozen=True, kw_only=True):
    width: int = 8
    sizes: tuple[int, ...] = (8,)
    kind: str = "a"
    share: float | None = None
    bias: bool = True


FIELDS = {"recipe": Recipe, "model": Config, "task": Config}


def parsed(*texts: str) -> tuple[Dimension, ...]:
    return parse(texts, FIELDS)


def test_parse_of_every_form_gives_its_dimension() -> None:
    assert parsed(
        "recipe.learning_rate=log:1e-4:1e-2",
        "recipe.batch_size=16,32,64",
        "recipe.epochs=2:8",
        "recipe.dropout=0:0.5",
        "model.width=log:8:64",
        "model.sizes=[8],[16,8]",
        "model.kind=a:b,c",
        "task.share=0.1:0.9",
        "model.bias=true,false",
        "recipe.clip_norm=null,1.0",
    ) == (
        Dimension(name="recipe.learning_rate", kind="float", low=1e-4, high=1e-2, log=True),
        Dimension(name="recipe.batch_size", kind="choices", choices=(16, 32, 64)),
        Dimension(name="recipe.epochs", kind="int", low=2, high=8),
        Dimension(name="recipe.dropout", kind="float", low=0, high=0.5),
        Dimension(name="model.width", kind="int", low=8, high=64, log=True),
        Dimension(name="model.sizes", kind="choices", choices=("[8]", "[16,8]")),
        Dimension(name="model.kind", kind="choices", choices=("a:b", "c")),
        Dimension(name="task.share", kind="float", low=0.1, high=0.9),
        Dimension(name="model.bias", kind="choices", choices=(True, False)),
        Dimension(name="recipe.clip_norm", kind="choices", choices=(None, 1.0)),
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ((), "the search space is empty; pass --search"),
        (("recipe.batch_size",), "write it as section.key=VALUES"),
        (("batch_size=1,2",), "write it as section.key=VALUES"),
        (("recipe.batch_size=",), "is empty; list values"),
        (("recipe.batch_size=16",), "there is only one value"),
        (("recipe.batch_size=16,16",), "the same value occurs twice"),
        (("recipe.batch_size=16,32", "recipe.batch_size=8,4"), "recipe.batch_size is searched twice"),
        (("recipe.batch_size=16:8",), "16 is not less than 8"),
        (("recipe.batch_size=8:8",), "single value"),
        (("recipe.batch_size=1:2.5",), "'2.5' is not an integer, but recipe.batch_size must be an integer"),
        (("recipe.dropout=0:half",), "'half' is not a number"),
        (("recipe.dropout=0:inf",), "must be finite"),
        (("recipe.dropout=nan:1",), "must be finite"),
        (("recipe.learning_rate=log:0:1",), "must be positive, got 0.0"),
        (("recipe.learning_rate=log:1e-4:1e-3:1e-2",), "write a range as low:high"),
        (("recipe.learning_rate=log:1e-3",), "write a range as low:high or log:low:high"),
        (("model.kind=log:1:2",), "model.kind is not a number"),
        (("model.bias=log:1:2",), "model.bias is not a number"),
        (("protocol.window_s=1:2",), "only settings in the sections recipe, model, task can be searched"),
        (("dataset.draw=1,2",), "unknown section 'dataset'"),
        (("recipe.learning_rte=1,2",), "did you mean 'recipe.learning_rate'"),
    ],
)
def test_parse_of_an_invalid_search_raises(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(texts, FIELDS)
    assert message in str(raised.value)


def test_parse_of_an_unknown_option_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError):
        parsed("model.wdth=1,2")


@given(
    st.one_of(
        st.tuples(st.floats(1e-6, 1.0), st.floats(1.5, 1e6), st.booleans()).map(
            lambda ends: Dimension(name="recipe.epsilon", kind="float", low=ends[0], high=ends[1], log=ends[2])
        ),
        st.lists(st.integers(1, 10**6), min_size=2, max_size=5, unique=True).map(
            lambda values: Dimension(name="recipe.epochs", kind="choices", choices=tuple(values))
        ),
    )
)
def test_text_of_a_dimension_round_trips(dimension: Dimension) -> None:
    assert parsed(dimension.text) == (dimension,)


def test_search_texts_of_a_mapping_equal_those_of_the_command() -> None:
    search = {"recipe.learning_rate": "log:1e-4:1e-2", "recipe.batch_size": [16, 32], "model.sizes": [[8], [16, 8]]}
    assert search_texts(search) == (
        "recipe.learning_rate=log:1e-4:1e-2",
        "recipe.batch_size=16,32",
        "model.sizes=[8],[16,8]",
    )


def test_grid_has_all_values_and_ends() -> None:
    dimensions = parsed("recipe.batch_size=16,32", "recipe.dropout=0.0:0.5")
    assert [overrides(settings) for settings in grid(dimensions, 4) or ()] == [
        ("recipe.batch_size=16", "recipe.dropout=0.0"),
        ("recipe.batch_size=16", "recipe.dropout=0.5"),
        ("recipe.batch_size=32", "recipe.dropout=0.0"),
        ("recipe.batch_size=32", "recipe.dropout=0.5"),
    ]
    assert grid(dimensions, 3) is None
