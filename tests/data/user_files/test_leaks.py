"""Tasks fit on the training split only, and the leak check detects a task that does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from own_files import houses, photos, reviews, write_csv, write_sound

from harness import PreparedData, RawData, Split, Task
from harness.data.user_files.dataset import UserDataset
from harness.plugins import discover
from harness.testing import assert_nothing_leaks


def load(path: Path, task: Task, **options: object) -> RawData:
    dataset = UserDataset(path, task.kind, task.objective)
    return dataset.load(dataset.Options(**options))


TASKS = ("nlp", "vision", "speech", "regression")


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.plugins(name)) for name in TASKS])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Task, RawData]:
    """Return a task and user files for it that need every step of its preparation."""
    task = discover().task(request.param)
    if request.param == "nlp":
        return task, load(write_csv(tmp_path / "t.csv", reviews()), task)
    if request.param == "vision":
        pytest.importorskip("PIL", reason="images are read by Pillow")
        return task, load(photos(tmp_path / "photos", 10), task)
    if request.param == "speech":
        pytest.importorskip("soundfile", reason="recordings are read by soundfile")
        for label, n in ((label, n) for label in ("no", "yes") for n in range(10)):
            write_sound(tmp_path / "sounds" / label / f"{n}.wav", 300 + 10 * n, 8000 if n % 2 else 4000, seed=n)
        return task, load(tmp_path / "sounds", task)
    return task, load(write_csv(tmp_path / "t.csv", houses()), task, target_column="price")


def test_task_learns_nothing_from_validation_or_test(case: tuple[Task, RawData]) -> None:
    task, data = case
    assert_nothing_leaks(task, data)


@pytest.mark.parametrize("source", ["validation", "test"])
def test_a_planted_leak_is_caught(case: tuple[Task, RawData], source: str) -> None:
    task, data = case

    class Leaky(type(task)):  # type: ignore[misc]
        """A task that fits on the training split and on another split."""

        def prepare(self, data: RawData, options: object) -> PreparedData:
            pooled = dataclasses.replace(data, train=_together(data.train, getattr(data, source)))
            prepared = super().prepare(pooled, options)
            return dataclasses.replace(prepared, train=prepared.train.take(np.arange(len(data.train))))

    with pytest.raises(AssertionError, match=f"uses the {source} split in its preprocessing"):
        assert_nothing_leaks(Leaky(), data)


def _together(one: Split, other: Split) -> Split:
    return Split(
        inputs={name: np.concatenate([array, other.inputs[name]]) for name, array in one.inputs.items()},
        targets=np.concatenate([one.targets, other.targets]),
    )
