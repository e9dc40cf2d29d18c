"""Compare the data loaded by a dataset with the attributes declared by its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.interfaces import Dataset, RawData, RawInput

if TYPE_CHECKING:
    from numpy.typing import NDArray


def assert_as_declared(dataset: Dataset, data: RawData) -> None:
    """Assert that loaded data match the `examples`, `inputs` and `label_names` that the dataset declares.

    Undeclared attributes are not compared.

    Parameters
    ----------
    dataset : Dataset
        The dataset.
    data : RawData
        The data that the dataset loads with its default options.

    Raises
    ------
    AssertionError
        If the data differ from the declaration. The message lists all differences.

    Examples
    --------
    >>> def test_my_dataset_is_as_declared():
    ...     dataset = MyDataset()
    ...     harness.testing.assert_as_declared(dataset, dataset.load(dataset.Options()))
    """
    wrong = differences(dataset, data)
    if wrong:
        raise AssertionError("\n  ".join([f"dataset {dataset.name!r} differs from its declaration:", *wrong]))


def differences(dataset: Dataset, data: RawData) -> list[str]:
    """Return one message for each difference between the loaded data and the declaration."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    counts = {name: len(split) for name, split in splits.items()}
    wrong = []
    if dataset.examples and dict(dataset.examples) != counts:
        wrong.append(f"examples is declared as {dict(dataset.examples)}, but the data have {counts}")
    if dataset.label_names and tuple(dataset.label_names) != data.label_names:
        wrong.append(f"label_names is declared as {tuple(dataset.label_names)}, but the data have {data.label_names}")
    for name, split in splits.items() if dataset.inputs else ():
        if set(split.inputs) != set(dataset.inputs):
            wrong.append(f"inputs is declared as {sorted(dataset.inputs)}, but {name} has {sorted(split.inputs)}")
            continue
        for key, declared in dataset.inputs.items():
            others = [form for form in _forms(split.inputs[key]) if not _fits(form, declared)]
            if others:
                wrong.append(f"input {key!r} is declared as {declared}, but {name} has {others[0]}")
    return wrong


def _forms(array: NDArray[Any]) -> list[RawInput]:
    """Return the distinct shapes and dtypes of the examples in an array. None represents a missing value."""
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
