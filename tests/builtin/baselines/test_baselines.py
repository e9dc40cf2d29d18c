"""Tests of the backend ``baseline``: scores of its models, and its differences from other backends."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import harness_cli

import harness
from harness.execute.weights import load, save
from harness.plugins import discover
from harness.records import RunRecord, Success
from harness.records.arrays import digest, read_arrays
from harness.records.samples import train_windows
from harness.records.store import ARRAYS
from harness.testing import BackendSuite, NetworkSuite
from harness.testing.rule import Broken
from harness.testing.rules.networks import NETWORK_RULES
from harness.testing.workbench import Workbench

QUICK = ("--set", "protocol.throughput_budget_s=0.2", "--set", "protocol.latency_budget_s=0.2")
MODELS = ("majority", "mean", "tfidf-logreg", "logreg", "mfcc-svm", "ridge", "gradient-boosting")


class TestBaselineBackend(BackendSuite):
    name = "baseline"


for _model in MODELS:
    _class = f"Test{_model.title().replace('-', '')}"
    globals()[_class] = type(_class, (NetworkSuite,), {"name": f"{_model}/baseline"})


def run(results: Path, *arguments: str) -> list[RunRecord]:
    harness_cli("run", *arguments, "--backend", "baseline", *QUICK, "--quiet", results=results)
    return harness.load(results).records


FLOOR = {
    "nlp": ("accuracy", 0.75),
    "vision": ("accuracy", 0.95),
    "speech": ("accuracy", 0.95),
    "regression": ("r2", 0.3),
    "tabular": ("accuracy", 0.9),
}


@pytest.mark.parametrize("task", [pytest.param(task, marks=pytest.mark.plugins(task)) for task in FLOOR])
def test_the_default_of_each_task(task: str, tmp_path: Path) -> None:
    fewer = ("--set", "dataset.takes=2") if task == "speech" else ()
    (record,) = run(tmp_path, "--task", task, *fewer)
    outcome = record.outcome
    assert isinstance(outcome, Success)
    metric, floor = FLOOR[task]
    assert outcome.scores.test[metric] > floor
    assert (outcome.model.parameters, len(outcome.curves), record.spec.recipe.epochs) == (0, 1, 1)
    windows = train_windows(record, read_arrays(next(tmp_path.glob(f"*/{ARRAYS}"))))
    assert windows is not None
    steady = windows.samples_per_s[windows.steady_from :]
    assert np.median(steady) == pytest.approx(outcome.speed.train_samples_per_s)
    assert outcome.latency.batch_size == record.spec.recipe.batch_size
    assert (outcome.speed.by_steps, outcome.speed.train_flops_per_s) == (False, None)


def session(model: str, **changes: Any) -> tuple[Workbench, harness.Session]:
    """Open a session of a model on the default dataset of its first task. ``logreg`` classifies images."""
    catalog = discover()
    catalog.tasks.pop("tabular", None)
    bench = Workbench(catalog.backend("baseline"), catalog, model)
    opened = bench.backend.open(dataclasses.replace(bench.request, **changes))
    opened.set_weights({})
    return bench, opened


@pytest.mark.plugins("vision")
def test_a_class_missing_in_training_is_never_predicted() -> None:
    bench, fitted = session("logreg")
    split = bench.data.train
    kept = np.flatnonzero((split.targets == 2) | (split.targets == 7))
    some = split.take(kept)
    fitted.train_step(harness.Batch(dict(some.inputs), some.targets), 0.0)
    outputs = fitted.fetch(fitted.predict(bench.batch(examples=50).inputs))
    assert outputs.shape == (50, 10)
    assert np.isfinite(outputs).all()
    assert set(outputs.argmax(axis=1)) == {2, 7}


@pytest.mark.plugins("regression")
def test_the_loss_is_that_of_the_training_split() -> None:
    bench, fitted = session("majority")
    batch = bench.batch(examples=40)
    loss = float(fitted.fetch(fitted.train_step(batch, 0.0)))
    fractions = np.bincount(batch.targets) / 40
    assert loss == pytest.approx(-(fractions * np.log(np.maximum(fractions, 1e-7))).sum(), rel=1e-4)


@pytest.mark.plugins("vision")
@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"device": "cuda:0"}, {"compile": True}], ids=str)
def test_unsupported_requests_are_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(harness.UnsupportedError, match="baseline"):
        session("logreg", **changes)


@pytest.mark.plugins("vision")
def test_predict_before_fitting_raises() -> None:
    bench, new = session("logreg")
    with pytest.raises(harness.UnsupportedError, match="is not fitted, so it cannot predict"):
        new.predict(bench.batch().inputs)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the regression task's models ``ridge``, with two seeds, ``mean`` and ``gradient-boosting``."""
    results = tmp_path_factory.mktemp("fitted")
    run(results, "--task", "regression", "--seed", "0,1", "--save-weights")
    run(results, "--task", "regression", "--model", "mean,gradient-boosting")
    return results


