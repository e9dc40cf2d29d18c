"""Tests of canonical weights: their dependence on seed and name only, and their distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import PluginError
from harness.execute.weights import check, initial_value, initial_weights
from harness.interfaces import Parameter
from harness.records.arrays import digest

WEIGHT = Parameter(name="layer.weight", shape=(20, 30), init="normal", scale=0.02)
BIAS = Parameter(name="layer.bias", shape=(20,), init="uniform", scale=0.1)
INITIALIZERS = ("zeros", "ones", "constant", "normal", "truncated_normal", "uniform", "orthogonal")


def values(init: str, scale: float = 1.0, shape: tuple[int, ...] = (200, 300), seed: int = 0) -> Any:
    return initial_value(Parameter(name="w", shape=shape, init=init, scale=scale), seed)


# ---- dependence on seed and name --------------------------------------------------------------------------


def test_initial_values_do_not_depend_on_the_other_parameters() -> None:
    together = initial_weights([WEIGHT, BIAS], seed=3)
    reordered = initial_weights([BIAS, Parameter(name="other", shape=(7,), init="normal"), WEIGHT], seed=3)
    for name in ("layer.weight", "layer.bias"):
        np.testing.assert_array_equal(together[name], reordered[name])


@pytest.mark.parametrize("init", ["normal", "truncated_normal", "uniform", "orthogonal"])
def test_initial_values_depend_on_seed_and_name(init: str) -> None:
    drawn = [
        initial_value(Parameter(name=name, shape=(4, 4), init=init), seed).tobytes()
        for name in ("a", "b", "")
        for seed in (0, 1, 2**32, 2**40)
    ]
    assert len(set(drawn)) == 12


@given(st.sampled_from(INITIALIZERS), st.integers(0, 2**53), st.text(max_size=5))
def test_same_seed_and_name_give_the_same_values(init: str, seed: int, name: str) -> None:
    parameter = Parameter(name=name, shape=(3, 2), init=init)
    np.testing.assert_array_equal(initial_value(parameter, seed), initial_value(parameter, seed))


@pytest.mark.parametrize("init", INITIALIZERS)
@pytest.mark.parametrize("shape", [(3,), (1, 1), (4, 2, 3, 3), (2, 5)])
def test_initial_values_have_shape_and_dtype(init: str, shape: tuple[int, ...]) -> None:
    drawn = values(init, shape=shape)
    assert (drawn.shape, drawn.dtype) == (shape, np.float32)
    assert np.isfinite(drawn).all()


@pytest.mark.parametrize("init", ["zeros", "ones", "constant", "normal", "truncated_normal", "uniform"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3)])
def test_scalars_and_empty_arrays_are_supported(init: str, shape: tuple[int, ...]) -> None:
    assert values(init, shape=shape).shape == shape


# ---- distributions ----------------------------------------------------------------------------------------


def test_constant_initializers_give_constants() -> None:
    assert set(values("zeros").flat) == {0}
    assert set(values("ones", scale=7).flat) == {1}
    assert set(values("constant", scale=0.25).flat) == {0.25}


@pytest.mark.parametrize("scale", [0.02, 3.0])
def test_random_initializers_have_the_expected_moments(scale: float) -> None:
    """With 60,000 values, the standard error of the mean is 0.4% of the standard deviation, that of the latter 0.3%."""
    normal, uniform, truncated = (values(init, scale) for init in ("normal", "uniform", "truncated_normal"))
    for drawn, deviation in (
        (normal, scale),
        (uniform, scale / math.sqrt(3)),
        # Standard deviation of a normal distribution truncated at 2: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)).
        (truncated, scale * 0.8796),
    ):
        assert abs(drawn.mean()) < 0.02 * deviation
        assert drawn.std() == pytest.approx(deviation, rel=0.015)
    assert np.abs(normal).max() > 3.5 * scale
    assert np.abs(uniform).max() <= scale
    assert np.abs(uniform).max() > 0.999 * scale
    assert np.abs(truncated).max() <= 2 * scale
    assert np.abs(truncated).max() > 1.99 * scale


@pytest.mark.parametrize(("shape", "gain"), [((30, 30), 1.0), ((50, 20), 1.0), ((20, 50), 2.0), ((8, 2, 3, 3), 1.0)])
def test_orthogonal_rows_or_columns_are_orthonormal(shape: tuple[int, ...], gain: float) -> None:
    matrix = values("orthogonal", gain, shape).reshape(shape[0], -1).astype(np.float64) / gain
    rows, columns = matrix.shape
    gram = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    np.testing.assert_allclose(gram, np.eye(min(rows, columns)), atol=1e-6)


def test_orthogonal_matrices_are_uniformly_distributed() -> None:
    """Without fixing the signs of R's diagonal, QR is not uniform (Mezzadri 2007), and the mean trace is not 0."""
    traces = [np.trace(values("orthogonal", 1.0, (3, 3), seed)) for seed in range(400)]
    assert abs(np.mean(traces)) < 4 / math.sqrt(400)


