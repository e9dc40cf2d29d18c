"""Tests of the batches for training and inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import batch_sizes, counts
from timed_sessions import make_split, order

from harness.data.batches import Part, inference_batches, steps_per_epoch, training_batches
from harness.interfaces import Split
from harness.records import IGNORED

seeds = st.integers(0, 2**40)


@given(counts, batch_sizes, seeds, st.integers(1, 50))
def test_training_batches_are_whole_and_repeat_nothing(count: int, size: int, seed: int, epoch: int) -> None:
    batches = list(training_batches(make_split(count), size, seed, epoch))
    assert len(batches) == steps_per_epoch(count, size)
    assert {len(batch.targets) for batch in batches} == {min(size, count)}
    seen = np.concatenate([batch.inputs["y"] for batch in batches])
    assert len(set(seen.tolist())) == len(seen)
    if count % size == 0 or count < size:
        assert sorted(seen.tolist()) == list(range(count))
    for batch in batches:
        assert batch.inputs["x"].tolist() == batch.targets.tolist() == np.float32(batch.inputs["y"])[:, None].tolist()


@given(st.integers(20, 60), batch_sizes, seeds)
def test_order_follows_from_seed_and_epoch(count: int, size: int, seed: int) -> None:
    split = make_split(count)
    whole = min(size, count)
    first = order(split, whole, seed, 1)
    assert first == order(split, whole, seed, 1)
    if whole < count // 2:
        assert first != order(split, whole, seed, 2)
        assert first != order(split, whole, seed + 1, 1)


def test_examples_left_out_of_one_epoch_come_in_another() -> None:
    split = make_split(11)
    seen = {number for epoch in range(1, 20) for batch in order(split, 5, 0, epoch) for number in batch}
    assert seen == set(range(11))


@given(counts, batch_sizes)
def test_inference_batches_keep_order_and_size(count: int, size: int) -> None:
    kept: list[int] = []
    for inputs, valid in inference_batches(make_split(count), size):
        assert {len(array) for array in inputs.values()} == {size}
        assert 1 <= valid <= size
        kept += inputs["y"][:valid].tolist()
        assert set(inputs["y"][valid:].tolist()) <= {kept[-1]}
    assert kept == list(range(count))


@pytest.mark.parametrize(
    "layout", [np.asfortranarray, lambda array: array[:, ::-1], lambda array: array.transpose(0, 2, 1)]
)
def test_batches_are_contiguous_whatever_the_data_are(layout: Callable[[Any], Any]) -> None:
    images = layout(np.zeros((10, 4, 4), np.float32))
    split = Split(inputs={"x": images}, targets=np.zeros((20, 3), np.float32)[::2])
    for batch in training_batches(split, 4, 0, 1):
        assert batch.inputs["x"].flags.c_contiguous
        assert batch.targets.flags.c_contiguous
    for inputs, _ in inference_batches(split, 4):
        assert inputs["x"].flags.c_contiguous


@given(counts, batch_sizes, st.integers(1, 5), st.booleans())
def test_parts_of_a_batch_are_its_examples_in_order(count: int, size: int, parts: int, augmented: bool) -> None:
    def noise(inputs: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return {**inputs, "x": inputs["x"] + np.float32(rng.random(inputs["x"].shape))}

    augment = noise if augmented else None
    split = make_split(count)
    whole = training_batches(split, size, 3, 2, augment)
    divided = zip(
        *(training_batches(split, size, 3, 2, augment, Part(rank, parts)) for rank in range(parts)), strict=True
    )
    for batch, pieces in zip(whole, divided, strict=True):
        for name, array in batch.inputs.items():
            np.testing.assert_array_equal(np.concatenate([piece.inputs[name] for piece in pieces]), array)
        np.testing.assert_array_equal(np.concatenate([piece.targets for piece in pieces]), batch.targets)
        sizes = [len(piece.targets) for piece in pieces]
        assert max(sizes) - min(sizes) <= 1
        np.testing.assert_allclose([piece.weight for piece in pieces], np.array(sizes) / len(batch.targets))
        assert batch.weight == 1


def test_weight_of_a_part_is_its_fraction_of_targets_that_are_not_ignored() -> None:
    targets = np.array([[0, 1, 2], [1, IGNORED, IGNORED], [2, IGNORED, IGNORED]])
    split = Split(inputs={"x": np.zeros(3, np.float32)}, targets=targets)
    weights = {
        targets.tobytes(): batch.weight
        for rank in range(2)
        for batch in training_batches(split, 3, 0, 1, None, Part(rank, 2))
        for targets in [batch.targets]
    }
    assert all(weight == (np.frombuffer(key, np.int64) != IGNORED).sum() / 5 for key, weight in weights.items())
    assert sum(weights.values()) == 1
