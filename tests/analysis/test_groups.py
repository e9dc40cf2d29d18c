"""Tests of rates by group and of the gaps between groups, in comparison with fairlearn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from fairlearn import metrics as fairlearn
from sample_records import failure, record, success
from sklearn.metrics import accuracy_score

from harness.analysis.groups import ODDS, RATES, Gap, GroupRates, groups, summary
from harness.api.stored_run import Run
from harness.errors import UnknownNameError, UsageError
from harness.measure.quality.builtin import METRICS
from harness.measure.quality.scorer import scorer
from harness.measure.quality.slices import with_intersections
from harness.records import DataInfo, InputSpec, RunRecord, SliceScore
from harness.records.store import StoredRun
from harness.report.groups import gaps_table, rates_frame, render
from harness.report.run_text import render as show
from harness.report.site.run_page import context

ACCURACY = next(metric for metric in METRICS if metric.name == "accuracy")
REFERENCE = {
    "accuracy": accuracy_score,
    "selection_rate": fairlearn.selection_rate,
    "true_positive_rate": fairlearn.true_positive_rate,
    "false_positive_rate": fairlearn.false_positive_rate,
}


def run_of(
    targets: Any, predicted: Any, columns: dict[str, Any], *, classes: int = 2, names: tuple[str, ...] = ()
) -> RunRecord:
    """Return the record of a run with these predictions, whose scores are computed by the scorer."""
    info = DataInfo(
        kind="features",
        inputs={"x": InputSpec(shape=(1,), dtype="float32")},
        objective="classification",
        outputs=classes,
        label_names=tuple("abcdefgh"[:classes]),
    )
    data = np.asarray(targets), np.eye(classes, dtype=np.float32)[np.asarray(predicted)]
    values = {name: np.asarray(cells) for name, cells in columns.items()}
    scores = scorer(info, "accuracy", [ACCURACY]).scores(data, data, None, with_intersections(values, names))
    return record(msgspec.structs.replace(success(), scores=scores))


def random_run(seed: int, count: int = 400) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    values = rng.choice(["red", "green", "blue"], count, p=[0.5, 0.3, 0.2])
    targets = (rng.random(count) < np.where(values == "red", 0.6, 0.3)).astype(np.int64)
    predicted = np.where(rng.random(count) < 0.8, targets, 1 - targets)
    return targets, predicted, values


def counted_run(correct: Any, examples: int) -> RunRecord:
    """Return the record of a run with one group per number in `correct`, the number of correct predictions."""
    parts = [
        SliceScore(
            group="g",
            value=str(number),
            support=examples,
            score=None,
            class_support=[examples, 0],
            class_predicted=[int(right), examples - int(right)],
            class_correct=[int(right), 0],
        )
        for number, right in enumerate(correct)
    ]
    made = success()
    return record(msgspec.structs.replace(made, scores=msgspec.structs.replace(made.scores, slices=parts)))


def by_rate(gaps: list[Gap]) -> dict[str, Gap]:
    return {gap.rate: gap for gap in gaps}


@pytest.mark.parametrize("seed", range(5))
def test_rates_and_gaps_equal_those_of_fairlearn(seed: int) -> None:
    targets, predicted, values = random_run(seed)
    frame = fairlearn.MetricFrame(metrics=REFERENCE, y_true=targets, y_pred=predicted, sensitive_features=values)
    found = groups(run_of(targets, predicted, {"color": values}))
    for one in found.rates:
        assert one.examples == int((values == one.value).sum())
        for name in RATES:
            assert getattr(one, name).value == pytest.approx(frame.by_group.loc[one.value, name], abs=1e-12)
    gaps = by_rate(found.gaps)
    for name in RATES:
        assert gaps[name].difference == pytest.approx(frame.difference()[name], abs=1e-12)
        assert gaps[name].ratio == pytest.approx(frame.ratio()[name], abs=1e-12)
        assert gaps[name].highest == frame.by_group[name].idxmax()
        assert gaps[name].lowest == frame.by_group[name].idxmin()
    named = {"y_true": targets, "y_pred": predicted, "sensitive_features": values}
    assert gaps["selection_rate"].difference == pytest.approx(fairlearn.demographic_parity_difference(**named))
    assert gaps["selection_rate"].ratio == pytest.approx(fairlearn.demographic_parity_ratio(**named))
    assert gaps[ODDS].difference == pytest.approx(fairlearn.equalized_odds_difference(**named))
    assert gaps[ODDS].ratio == pytest.approx(fairlearn.equalized_odds_ratio(**named))


def test_rates_of_a_classifier_on_real_data_equal_those_of_fairlearn() -> None:
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression

    table, targets = load_breast_cancer(return_X_y=True)
    predicted = LogisticRegression().fit(table[::2, :4] / 100, targets[::2]).predict(table[1::2, :4] / 100)
    sizes = np.where(table[1::2, 0] > np.median(table[:, 0]), "large", "small")
    found = groups(run_of(targets[1::2], predicted, {"size": sizes}), min_examples=1)
    frame = fairlearn.MetricFrame(metrics=REFERENCE, y_true=targets[1::2], y_pred=predicted, sensitive_features=sizes)
    for one in found.rates:
        for name in RATES:
            assert getattr(one, name).value == pytest.approx(frame.by_group.loc[one.value, name], abs=1e-12)
    named = {"y_true": targets[1::2], "y_pred": predicted, "sensitive_features": sizes}
    gaps = by_rate(found.gaps)
    assert gaps["selection_rate"].difference == pytest.approx(fairlearn.demographic_parity_difference(**named))
    assert gaps[ODDS].difference == pytest.approx(fairlearn.equalized_odds_difference(**named))
    assert gaps["selection_rate"].difference_interval is not None
    assert gaps["selection_rate"].difference_interval[0] > 0.5


def test_intersections_equal_those_of_fairlearn() -> None:
    targets, predicted, values = random_run(7)
    sides = np.random.default_rng(7).choice(["left", "right"], len(values))
    columns = {"color": values, "side": sides}
    found = groups(run_of(targets, predicted, columns, names=("color*side",)), min_examples=1)
    frame = fairlearn.MetricFrame(metrics=REFERENCE, y_true=targets, y_pred=predicted, sensitive_features=columns)
    both = [one for one in found.rates if one.group == "color*side"]
    assert len(both) == 6
    for one in both:
        for name in RATES:
            expected = frame.by_group.loc[tuple(one.value.split(", ")), name]
            assert getattr(one, name).value == pytest.approx(expected, abs=1e-12)
    gaps = by_rate([gap for gap in found.gaps if gap.group == "color*side"])
    for name in RATES:
        assert gaps[name].difference == pytest.approx(frame.difference()[name], abs=1e-12)


def test_class_of_several_is_compared_with_the_rest_as_in_fairlearn() -> None:
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 3, 300)
    predicted = np.where(rng.random(300) < 0.7, targets, rng.integers(0, 3, 300))
    values = rng.choice(["x", "y"], 300)
    found = groups(run_of(targets, predicted, {"group": values}, classes=3))
    assert found.classes == ["a", "b", "c"]
    for number, label in enumerate(found.classes):
        named = {"y_true": targets == number, "y_pred": predicted == number, "sensitive_features": values}
        gaps = by_rate([gap for gap in found.gaps if gap.label == label])
        assert gaps["selection_rate"].difference == pytest.approx(fairlearn.demographic_parity_difference(**named))
        assert gaps[ODDS].difference == pytest.approx(fairlearn.equalized_odds_difference(**named))
    assert [gap.rate for gap in found.gaps if not gap.label] == ["accuracy"]


def test_rate_without_examples_is_undefined_and_left_out_of_gaps() -> None:
    # fairlearn reports 0 for the true positive rate of a group without positive examples.
    targets, predicted, values = random_run(1)
    values = np.where(np.arange(400) < 30, "none", values)
    targets = np.where(values == "none", 0, targets)
    found = groups(run_of(targets, predicted, {"color": values}))
    (one,) = [one for one in found.rates if one.value == "none"]
    assert (one.true_positive_rate.examples, one.true_positive_rate.value) == (0, None)
    assert one.false_positive_rate.interval is not None
    kept = values != "none"
    expected = fairlearn.MetricFrame(
        metrics=fairlearn.true_positive_rate,
        y_true=targets[kept],
        y_pred=predicted[kept],
        sensitive_features=values[kept],
    )
    gap = by_rate(found.gaps)["true_positive_rate"]
    assert gap.left_out == ["none"]
    assert gap.difference == pytest.approx(expected.difference())
    assert by_rate(found.gaps)["false_positive_rate"].left_out == []
    assert by_rate(found.gaps)[ODDS].left_out == ["none"]


def test_small_groups_are_marked_and_those_below_the_minimum_have_no_interval() -> None:
    targets, predicted, _ = random_run(2)
    values = np.array(["big"] * 300 + ["small"] * 90 + ["tiny"] * 10)
    made = run_of(targets, predicted, {"size": values})
    found = groups(made)
    assert {one.value: one.small for one in found.rates} == {"big": False, "small": True, "tiny": True}
    assert {one.value: one.accuracy.interval is None for one in found.rates} == {
        "big": False,
        "small": False,
        "tiny": True,
    }
    assert by_rate(found.gaps)["accuracy"].left_out == ["tiny"]
    all_of_them = groups(made, min_examples=1)
    assert by_rate(all_of_them.gaps)["accuracy"].left_out == []
    text = render(found)
    assert "size     tiny (small)" in text
    assert "Rates computed from fewer than 20 examples have no interval and are not included in gaps" in text
    assert "size=tiny" in text.splitlines()[-1]


def test_missing_values_are_a_group_and_are_counted() -> None:
    targets, predicted, values = random_run(4)
    values[:25] = ""
    found = groups(run_of(targets, predicted, {"color": values}))
    assert [one.examples for one in found.rates if one.value == "missing"] == [25]
    assert sum(one.examples for one in found.rates) == 400


def test_single_group_has_no_gap() -> None:
    targets, predicted, _ = random_run(5)
    found = groups(run_of(targets, predicted, {"all": np.array(["one"] * 400)}))
    assert all(gap.difference is None and gap.ratio is None for gap in found.gaps)
    assert gaps_table(found)[1][0] == ["all", "accuracy", "–", "–", "–", "–"]


def test_ratio_of_rates_that_are_all_zero_is_undefined() -> None:
    zeros = np.zeros(60, np.int64)
    targets = np.array([0, 1] * 30)
    gap = by_rate(groups(run_of(targets, zeros, {"side": np.array(["l"] * 30 + ["r"] * 30)})).gaps)["selection_rate"]
    assert (gap.difference, gap.ratio, gap.ratio_interval) == (0.0, None, None)
    assert gap.difference_interval is not None
    assert gap.difference_interval[0] == 0.0


def test_ratio_of_the_odds_is_uncertain_if_one_of_the_rates_is_zero() -> None:
    targets = np.array([0, 1] * 200)
    found = groups(run_of(targets, targets, {"side": np.array(["l"] * 200 + ["r"] * 200)}))
    gap = by_rate(found.gaps)[ODDS]
    assert by_rate(found.gaps)["false_positive_rate"].ratio is None
    assert (gap.ratio, gap.ratio_interval) == (1.0, (0.0, 1.0))


def test_repeated_class_is_shown_once() -> None:
    targets, predicted, values = random_run(5)
    run = run_of(targets, predicted, {"color": values})
    assert groups(run, ["b", "b"]) == groups(run, ["b"])


def test_single_class_can_be_passed_as_a_string(tmp_path: Path) -> None:
    targets, predicted, values = random_run(5)
    run = Run(tmp_path, run_of(targets, predicted, {"color": values}))
    assert set(run.groups("a")["label"]) == {"a"}
    with pytest.raises(UnknownNameError, match="unknown class 'ab'"):
        run.groups("ab")


def test_intervals_of_gaps_contain_the_true_gap() -> None:
    rng = np.random.default_rng(0)
    contained = {"difference": 0, "ratio": 0, "equal": 0}
    for _ in range(400):
        for name, rates in (("difference", np.array([0.7, 0.75, 0.8, 0.8])), ("equal", np.full(4, 0.75))):
            gap = by_rate(groups(counted_run(rng.binomial(60, rates), 60)).gaps)["accuracy"]
            assert gap.difference_interval is not None
            assert gap.ratio_interval is not None
            low, high = gap.difference_interval
            contained[name] += low <= rates.max() - rates.min() <= high
            if name == "difference":
                low, high = gap.ratio_interval
                contained["ratio"] += low <= rates.min() / rates.max() <= high
    assert min(contained.values()) >= 380


def test_intervals_exclude_no_gap_if_groups_clearly_differ() -> None:
    values = np.repeat(["a", "b"], 100)
    predicted = np.where((values == "a") | (np.arange(200) % 2 == 0), 0, 1)
    gap = by_rate(groups(run_of(np.zeros(200, int), predicted, {"g": values})).gaps)["accuracy"]
    assert gap.difference == pytest.approx(0.5)
    assert gap.difference_interval is not None
    assert gap.difference_interval[0] > 0.3
    assert gap.ratio_interval is not None
    assert gap.ratio_interval[1] < 0.7


def test_chosen_class_is_the_positive_class() -> None:
    targets, predicted, values = random_run(6)
    found = groups(run_of(targets, predicted, {"color": values}), ["a"])
    named = {"y_true": 1 - targets, "y_pred": 1 - predicted, "sensitive_features": values}
    assert by_rate(found.gaps)["selection_rate"].difference == pytest.approx(
        fairlearn.demographic_parity_difference(**named)
    )
    with pytest.raises(UnknownNameError, match="unknown class 'z'"):
        groups(run_of(targets, predicted, {"color": values}), ["z"])


def test_runs_without_rates_are_refused_with_the_reason() -> None:
    targets, predicted, _ = random_run(8)
    with pytest.raises(UsageError, match="has no groups; select columns of your own data with --slice-columns"):
        groups(run_of(targets, predicted, {}))
    with pytest.raises(UsageError, match="recorded before the predictions were counted by group"):
        groups(record())
    with pytest.raises(UsageError, match="min_examples must be at least 1, got 0"):
        groups(record(), min_examples=0)
    with pytest.raises(UsageError, match="failed: killed"):
        groups(record(failure()))
    made = success()
    regression = msgspec.structs.replace(made, scores=msgspec.structs.replace(made.scores, confusion=[]))
    with pytest.raises(UsageError, match="is not a classification run"):
        groups(record(regression))
    streamed = msgspec.structs.replace(made.scores, confusion=[], streamed=True)
    with pytest.raises(UsageError, match="computed batch by batch; repeat the run with --set protocol"):
        groups(record(msgspec.structs.replace(made, scores=streamed)))
    assert summary(record()) is None


def test_text_page_and_frame_have_the_same_rates(tmp_path: Path) -> None:
    targets, predicted, values = random_run(9)
    made = run_of(targets, predicted, {"color": values})
    first: GroupRates = groups(made).rates[0]
    assert first.accuracy.value is not None
    accuracy = f"{first.accuracy.value:.3f}"
    block = show(made, tmp_path).partition("rates by group, test split")[2].split("\n\n")[0]
    assert (
        block.splitlines()[2].split()[:4] == ["color", "blue", *["(small)"] * first.small, *[str(first.examples)]][:4]
    )
    assert accuracy in block
    page = context(StoredRun(tmp_path, made), "", {})
    assert [view.name for view in page["groups"]] == ["group-rates", "group-gaps"]
    assert str(page["groups"][0].rows[0][3]).startswith(accuracy)
    table = Run(tmp_path, made).groups()
    assert table["accuracy"][0] == first.accuracy.value
    assert table["accuracy_of"].tolist() == table["examples"].tolist()
    assert table.attrs["gaps"]["rate"].tolist() == [*RATES, ODDS]
    assert rates_frame(groups(made)).dtypes["true_positive_rate_low"].kind == "f"


def test_several_classes_are_summarized_by_the_class_with_the_largest_gap(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    targets, predicted = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    made = run_of(targets, predicted, {"g": rng.choice(["x", "y"], 200)}, classes=3)
    found = groups(made)
    excerpt = summary(made)
    assert excerpt is not None
    rows = gaps_table(excerpt)[1]
    assert [row[1] for row in rows] == [name.replace("_", " ") for name in (*RATES, ODDS)]
    selection = max((gap for gap in found.gaps if gap.rate == "selection_rate"), key=lambda gap: gap.difference or 0)
    assert rows[1][2] == selection.label
    assert all(gap in found.gaps for gap in excerpt.gaps)
    assert {one.label for one in excerpt.rates} == {"a"}
    assert "To show all classes, run: harness groups" in show(made, tmp_path)
