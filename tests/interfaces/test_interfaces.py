"""Tests of the classes that plugins implement, and of bindings and splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.interfaces import Backend, Binding, Dataset, Model, Parameter, SeededSplit, Session, Split, Task

shapes = st.lists(st.integers(1, 4), max_size=4).map(tuple)


@st.composite
def bindings(draw: st.DrawFn) -> tuple[Binding, Any]:
    """Draw a canonical array and a binding that transposes it, reshapes it, does both, or does neither."""
    shape = draw(shapes)
    canonical = np.arange(float(np.prod(shape))).reshape(shape)
    axes = draw(st.just(()) | st.permutations(range(len(shape))).map(tuple))
    own = [shape[axis] for axis in axes] if axes else list(shape)
    joins = st.sampled_from([(-1,), (1, *own), (*own, 1), (own[0] * own[1], *own[2:]) if len(own) > 1 else (-1,)])
    return Binding("variable", axes=axes, shape=draw(st.just(()) | joins)), canonical


@given(bindings())
def test_binding_round_trip(drawn: tuple[Binding, Any]) -> None:
    binding, canonical = drawn
    own = binding.to_own(canonical)
    back = binding.to_canonical(own, canonical.shape)
    assert back.shape == canonical.shape
    np.testing.assert_array_equal(back, canonical)


def test_binding_to_own_transposes_then_reshapes() -> None:
    canonical = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(Binding(None).to_own(canonical), canonical)
    np.testing.assert_array_equal(Binding(None, axes=(2, 0, 1)).to_own(canonical), canonical.transpose(2, 0, 1))
    own = Binding(None, axes=(1, 2, 0), shape=(12, 2)).to_own(canonical)
    np.testing.assert_array_equal(own, canonical.transpose(1, 2, 0).reshape(12, 2))


def test_binding_that_does_not_fit_raises() -> None:
    with pytest.raises(ValueError, match="axes"):
        Binding(None, axes=(1, 0)).to_own(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="reshape"):
        Binding(None, shape=(5,)).to_own(np.zeros((2, 2)))


def test_split_take_selects_examples_in_order() -> None:
    split = Split(
        inputs={"x": np.arange(5), "y": np.arange(10).reshape(5, 2)},
        targets=np.arange(5) * 10,
        groups={"g": np.arange(5) % 2},
    )
    taken = split.take(np.array([3, 0, 3]))
    assert len(taken) == 3
    assert taken.inputs["y"].tolist() == [[6, 7], [0, 1], [6, 7]]
    assert taken.targets.tolist() == [30, 0, 30]
    assert taken.groups["g"].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("interface", "methods"),
    [
        (Dataset, {"load"}),
        (Task, {"prepare"}),
        (Model, {"parameters", "flops_per_sample"}),
        (Backend, {"devices", "open"}),
        (
            Session,
            {"set_weights", "get_weights", "train_step", "gradients", "predict", "fetch", "synchronize"},
        ),
    ],
)
def test_a_class_without_its_required_methods_cannot_be_instantiated(interface: Any, methods: set[str]) -> None:
    assert interface.__abstractmethods__ == methods
    missing = sorted(methods)[0]
    written = dict.fromkeys(methods - {missing})
    with pytest.raises(TypeError, match=f"abstract method '?{missing}'?$"):
        type("Unfinished", (interface,), written)()
    type("Finished", (interface,), dict.fromkeys(methods))()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_split_seed_out_of_range_raises(seed: int) -> None:
    with pytest.raises(ValueError, match="split_seed must be between 0 and 2\\^32 - 1"):
        SeededSplit(split_seed=seed)


def test_parameter_defaults_to_trainable_zeros_without_decay() -> None:
    parameter = Parameter(name="b", shape=(2,))
    assert (parameter.init, parameter.trainable, parameter.decay) == ("zeros", True, False)
