"""Rules for datasets. They are looked at with the options' defaults."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from harness.interfaces import Dataset, RawData, Split
from harness.plugins.requirements import missing
from harness.testing.declared import differences
from harness.testing.rule import Broken, NotChecked, Rule


class LoadedDataset:
    """A dataset and what it loads, once."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.does_not_load = False

    def load(self) -> RawData:
        from harness.data.cache import install_dir

        dataset = self.dataset
        if reason := missing(dataset.requires):
            raise NotChecked(reason)
        if dataset.files and not install_dir(dataset).is_dir():
            raise NotChecked(f"its files are not here; run: harness data fetch {dataset.name}")
        return dataset.load(dataset.Options())

    @cached_property
    def data(self) -> RawData:
        if self.does_not_load:
            raise NotChecked("it does not load")
        return self.load()

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.data.train, "validation": self.data.validation, "test": self.data.test}


def _describes_itself(it: LoadedDataset) -> None:
    for name in ("summary", "license", "kind"):
        if not str(getattr(it.dataset, name, "")).strip():
            raise Broken(f"{name} is empty")


def _loads(it: LoadedDataset) -> None:
    try:
        data = it.data
    except NotChecked:
        raise
    except Exception:
        it.does_not_load = True
        raise
    if not isinstance(data, RawData):
        it.does_not_load = True
        del it.data
        raise Broken(f"load gave a {type(data).__name__}")


def _is_deterministic(it: LoadedDataset) -> None:
    first = it.splits
    again = it.load()
    for name, split in first.items():
        for what, one, other in _pairs(split, getattr(again, name)):
            if not _same(one, other):
                raise Broken(f"{what} of {name} differ when it is loaded again")


def _has_examples(it: LoadedDataset) -> None:
    from harness.data.raw import check_lengths

    for name, split in it.splits.items():
        check_lengths(name, split)


def _targets_fit(it: LoadedDataset) -> None:
    from harness.data.raw import check_targets

    for name, split in it.splits.items():
        check_targets(name, split, it.dataset.objective, len(it.data.label_names))


def _splits_are_disjoint(it: LoadedDataset) -> None:
    if it.dataset.files:
        raise NotChecked("its splits are as published")
    owners: dict[bytes, str] = {}
    for name, split in it.splits.items():
        for number in range(len(split)):
            example = _bytes(split, number)
            if owners.setdefault(example, name) != name:
                raise Broken(f"example {number} of {name} is also in {owners[example]}")


def _is_as_declared(it: LoadedDataset) -> None:
    if found := differences(it.dataset, it.data):
        raise Broken("; ".join(found))


DATASET_RULES: tuple[Rule[LoadedDataset], ...] = (
    Rule(
        "dataset-describes-itself",
        "It has a summary, a license and a kind.",
        "set the class attributes summary, license (an SPDX name, or who allows what) and kind",
        _describes_itself,
    ),
    Rule("dataset-loads", "load gives a harness.RawData.", "return harness.RawData from load", _loads),
    Rule(
        "dataset-has-examples",
        "Every split has examples, and every input and group an entry for each.",
        "make all arrays of a split equally long, and leave no split empty; harness.holdout cuts one off",
        _has_examples,
    ),
    Rule(
        "dataset-targets-fit",
        "Targets are class numbers among label_names, int64 [N], of positions [N, L]; or finite floats [N, T].",
        "number the classes from 0 in the order of label_names; give regression targets a second axis",
        _targets_fit,
    ),
    Rule(
        "dataset-is-deterministic",
        "Loading twice gives the same arrays in the same order.",
        "draw from np.random.default_rng(a fixed seed) and sort what comes from folders and sets",
        _is_deterministic,
    ),
    Rule(
        "dataset-splits-are-disjoint",
        "No example is in two splits, where the splits are the dataset's own and not as published.",
        "drop duplicates before splitting, and split by group where examples share a source",
        _splits_are_disjoint,
    ),
    Rule(
        "dataset-is-as-declared",
        "examples, inputs and label_names, where declared, are those of what it loads.",
        "correct the declaration, or what load gives",
        _is_as_declared,
    ),
)


def _pairs(one: Split, other: Split) -> list[tuple[str, Any, Any]]:
    found = [("the targets", one.targets, other.targets)]
    return found + [(f"the input {key!r}", array, other.inputs.get(key)) for key, array in one.inputs.items()]


def _same(one: Any, other: Any) -> bool:
    import numpy as np

    if one is None or other is None:
        return one is other
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype == object:
        return all(_same_item(a, b) for a, b in zip(one.flat, other.flat, strict=True))
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))


def _same_item(one: Any, other: Any) -> bool:
    import numpy as np

    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other))
    return bool(one == other)


def _bytes(split: Split, number: int) -> bytes:
    import numpy as np

    parts = []
    for key in sorted(split.inputs):
        item = split.inputs[key][number]
        parts.append(item.tobytes() if isinstance(item, np.ndarray | np.generic) else repr(item).encode())
    return b"\0".join(parts)
