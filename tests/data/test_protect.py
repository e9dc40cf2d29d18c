"""Tests of read-only splits and of the check that prepared data did not change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from harness.data.protect import Unchanged, read_only_raw, read_only_split, writable
from harness.errors import PluginError
from harness.interfaces import PreparedData, RawData, Split
from harness.records import DataInfo
from harness.records.arrays import digest, read_only

Array = np.ndarray[Any, Any]
INFO = DataInfo(kind="x", inputs={}, objective="regression", outputs=1)


def raw() -> RawData:
    def split(count: int) -> Split:
        text = np.array(["a"] * count, dtype=object)
        numbers = np.arange(3.0 * count).reshape(count, 3)
        return Split(inputs={"x": numbers, "text": text}, targets=np.ones((count, 1)), groups={"who": text.astype(str)})

    return RawData(train=split(4), validation=split(2), test=split(2))


def prepared(*, change: Callable[[Array], Array] = lambda array: array, data: RawData | None = None) -> PreparedData:
    data = data or raw()
    splits = {
        name: Split(inputs={"x": change(part.inputs["x"])}, targets=part.targets)
        for name, part in (("train", data.train), ("validation", data.validation), ("test", data.test))
    }
    return PreparedData(info=INFO, **splits)


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.bool_, np.uint8, "<U3", "<M8[s]", ">f4", object]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0),
    )
)
def test_read_only_view_is_equal_and_cannot_be_written(array: Array) -> None:
    view = read_only(array)
    assert (view.dtype, view.shape) == (array.dtype, array.shape)
    if array.dtype == object:  # in which NaN does not equal NaN
        assert all(mine is theirs for mine, theirs in zip(view.flat, array.flat, strict=True))
    else:
        np.testing.assert_array_equal(view, array)
    assert array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[...] = array
    if array.dtype.kind != "M":  # dates have no buffer interface
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.flags.writeable = True
        assert not isinstance(view.base, np.ndarray)


@pytest.mark.parametrize("part", [np.s_[:], np.s_[::2], np.s_[:, 1:], np.s_[::-1]])
def test_read_only_view_of_a_part_has_the_same_values(part: Any) -> None:
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert digest({"": read_only(array[part])}) == digest({"": array[part]})
    assert np.shares_memory(read_only(array[part]), array)


def test_read_only_view_of_a_masked_array_keeps_its_mask() -> None:
    array = np.ma.masked_array([1.0, 2.0], mask=[False, True])
    view = read_only(array)
    assert isinstance(view, np.ma.MaskedArray)
    assert view.mask.tolist() == [False, True]
    assert not view.flags.writeable


def test_read_only_raw_data_protects_inputs_targets_and_groups() -> None:
    data = read_only_raw(raw())
    for split in (data.train, data.validation, data.test):
        for array in (*split.inputs.values(), split.targets, *split.groups.values()):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = array[0]


def test_array_like_input_is_passed_on() -> None:
    class Rows:
        shape, dtype = (1,), np.dtype("f4")

    rows: Any = Rows()
    assert read_only_split(Split(inputs={"x": rows}, targets=np.ones(1))).inputs["x"] is rows


@pytest.mark.parametrize(
    ("change", "copied"),
    [(lambda x: x, False), (lambda x: x[:, 1:], True), (lambda x: x.astype(np.float32), False)],
    ids=["same", "slice", "conversion"],
)
def test_inputs_taken_over_by_a_task_become_writable_again(change: Callable[[Array], Array], copied: bool) -> None:
    original = raw()
    taken = prepared(change=change, data=read_only_raw(original))
    again = writable(taken)
    for name in ("train", "validation", "test"):
        found, before = getattr(again, name), getattr(original, name)
        assert found.inputs["x"].flags.writeable
        np.testing.assert_array_equal(found.inputs["x"], change(before.inputs["x"]))
        assert found.targets is before.targets
        same = np.shares_memory(found.inputs["x"], before.inputs["x"])
        assert same == (not copied and found.inputs["x"].dtype == np.float64)


def test_read_only_arrays_of_a_plugin_stay_as_they_are() -> None:
    shared = np.broadcast_to(np.ones((1, 3)), (4, 3))
    data = prepared(change=lambda x: shared[: len(x)])
    assert writable(data).train.inputs["x"] is data.train.inputs["x"]


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_changed_input_or_target_is_named(name: str) -> None:
    for part in ("input 'x'", "targets"):
        data = prepared()
        unchanged = Unchanged(data)
        unchanged.check(data, "some")
        split: Split = getattr(data, name)
        array = split.targets if part == "targets" else split.inputs["x"]
        array[-1] += 1e-9
        with pytest.raises(PluginError, match=f"the {name} {part} changed during the run.*backend 'some'"):
            unchanged.check(data, "some")


def test_changed_description_is_found() -> None:
    data = prepared()
    unchanged = Unchanged(data)
    unchanged.check(data, "some")
    data.info.details["target_unit"] = "km"
    with pytest.raises(PluginError, match=r"the description of the data .* changed during the run"):
        unchanged.check(data, "some")
