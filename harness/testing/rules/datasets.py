"""Rules for datasets. Datasets are checked with their default options."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from harness.interfaces import Dataset, RawData, Split
from harness.plugins.requirements import missing
from harness.testing.declared import differences
from harness.testing.rule import Broken, NotChecked, Rule


class LoadedDataset:
    """A dataset and its data, which are loaded only once."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.does_not_load = False

    def load(self) -> RawData:
        from harness.data.cache import install_dir

        dataset = self.dataset
        if reason := missing(dataset.requires):
            raise NotChecked(reason)
        if dataset.files and not install_dir(dataset).is_dir():
            raise NotChecked(f"the dataset's files are not installed; run: harness data fetch {dataset.name}")
        return dataset.load(dataset.Options())

    @cached_property
    def data(self) -> RawData:
        if self.does_not_load:
            raise NotChecked("the dataset cannot be loaded")
        return self.load()

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.data.train, "validation": self.data.validation, "test": self.data.test}


def _describes_itself(loaded: LoadedDataset) -> None:
    for name in ("summary", "license", "kind"):
        if not str(getattr(loaded.dataset, name, "")).strip():
            raise Broken(f"{name} is empty")


def _loads(loaded: LoadedDataset) -> None:
    try:
        data = loaded.data
    except NotChecked:
        raise
    except Exception:
        loaded.does_not_load = True
        raise
    if not isinstance(data, RawData):
        loaded.does_not_load = True
        del loaded.data
        raise Broken(f"load() returned a {type(data).__name__}")


def _is_deterministic(loaded: LoadedDataset) -> None:
    first = loaded.splits
    again = loaded.load()
    for name, split in first.items():
        for what, one, other in _pairs(split, getattr(again, name)):
            if not _same(one, other):
                raise Broken(f"{what} of {name} changed when the data were loaded again")


def _has_examples(loaded: LoadedDataset) -> None:
    from harness.data.raw import check_lengths

    for name, split in loaded.splits.items():
        check_lengths(name, split)


def _targets_fit(loaded: LoadedDataset) -> None:
    from harness.data.raw import check_targets

    for name, split in loaded.splits.items():
        check_targets(name, split, loaded.dataset.objective, len(loaded.data.label_names))


def _splits_are_disjoint(loaded: LoadedDataset) -> None:
    if loaded.dataset.files:
        raise NotChecked("the dataset uses its publisher's splits")
    owners: dict[bytes, str] = {}
    for name, split in loaded.splits.items():
        for number in range(len(split)):
            example = _bytes(split, number)
            if owners.setdefault(example, name) != name:
                raise Broken(f"example {number} of {name} is also in {owners[example]}")


def _is_as_declared(loaded: LoadedDataset) -> None:
    if messages := differences(loaded.dataset, loaded.data):
        raise Broken("; ".join(messages))


DATASET_RULES: tuple[Rule[LoadedDataset], ...] = (
    Rule(
        "dataset-describes-itself",
        "The dataset has a summary, a license and a kind.",
        "set the class attributes summary, license (an SPDX identifier or a description) and kind",
        _describes_itself,
    ),
    Rule("dataset-loads", "load() returns a harness.RawData.", "return harness.RawData from load()", _loads),
    Rule(
        "dataset-has-examples",
        "No split is empty, and every input and group has one entry for each example.",
        "return arrays of the same length for each split; use harness.holdout to create a missing validation split",
        _has_examples,
    ),
    Rule(
        "dataset-targets-fit",
        "Targets are indices into label_names, as int64 [N] or [N, L], or finite floats [N, T].",
        "number classes from 0 in the order of label_names; give regression targets a second axis",
        _targets_fit,
    ),
    Rule(
        "dataset-is-deterministic",
        "Loading the data twice returns the same arrays in the same order.",
        "use np.random.default_rng with a fixed seed, and sort the entries of folders and sets",
        _is_deterministic,
    ),
    Rule(
        "dataset-splits-are-disjoint",
        "No example is in two splits, unless the dataset uses its publisher's splits.",
        "remove duplicates before splitting, and keep examples from the same source in one split",
        _splits_are_disjoint,
    ),
    Rule(
        "dataset-is-as-declared",
        "The data match the declared examples, inputs and label_names.",
        "correct the declaration or the data that load() returns",
        _is_as_declared,
    ),
)


def _pairs(one: Split, other: Split) -> list[tuple[str, Any, Any]]:
    pairs = [("the targets", one.targets, other.targets)]
    return pairs + [(f"the input {key!r}", array, other.inputs.get(key)) for key, array in one.inputs.items()]


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