@pytest.mark.plugins("regression")
def test_ridge_is_the_closed_form_and_the_mean_explains_nothing(fitted: Path) -> None:
    scores = {record.spec.model: record.outcome.scores.test for record in harness.load(fitted)}  # type: ignore[union-attr]
    assert abs(scores["mean"]["r2"]) < 0.05
    assert scores["ridge"]["r2"] > 0.3


@pytest.mark.plugins("regression")
def test_fitted_weights_pass_the_audit(fitted: Path) -> None:
    assert {record.provenance.initial_weights_digest for record in harness.load(fitted)} == {None}
    told = harness_cli("audit", "regression-diabetes-ridge-baseline-s0", results=fitted).stdout
    assert "FAILED" not in told
    assert "initial none, fitted" in told
    assert "has seen no training split" not in told


@pytest.mark.plugins("regression")
@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "--backend", "baseline"),
        ("predict", "new.csv"),
        ("serve",),
        ("export", "--format", "onnx", "--output", "new"),
    ],
)
def test_command_that_needs_weights_refuses_a_model_without_them(fitted: Path, command: tuple[str, ...]) -> None:
    refused = harness_cli(command[0], "gradient-boosting-baseline-s0", *command[1:], results=fitted, status=2)
    assert (
        "the model 'gradient-boosting' of backend 'baseline' has no weights that can be saved, because the backend "
        "fits it in one call and does not return the fitted model as arrays"
    ) in refused.stderr


@pytest.mark.plugins("regression")
def test_save_weights_warns_about_models_without_weights(tmp_path: Path) -> None:
    chosen = ("--task", "regression", "--backend", "baseline", "--model", "ridge,gradient-boosting", "--dry-run")
    planned = harness_cli("run", *chosen, "--save-weights", results=tmp_path)
    assert "no weights that can be saved" in planned.stderr
    assert planned.stderr.rstrip().endswith("use their runs: gradient-boosting (baseline)")
    assert "no weights" not in harness_cli("run", *chosen, results=tmp_path).stderr


@pytest.mark.plugins("regression", "vision", "nlp")
@pytest.mark.parametrize("model", ["ridge", "mean", "majority", "logreg", "tfidf-logreg"])
def test_fitted_model_is_restored_exactly_from_its_file(model: str, tmp_path: Path) -> None:
    bench, fitted = session(model)
    assert fitted.get_weights() == {}
    batch = bench.batch(examples=len(bench.data.train))
    fitted.fetch(fitted.train_step(batch, 0.0))
    weights = fitted.get_weights()
    save(tmp_path / "weights.safetensors", weights)
    stored = load(tmp_path / "weights.safetensors")
    assert digest(stored) == digest(weights)
    _, other = session(model)
    other.set_weights(stored)
    for inputs in (batch.inputs, bench.data.test.inputs):
        np.testing.assert_array_equal(other.fetch(other.predict(inputs)), fitted.fetch(fitted.predict(inputs)))
    assert digest(other.get_weights()) == digest(weights)
    other.set_weights({})
    with pytest.raises(harness.UnsupportedError, match="is not fitted"):
        other.predict(batch.inputs)


@pytest.mark.plugins("regression", "vision", "speech", "nlp")
@pytest.mark.parametrize("model", MODELS)
def test_fit_prints_no_warnings(model: str, recwarn: pytest.WarningsRecorder) -> None:
    bench, fitted = session(model)
    fitted.fetch(fitted.train_step(bench.batch(examples=60), 0.0))
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.plugins("regression", "vision", "speech")
@pytest.mark.parametrize("model", ["gradient-boosting", "mfcc-svm"])
def test_fitted_model_that_is_not_linear_has_no_weights(model: str) -> None:
    bench, fitted = session(model)
    fitted.fetch(fitted.train_step(bench.batch(examples=60), 0.0))
    assert fitted.get_weights() == {}


@pytest.mark.plugins("regression")
def test_network_that_claims_fitted_weights_without_returning_them_breaks_a_rule() -> None:
    catalog = discover()
    provided = catalog.networks["gradient-boosting", "baseline"]
    claim = dataclasses.replace(provided.value, fitted_weights=True)
    catalog.networks["gradient-boosting", "baseline"] = dataclasses.replace(provided, value=claim)
    bench = Workbench(catalog.backend("baseline"), catalog, "gradient-boosting")
    with pytest.raises(Broken, match="returned no arrays after fitting"):
        NETWORK_RULES[0].check(bench)


