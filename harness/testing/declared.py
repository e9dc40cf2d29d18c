"""Whether a dataset is what it declares to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.interfaces import Dataset, RawData, RawInput

if TYPE_CHECKING:
    from numpy.typing import NDArray


def assert_as_declared(dataset: Dataset, data: RawData) -> None:
    """Raise AssertionError, which tells all differences, unless `data`, loaded with the options' defaults, have the
    `examples`, `inputs` and `label_names` that `dataset` declares. What it does not declare is not looked at.

    Example::

        def test_my_dataset_is_as_declared():
            dataset = MyDataset()
            harness.testing.assert_as_declared(dataset, dataset.load(dataset.Options()))
    """
    wrong = differences(dataset, data)
    if wrong:
        raise AssertionError("\n  ".join([f"dataset {dataset.name!r} is not as declared:", *wrong]))


def differences(dataset: Dataset, data: RawData) -> list[str]:
    """What of `data` is not as `dataset` declares."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    found = {name: len(split) for name, split in splits.items()}
    wrong = []
    if dataset.examples and dict(dataset.examples) != found:
        wrong.append(f"examples are {found}, declared {dict(dataset.examples)}")
    if dataset.label_names and tuple(dataset.label_names) != data.label_names:
        wrong.append(f"label_names are {data.label_names}, declared {tuple(dataset.label_names)}")
    for name, split in splits.items() if dataset.inputs else ():
        if set(split.inputs) != set(dataset.inputs):
            wrong.append(f"the inputs of {name} are {sorted(split.inputs)}, declared {sorted(dataset.inputs)}")
            continue
        for key, declared in dataset.inputs.items():
            others = [form for form in _forms(split.inputs[key]) if not _fits(form, declared)]
            if others:
                wrong.append(f"input {key!r} of {name} holds {others[0]}, declared {declared}")
    return wrong


def _forms(array: NDArray[Any]) -> list[RawInput]:
    """The different shapes and dtypes of the examples in `array`; None in an object array is a missing value."""
    import numpy as np

    if array.dtype != object:
        return [RawInput(shape=array.shape[1:], dtype=_dtype(array))]
    present = [np.asarray(item) for item in array.flat if item is not None]
    found = dict.fromkeys((item.shape, _dtype(item)) for item in present)
    return [RawInput(shape=(*array.shape[1:], *shape), dtype=dtype) for shape, dtype in found]


def _dtype(array: NDArray[Any]) -> str:
    return "str" if array.dtype.kind == "U" else array.dtype.name


def _fits(found: RawInput, declared: RawInput) -> bool:
    return (
        found.dtype == declared.dtype
        and len(found.shape) == len(declared.shape)
        and all(wanted in (None, length) for length, wanted in zip(found.shape, declared.shape, strict=True))
    )
