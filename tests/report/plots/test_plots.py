from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from sample_records import comparison, failure, record, success
from sample_store import example, hostile, report_of, write

from harness.errors import UnknownNameError, UsageError
from harness.measure.quality.metrics import probabilities
from harness.records import TrainedWeights
from harness.report.plots.curves import GRID, decision_curves, macro
from harness.report.plots.figure import PLOTS, figure
from harness.report.plots.points import curves, panels, pareto, quality, ratios, time_to_quality
from harness.report.report import Report


@pytest.mark.parametrize("name", PLOTS)
def test_figure_draws_every_plot(name: str, tmp_path: Path) -> None:
    svg = figure(example(tmp_path), name, ".svg").decode()
    assert svg.startswith("<svg")
    assert "nlp · cldr-langid · cpu" in svg


def test_legend_lists_only_the_backends_of_its_panel(tmp_path: Path) -> None:
    records = [record(), record(backend="tensorflow"), record(backend="tensorflow", dataset="other")]
    document = json.loads(figure(report_of(write(tmp_path, records)), "pareto", ".json"))
    colors = [
        layer["encoding"]["color"]
        for row in document["vconcat"]
        for chart in row["concat"]
        for layer in chart["layer"]
        if "color" in layer["encoding"]
    ]
    assert {tuple(color["scale"]["domain"]) for color in colors} == {("torch", "tensorflow")}
    assert {tuple(color["legend"]["values"]) for color in colors} == {("torch", "tensorflow"), ("tensorflow",)}


def test_quality_plot_has_the_quality_and_interval_of_each_row(tmp_path: Path) -> None:
    report = example(tmp_path)
    (panel,) = [panel for panel in panels(report) if panel.title.startswith("nlp")]
    cells = [row.cells["quality"] for _, row in panel.rows if row.cells["quality"].value is not None]
    shown = [(point["quality"], point["quality_high"] - point["quality_low"]) for point in quality(panel)]
    assert shown == [(cell.value, pytest.approx(2 * (cell.ci95 or 0.0))) for cell in cells]
    assert shown


def test_labels_of_the_quality_plot_omit_options_that_most_rows_share(tmp_path: Path) -> None:
    options = [{}, {}, {"l1": 0.5}, {"dropout": 0.5}]
    recipes = [replace(record().spec.recipe, **each) for each in options]
    records = [
        record(recipe=recipe, backend="tensorflow" if number == 1 else "torch") for number, recipe in enumerate(recipes)
    ]
    (panel,) = panels(report_of(write(tmp_path, records)))
    assert [point["label"] for point in quality(panel)] == ["torch", "tensorflow", "torch l1=0.5", "torch dropout=0.5"]


def check_vega_lite(document: dict[str, Any]) -> None:
    import altair as alt

    jsonschema.validate(document, alt.load_schema())


@pytest.mark.parametrize("name", PLOTS)
def test_figure_is_valid_vega_lite(name: str, tmp_path: Path) -> None:
    check_vega_lite(json.loads(figure(example(tmp_path), name, ".json")))


def test_specifications_of_run_charts_are_valid_vega_lite() -> None:
    from harness.report.plots.run_charts import specifications

    found = specifications()
    assert {"loss", "roc", "confusion", "residual"} < found.keys()
    for document in found.values():
        check_vega_lite(document)
    with pytest.raises(jsonschema.ValidationError):
        check_vega_lite(found["loss"] | {"mark": "scribble"})


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".html", b"<!doctype html>")])
def test_figure_writes_each_file_format(suffix: str, start: bytes, tmp_path: Path) -> None:
    assert figure(example(tmp_path), "pareto", suffix).lstrip().startswith(start)


def test_figure_has_the_numbers_of_the_table(tmp_path: Path) -> None:
    report = example(tmp_path)
    document = json.loads(figure(report, "pareto", ".json"))
    shown = {
        point["quality_shown"] for rows in document["datasets"].values() for point in rows if "quality_shown" in point
    }
    row = report.table.rows[0].cells["quality"]
    assert f"{row.shown} ± {row.shown_ci95}" in shown