CENTERED = """
import harness
from harness_baselines import Baseline
from harness_baselines.features import flat
from harness_baselines.models import Nothing, _Baseline

class Centered(_Baseline):
    name = "centered"
    summary = "linear regression of centered features"
    accepts = ("features",)
    objectives = ("regression",)
    Config = Nothing
    variants = {"centered": {}}

def build(config, info, dropout):
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    return harness.Network(module=Baseline(flat, make_pipeline(StandardScaler(with_std=SCALED), Ridge())), bindings={})

@harness.hookimpl
def harness_models():
    yield Centered()

@harness.hookimpl
def harness_networks():
    yield harness.NetworkRef(model="centered", backend="baseline", build=f"{__name__}:build")
"""
"""Plugin with a network that does not set `harness.NetworkRef.fitted_weights`."""


@pytest.mark.plugins("regression")
@pytest.mark.parametrize("scaled", [True, False])
def test_weights_of_a_network_that_does_not_declare_them_are_not_recorded(
    scaled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "centered_plugin.py").write_text(CENTERED.replace("SCALED", str(scaled)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "centered_plugin", raising=False)
    plugin, results = ("--plugin", "centered_plugin"), tmp_path / "results"
    (record,) = run(results, "--task", "regression", "--model", "centered", "--save-weights", *plugin)
    assert isinstance(record.outcome, Success)
    assert record.provenance.final_weights_digest is None
    assert "FAILED" not in harness_cli("audit", record.run_id, *plugin, results=results).stdout


@pytest.mark.plugins("nlp", "tabular")
@pytest.mark.parametrize(("task", "model"), [("nlp", "tfidf-logreg"), ("tabular", "logreg")])
def test_predict_repeats_the_predictions_of_the_run(task: str, model: str, tmp_path: Path) -> None:
    import pandas as pd

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    words = np.array(["red apple", "green tree", "blue sky"])
    columns = {"label": words[labels], **{f"x{n}": rng.normal(labels, 2.0) for n in range(3)}}
    if task == "nlp":
        mixed = np.where(rng.random(120) < 0.8, labels, rng.integers(0, 3, 120))
        columns = {"label": words[labels], "text": [f"{words[n]} number {k % 9}" for k, n in enumerate(mixed)]}
    path = tmp_path / "data.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    chosen = ("--task", task, "--model", model, "--dataset", str(path), "--target-column", "label")
    (record,) = run(tmp_path / "results", *chosen, "--save-weights")
    arrays = read_arrays(tmp_path / "results" / record.run_id / ARRAYS)
    new = harness.load(tmp_path / "results").runs[0].predict(path)
    tested = new.set_index("row").loc[arrays["test_rows"]]
    assert len(tested) == len(arrays["test_outputs"])
    names = [name for name in tested.columns if name.startswith("probability")]
    assert (len(names), new[names].to_numpy().std() > 0) == (3, True)
    exact = harness_predictions(tmp_path / "results", record.run_id)
    pd.testing.assert_frame_equal(
        tested[names].reset_index(drop=True), exact[names].reset_index(drop=True), check_exact=True
    )


def harness_predictions(results: Path, run: str) -> Any:
    """Return the predictions that ``harness predictions`` writes for a run."""
    import pandas as pd

    output = results.parent / "stored.parquet"
    harness_cli("predictions", run, "--format", "parquet", "--output", output, results=results)
    return pd.read_parquet(output)


def predicted(model: str, batch: harness.Batch, inputs: Any) -> np.ndarray:
    """Return the predictions of a model that was fitted on a batch."""
    _, fitted = session(model)
    fitted.fetch(fitted.train_step(batch, 0.0))
    return np.asarray(fitted.fetch(fitted.predict(inputs)))


@pytest.mark.plugins("regression", "tabular", "vision")
@pytest.mark.parametrize("model", ["ridge", "mean", "majority", "logreg", "gradient-boosting"])
def test_baseline_uses_the_weights_of_examples(model: str) -> None:
    """Examples with the weight 0 are not used. This is not tested where the features are scaled without weights, or
    where examples are counted, as in the leaves of trees."""
    batch = session(model)[0].batch(examples=60)
    kept = np.arange(60) % 3 > 0
    weighted = predicted(model, batch._replace(example_weights=kept.astype(np.float32)), batch.inputs)
    assert not np.allclose(weighted, predicted(model, batch, batch.inputs), rtol=1e-3)
    if model in ("ridge", "mean", "majority"):
        some = harness.Batch({name: array[kept] for name, array in batch.inputs.items()}, batch.targets[kept])
        np.testing.assert_allclose(weighted, predicted(model, some, batch.inputs), rtol=1e-3, atol=1e-4)
