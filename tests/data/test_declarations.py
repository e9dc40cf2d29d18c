"""Comparison of declared and loaded data, for all built-in datasets and for the check in `harness.testing`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from real_files import load_real

from harness import Dataset, NoOptions, RawData, RawInput, Split
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.testing import assert_as_declared


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return discover()


# Other distributions may be installed, too.
BUILT_IN = sorted(name for name, found in discover().datasets.items() if found.plugin.distribution == "ml-harness")
SLOW = ("imdb",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in BUILT_IN]
)
def test_built_in_dataset_loads_what_it_declares(catalog: Catalog, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    dataset = catalog.dataset(name)
    assert_as_declared(dataset, load_real(dataset))


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_dataset_declares_everything(catalog: Catalog, name: str) -> None:
    dataset = catalog.dataset(name)
    assert list(dataset.examples) == ["train", "validation", "test"]
    assert dataset.inputs
    assert catalog.metric(dataset.metric).objective == dataset.objective
    assert len(set(dataset.label_names)) == len(dataset.label_names) >= (1 if dataset.objective == "regression" else 2)
    for text in (dataset.summary, dataset.license, dataset.homepage, dataset.citation):
        assert text


class Signs(Dataset):
    """A dataset whose examples have a word or None, a waveform of varying length, and a number."""

    name, kind, objective = "signs", "mixed", "classification"
    examples = {"train": 4, "validation": 2, "test": 2}
    inputs = {
        "word": RawInput(shape=(1,), dtype="str"),
        "wave": RawInput(shape=(None, 2), dtype="float32"),
        "number": RawInput(shape=(), dtype="int64"),
    }
    label_names = ("no", "yes")

    def load(self, options: NoOptions) -> RawData:
        return DATA


def split(count: int) -> Split:
    waves = np.empty(count, object)
    waves[:] = [np.zeros((length, 2), np.float32) for length in range(count)]
    words = np.array([["a" * number or None] for number in range(count)], object)
    inputs = {"word": words, "wave": waves, "number": np.arange(count)}
    return Split(inputs=inputs, targets=np.arange(count) % 2)


DATA = RawData(train=split(4), validation=split(2), test=split(2), label_names=("no", "yes"))


def with_input(name: str, array: Any) -> RawData:
    return dataclasses.replace(DATA, test=Split(inputs={**DATA.test.inputs, name: array}, targets=DATA.test.targets))


def test_assert_as_declared_matching_data_passes() -> None:
    assert_as_declared(Signs(), DATA)
    assert_as_declared(Signs(), with_input("word", np.array([["a"], ["bc"]])))


def test_assert_as_declared_without_declarations_passes() -> None:
    assert_as_declared(type("Undeclared", (Dataset,), {"name": "undeclared", "load": None})(), DATA)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            dataclasses.replace(DATA, train=split(3)),
            "examples is declared as {'train': 4, .*, but the data have {'train': 3, ",
        ),
        (
            dataclasses.replace(DATA, label_names=("yes", "no")),
            "declared as .'no', 'yes'., but the data have .'yes', 'no'.",
        ),
        (with_input("more", np.zeros(2)), "inputs is declared as .*, but test has .*'more'"),
        (with_input("number", np.zeros(2)), "input 'number' is declared as .*'int64'.*, but test has .*'float64'"),
        (with_input("number", np.zeros((2, 1), np.int64)), r"'number' is declared .*, but test has .*shape=\(1,\)"),
        (with_input("wave", np.zeros((2, 9, 3), np.float32)), r"'wave' is declared .*, but test has .*shape=\(9, 3\)"),
        (with_input("word", np.array([["a"], [1]], object)), "'word' is declared .*, but test has .*'int64'"),
    ],
)
def test_assert_as_declared_different_data_fails(data: RawData, message: str) -> None:
    with pytest.raises(AssertionError, match=f"dataset 'signs' differs from its declaration:\n  .*{message}"):
        assert_as_declared(Signs(), data)