def test_figure_with_unknown_name_or_suffix_or_without_data_raises(tmp_path: Path) -> None:
    report = example(tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'pareto'"):
        figure(report, "paretoo", ".svg")
    with pytest.raises(UsageError, match=r"\.svg, \.png"):
        figure(report, "pareto", ".docx")
    with pytest.raises(UsageError, match="none of these runs"):
        figure(report_of(write(tmp_path / "failed", [record(failure())])), "pareto", ".svg")


def test_figure_with_hostile_names_has_no_script(tmp_path: Path) -> None:
    report = report_of(write(tmp_path, hostile()))
    for name in ("pareto", "memory", "confusion"):
        assert "<script" not in figure(report, name, ".svg").decode()


def panel(records: list, path: Path):  # type: ignore[no-untyped-def,type-arg]
    return panels(report_of(write(path, records)))[0]


def test_pareto_front_has_the_points_that_no_other_beats(tmp_path: Path) -> None:
    figures = {"a": (0.9, 100.0), "b": (0.8, 200.0), "c": (0.7, 150.0), "d": (0.9, 90.0)}
    records = [record(success(q, train=speed), backend=name) for name, (q, speed) in figures.items()]
    points = pareto(panel(records, tmp_path), "train_samples_per_s")
    assert {point["backend"]: point["front"] for point in points} == {"a": True, "b": True, "c": False, "d": False}


def test_pareto_front_of_lower_is_better_metric(tmp_path: Path) -> None:
    figures = {"a": (50.0, 100.0), "b": (60.0, 100.0)}
    records = [record(success(q, primary="rmse", train=s), backend=name) for name, (q, s) in figures.items()]
    points = pareto(panel(records, tmp_path), "train_samples_per_s")
    assert {point["backend"]: point["front"] for point in points} == {"a": True, "b": False}


def test_ratios_omit_the_first_backend(tmp_path: Path) -> None:
    points = ratios(panel([record(), record(success(train=900.0), backend="tensorflow")], tmp_path))
    assert {point["backend"] for point in points} == {"tensorflow"}


def test_time_to_quality_uses_the_level_that_all_runs_reach(tmp_path: Path) -> None:
    level, points = time_to_quality(panel([record(), record(backend="tensorflow")], tmp_path))
    assert level == 0.5
    assert [point["seconds"] for point in points] == [1.5, 1.5]


@pytest.mark.parametrize(("runs", "epochs", "most"), [(2, 2, 2), (2, 500, 61), (40, 500, 25), (40, 3, 3)])
def test_curves_reduce_points_and_keep_the_last_epoch(runs: int, epochs: int, most: int, tmp_path: Path) -> None:
    one = success().curves[0]
    line = [replace(one, epoch=epoch, epochs=epochs, step=epoch) for epoch in range(1, epochs + 1)]
    outcome = replace(success(), curves=line)
    points = curves(panel([record(outcome, seed=seed) for seed in range(runs)], tmp_path))
    for seed in range(runs):
        kept = [point["epoch"] for point in points if point["seed"] == seed]
        assert (kept[0], kept[-1]) == (1, epochs)
        assert most * 0.8 < len(kept) <= most


@given(st.integers(2, 6), st.integers(20, 120), st.integers(0, 2**32 - 1))
def test_decision_curves_match_scikit_learn(classes: int, examples: int, seed: int) -> None:
    from sklearn.metrics import precision_recall_curve, roc_curve

    rng = np.random.default_rng(seed)
    targets = rng.integers(-1, classes + 1, examples)  # -1 and `classes` are outside of the classes
    means = np.eye(classes + 2)[targets][:, :classes]
    logits = np.round(rng.normal(size=(examples, classes)) + means, 1)  # rounded to get ties
    found = decision_curves(targets, logits)
    scores = probabilities(logits)
    for number in range(classes):
        positive = targets == number
        if positive.all() or not positive.any():
            assert np.isnan(found.tpr[number]).all()
            continue
        fpr, tpr, _ = roc_curve(positive, scores[:, number], drop_intermediate=False)
        np.testing.assert_allclose(found.tpr[number], np.interp(GRID, fpr, tpr))
        precision, recall, _ = precision_recall_curve(positive, scores[:, number])
        best = [max(p for p, r in zip(precision[:-1], recall[:-1], strict=True) if r >= x - 1e-9) for x in GRID]
        np.testing.assert_allclose(found.precision[number], best)
    if not np.isnan(found.tpr).all():
        assert all(math.isfinite(value) for values in macro(found) for value in values)


def test_panels_of_comparison(tmp_path: Path) -> None:
    assert len(panels(report_of(write(tmp_path, comparison())))) == 3
    assert isinstance(report_of(tmp_path), Report)


def test_rows_of_one_backend_have_different_symbols_and_a_legend(tmp_path: Path) -> None:
    weights = TrainedWeights(run="nlp-a", backend="torch", digest="b" * 64, dataset_digest="d" * 64, path="")
    records = [record(success(0.7)), record(success(0.8), weights=weights), record(success(0.6), backend="tensorflow")]
    report = report_of(write(tmp_path, records))
    for name, channel in (("pareto", "shape"), ("curves", "strokeDash"), ("latency", "strokeDash")):
        (row,) = json.loads(figure(report, name, ".json"))["vconcat"]
        layers = [layer for chart in row["concat"] for layer in chart.get("layer", [chart])]
        encodings = [layer["encoding"][channel] for layer in layers if channel in layer["encoding"]]
        assert encodings, name
        assert {(each["field"], *each["sort"]) for each in encodings} == {("variant", "", "weights of nlp-a")}, name
    (panel,) = panels(report)
    found = {(point["backend"], point["variant"]) for point in pareto(panel, "inference_samples_per_s")}
    assert found == {("torch", ""), ("torch", "weights of nlp-a"), ("tensorflow", "")}


def test_rows_with_more_variants_than_symbols_are_distinguished_by_model(tmp_path: Path) -> None:
    recipes = [replace(record().spec.recipe, l1=0.1 * number) for number in range(7)]
    one = [record(recipe=recipe) for recipe in recipes]
    for name, records, fields in (("one", one, set()), ("two", [*one, record(model="lstm")], {"model"})):
        document = json.loads(figure(report_of(write(tmp_path / name, records)), "pareto", ".json"))
        layers = [layer for row in document["vconcat"] for chart in row["concat"] for layer in chart["layer"]]
        assert {layer["encoding"]["shape"]["field"] for layer in layers if "shape" in layer["encoding"]} == fields