def test_parameter_with_more_elements_than_an_array_is_out_of_memory() -> None:
    for init in ("zeros", "normal", "truncated_normal", "uniform", "orthogonal"):
        with pytest.raises(MemoryError, match="the parameter 'w' with shape"):
            initial_value(Parameter(name="w", shape=(2**62, 10), init=init), 0)  # type: ignore[arg-type]


def test_unknown_initializer_raises() -> None:
    with pytest.raises(PluginError, match="parameter 'w' has the unknown initializer 'xavier'"):
        values("xavier")


def test_duplicate_name_raises() -> None:
    with pytest.raises(PluginError, match=r"lists the parameter 'layer\.bias' twice"):
        initial_weights([BIAS, WEIGHT, BIAS], seed=0)


# ---- digest -----------------------------------------------------------------------------------------------


def test_digest_is_pinned() -> None:
    """Published records are compared by their digests."""
    arrays = {"b": np.array([1, 2], np.int64), "a": np.array([[0.5, -1.0]], np.float32)}
    assert digest(arrays) == "872c181ae2534fe3ca046c4ae479abd1375aa1973ab2283d50c6d6279909a393"


def test_initial_values_are_pinned() -> None:
    """If numpy changed a generator's stream, runs with two versions would no longer start from the same weights."""
    assert (
        digest(initial_weights([WEIGHT, BIAS], seed=0))
        == "0fb76b68f77feef8f2faafba5457d38658c5e9f95065024519abea3afa091757"
    )


def test_digest_depends_on_name_dtype_shape_and_values() -> None:
    base = np.arange(6, dtype=np.float32).reshape(2, 3)
    flipped = base.copy()
    flipped[1, 2] = np.nextafter(flipped[1, 2], 9)
    changes = [
        {"w": base},
        {"v": base},
        {"w": base, "v": base},
        {"w": base.astype(np.float64)},
        {"w": base.astype(">f4")},
        {"w": base.view(np.int32)},
        {"w": base.reshape(3, 2)},
        {"w": base.reshape(6)},
        {"w": base.T},
        {"w": flipped},
        {"w": -base},
        {"w": base[:0]},
        {},
        {"x": np.float32(1).reshape(())},
        {"x": np.float32([1])},
    ]
    assert len({digest(arrays) for arrays in changes}) == len(changes)


def test_digest_ignores_order_and_memory_layout() -> None:
    one, two = np.arange(12.0).reshape(3, 4), np.arange(3)
    assert digest({"a": one, "b": two}) == digest({"b": two, "a": np.asfortranarray(one)})
    assert digest({"a": one[::2, ::2]}) == digest({"a": one[::2, ::2].copy()})


# ---- check ------------------------------------------------------------------------------------------------


def test_check_lists_all_mismatches() -> None:
    weights = initial_weights([WEIGHT, BIAS], seed=0)
    check(weights, [BIAS, WEIGHT])
    with pytest.raises(PluginError) as caught:
        check({"layer.weight": weights["layer.weight"].T, "extra": weights["layer.bias"]}, [WEIGHT, BIAS])
    assert str(caught.value) == (
        "the weights do not fit the model: missing layer.bias; unexpected extra; "
        "layer.weight has shape (30, 20), not (20, 30)"
    )


def test_check_of_another_model_gives_a_short_message() -> None:
    with pytest.raises(PluginError) as caught:
        check({}, [Parameter(name=f"layer.{number}.weight", shape=(1,)) for number in range(1000)])
    assert len(str(caught.value)) < 400
