"""Tests of the permutation importance, in comparison with scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import harness_cli
from own_files import houses, write_csv
from sklearn.inspection import permutation_importance as by_sklearn
from toy_plugin import SET_FAST, install_toy

import harness
from harness.api.stored_run import Run
from harness.deploy.explanations import PERMUTATION, stored_importance
from harness.deploy.importance import original_columns, units, with_rows
from harness.deploy.predict import predict
from harness.errors import CombinationError, HarnessError, RecordError, UnknownNameError, UsageError
from harness.plugins import discover
from harness.records.store import WEIGHTS, Store, StoredRun
from harness.report.run_text import render
from harness.report.site.run_page import context

TEST = [number for number in range(80) if number % 4 == 0]


def sold_houses(count: int = 80) -> dict[str, list[Any]]:
    """Return houses whose price depends on the area and the town. Every fourth row is in the test split."""
    columns = houses(count)
    columns["sold"] = [f"2021-{1 + n % 12:02d}-{1 + n % 28:02d}" for n in range(count)]
    area = [float(cell or 100) for cell in columns["area"]]
    columns["price"] = [
        3 * size + {"Ulm": 0, "Bonn": 200}.get(town, 50) for size, town in zip(area, columns["town"], strict=True)
    ]
    columns["split"] = ["test" if number in TEST else "train" for number in range(count)]
    return columns


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoredRun]:
    """Return a run of a linear model on a table, whose weights were saved."""
    folder = tmp_path_factory.mktemp("explained")
    write_csv(folder / "houses.csv", sold_houses())
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        data = ("--dataset", str(folder / "houses.csv"), "--target-column", "price")
        settings = ("--set", 'dataset.date_columns=["sold"]', "--set", "recipe.optimizer=sgd")
        chosen = ("--task", "regression", "--model", "toy-linear", "--backend", "toy-numpy", *SET_FAST)
        harness_cli("run", *chosen, *data, *settings, "-q", "--save-weights", results=folder / "results")
        (stored,) = Store(folder / "results").load().runs
        yield stored


class _Model:
    """A scikit-learn estimator that predicts with the weights of a run."""

    def __init__(self, run: StoredRun, folder: Path) -> None:
        self.run, self.folder = run, folder

    def fit(self, table: Any, targets: Any) -> _Model:
        return self

    def predict(self, table: pd.DataFrame) -> Any:
        path = self.folder / "permuted.csv"
        table.to_csv(path, index=False)
        return predict(self.run, path, discover(), device="cpu").table["predicted_price"].to_numpy()


def test_importances_equal_those_of_scikit_learn(run: StoredRun, tmp_path: Path) -> None:
    columns = sold_houses()
    names = ["rooms", "area", "town", "sold"]
    table = pd.DataFrame({name: [columns[name][n] for n in TEST] for name in names})
    targets = np.array([columns["price"][n] for n in TEST])

    def score(model: _Model, rows: pd.DataFrame, expected: Any) -> float:
        return -float(np.sqrt(((model.predict(rows) - expected) ** 2).mean()))

    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        expected = by_sklearn(_Model(run, tmp_path), table, targets, scoring=score, n_repeats=1, random_state=3)
        found = Run(run.path, run.record).explain(repeats=1, seed=3)
    assert found["column"].tolist() == ["rooms", "area", "sold", "town"]
    values = dict(zip(found["column"], found.attrs["values"][:, 0], strict=True))
    for name, value in zip(names, expected.importances[:, 0], strict=True):
        assert values[name] == pytest.approx(value, rel=1e-4, abs=1e-3), name
    assert values["area"] > 1
    assert found["low"].isna().all()


@pytest.mark.plugins("tabular", "baselines")
def test_importances_of_a_linear_model_on_real_data_equal_those_of_scikit_learn(tmp_path: Path) -> None:
    from harness.execute.preparation import load_and_prepare
    from harness.execute.weights import load

    chosen = ("--task", "tabular", "--backend", "baseline", "--model", "logreg", "--quality-only", "--save-weights")
    harness_cli("run", *chosen, "-q", results=tmp_path)
    (stored,) = Store(tmp_path).load().runs
    catalog, spec = discover(), stored.record.spec
    task = catalog.task("tabular")
    raw, data = load_and_prepare(task, catalog.dataset("breast-cancer"), spec.dataset_options, spec.task_options)
    weights = load(stored.path / WEIGHTS)
    mean, scale = weights["standardscaler.mean_"], weights["standardscaler.scale_"]
    coefficients, bias = weights["logisticregression.coef_"][0], weights["logisticregression.intercept_"]

    def accuracy(_: Any, table: Any, targets: Any) -> float:
        features = harness.TableEncoder.from_json(data.fitted).encode({"features": table})["features"]
        return float((((features - mean) / scale @ coefficients + bias > 0) == targets).mean())

    expected = by_sklearn(
        _Model(stored, tmp_path),
        raw.test.inputs["features"],
        raw.test.targets,
        scoring=accuracy,
        n_repeats=4,
        random_state=1,
    )
    found = Run(stored.path, stored.record).explain(repeats=4, seed=1)
    assert found["column"].tolist() == list(raw.feature_names)
    np.testing.assert_allclose(found.attrs["values"], expected.importances, atol=1e-9)
    assert found["importance"].max() > 0.01


def test_importance_is_stored_and_shown(run: StoredRun) -> None:
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        done = harness_cli(
            "explain", "regression", "--repeats", "5", "--together", "area,rooms", results=run.path.parent
        )
    assert done.exit_code == 0, done.stderr
    stored = stored_importance(run)
    assert stored is not None
    assert [each.columns for each in stored.columns] == [("area", "rooms"), ("sold",), ("town",)]
    assert (stored.metric, stored.higher_is_better, stored.split) == ("rmse", False, "test")
    assert stored.score == pytest.approx(run.record.outcome.scores.test["rmse"], rel=1e-5)  # type: ignore[union-attr]
    for each in stored.columns:
        assert each.importance == pytest.approx(np.mean(each.values))
        assert each.interval is not None
        assert each.interval[0] < each.importance < each.interval[1]
    assert "area + rooms" in done.stdout
    assert "Increase in rmse" in done.stdout
    assert f"Saved {run.path / PERMUTATION}" in done.stderr
    page = context(run, "", {})
    assert page["importance"][0].rows[0][0] == "area + rooms"
    assert "area + rooms" in render(run.record, run.path)


def test_same_seed_gives_the_same_importances(run: StoredRun) -> None:
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        one, other = (
            Run(run.path, run.record).explain(repeats=2, seed=5, metric="r2", split="validation") for _ in range(2)
        )
    pd.testing.assert_frame_equal(one, other)
    assert (one.attrs["values"][:, 0] != one.attrs["values"][:, 1]).any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "accuracy"}, UnknownNameError, "unknown metric 'accuracy'"),
        ({"together": [["area", "size"]]}, UsageError, "^unknown column 'size'"),
        ({"together": [["area"], ["area", "town"]]}, UsageError, "^column 'area' is listed twice"),
    ],
)
def test_unknown_metrics_and_columns_are_refused(
    run: StoredRun, options: dict[str, Any], error: type[HarnessError], message: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        with pytest.raises(error, match=message):
            Run(run.path, run.record).explain(repeats=1, **options)


def test_changed_data_are_refused(run: StoredRun) -> None:
    path = run.path.parents[1] / "houses.csv"
    content = path.read_text()
    path.write_text(content.replace("Ulm", "Köln"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            install_toy(patch)
            with pytest.raises(HarnessError, match="content"):
                Run(run.path, run.record).explain(repeats=1)
    finally:
        path.write_text(content)


def test_damaged_file_is_reported_on_the_page(run: StoredRun) -> None:
    path = run.path / PERMUTATION
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    try:
        with pytest.raises(RecordError, match=r"permutation\.json"):
            stored_importance(run)
        page = context(run, "", {})
        assert page["importance"] == []
        assert "permutation.json" in page["importance_notes"][0]
        assert "permutation.json" in render(run.record, run.path)
    finally:
        path.unlink()


def test_parts_of_a_date_and_unnamed_columns_are_found() -> None:
    split = harness.Split(
        inputs={"features": np.zeros((2, 3)), "categories": np.array([["a"], ["b"]], object)}, targets=np.zeros((2, 1))
    )
    named = harness.RawData(
        train=split, validation=split, test=split, feature_names=("size", "sold (year)", "sold (month)")
    )
    reading = {"dates": {"sold": ["year", "month"]}, "categories": ["town"]}
    assert original_columns(named, reading) == {
        "size": [("features", 0)],
        "sold": [("features", 1), ("features", 2)],
        "town": [("categories", 0)],
    }
    unnamed = harness.RawData(train=split, validation=split, test=split)
    assert list(original_columns(unnamed, {})) == ["features 0", "features 1", "features 2", "categories 0"]


def test_units_keep_the_order_of_the_table_and_refuse_repetitions() -> None:
    columns = {name: [("features", number)] for number, name in enumerate("abc")}
    assert units(columns, [["c", "b"]]) == {
        ("a",): [("features", 0)],
        ("c", "b"): [("features", 2), ("features", 1)],
    }
    with pytest.raises(UnknownNameError, match="unknown column 'd'"):
        units(columns, [["d"]])
    with pytest.raises(UsageError, match="listed twice"):
        units(columns, [["a", "a"]])


def test_rows_are_taken_for_each_unit_separately() -> None:
    inputs = {"features": np.arange(6.0).reshape(3, 2), "categories": np.array([["x"], ["y"], ["z"]], object)}
    rows = np.array([[0, 2], [1, 0], [2, 1]])
    found = with_rows(inputs, [[("features", 0)], [("features", 1), ("categories", 0)]], rows)
    np.testing.assert_array_equal(found["features"], [[0, 5], [2, 1], [4, 3]])
    assert found["categories"][:, 0].tolist() == ["z", "x", "y"]
    assert inputs["features"][0, 1] == 1


def test_run_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        chosen = ("--task", "toy-classify", "--backend", "toy-numpy", *SET_FAST)
        harness_cli("run", *chosen, "-q", "--save-weights", results=tmp_path)
        (stored,) = Store(tmp_path).load().runs
        with pytest.raises(CombinationError, match="permutation importance requires a table"):
            Run(stored.path, stored.record).explain("permutation")
