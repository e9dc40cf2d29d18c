"""Tables for ``docs/reference/report-columns.md``, generated from the code: ``python -m benchmarks.columns``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.analysis.comparison_table import COLUMNS
from harness.analysis.metrics import METRICS, better_value
from harness.measure.quality.builtin import METRICS as SCORES

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "report-columns.md"
END = "<!-- end -->\n"

DESCRIPTIONS = {
    "task": "Name of the task.",
    "dataset": "Name of the dataset, or of the user's file.",
    "model": "Variant of the model.",
    "backend": "Name of the backend.",
    "device": "Device of the runs.",
    "precision": "Precision of the runs.",
    "options": "Other differences from similar rows, such as settings, machine, versions and splits.",
    "batch_size": "Batch size in training and inference.",
    "seeds": "Number of seeds with a successful run.",
    "runs": "Number of runs, including failed ones.",
    "metric": "Name of the task's primary metric.",
    "metric_title": "Title of the primary metric.",
    "metric_unit": "Unit of the primary metric, if the metric is measured in the unit of the target.",
    "metric_better": "`higher` or `lower`.",
    "quality": "Primary metric on the test split. In formatted tables, the column is named after the metric.",
    "reference": "Primary metric of the closed-form solution, for models that have one.",
    "f1_macro": "F1, averaged over classes.",
    "r2": "Coefficient of determination R².",
    "train_samples_per_s": "Training throughput of backends that train in steps, median over the steady state.",
    "fit_samples_per_s": "Training throughput of backends that fit the whole training split in one call.",
    "inference_samples_per_s": "Inference throughput, median over the steady state. Padding is not counted.",
    "train_cost_per_million": "Cost of training on a million samples. Only with `--price-per-hour`.",
    "inference_cost_per_million": "Cost of predictions for a million samples. Only with `--price-per-hour`.",
    "mfu_percent": "Model FLOPs utilization of training, relative to the measured roofline.",
    "time_to_target_s": "Training time until the validation score reached the target. Empty if a run did not reach "
    "the target.",
    "tuning_trials": "Number of trials of the study that found the settings (`harness tune`).",
    "tuning_steps": "Number of training steps in all trials of the study.",
    "tuning_s": "Total duration of all trials of the study.",
    "latency_p50_ms": "Median batch latency.",
    "latency_p90_ms": "90th percentile of the batch latency.",
    "latency_p99_ms": "99th percentile of the batch latency.",
    "host_peak_mib": "Peak resident memory of the process and its child processes.",
    "rank_peak_mib": "Largest peak resident memory of any process. Only for runs on several devices.",
    "device_peak_mib": "Peak device memory allocated by the framework.",
    "reserved_peak_mib": "Peak device memory reserved by the framework.",
    "driver_peak_mib": "Peak device memory of the process according to the driver.",
    "train_cpu_j_per_sample": "Processor energy of training.",
    "inference_cpu_j_per_sample": "Processor energy of inference.",
    "train_gpu_j_per_sample": "GPU energy of training.",
    "inference_gpu_j_per_sample": "GPU energy of inference.",
    "scaling_efficiency": "Training throughput per device, relative to the row with one device and otherwise "
    "identical settings.",
    "train_ratio": "Training throughput relative to the first backend.",
    "inference_ratio": "Inference throughput relative to the first backend.",
    "train_gflop_per_s": "Floating-point operations per second in training.",
    "first_step_s": "Duration of the first training step, including compilation.",
    "wall_s": "Duration of the process that ran the model.",
    "worker_peak_mib": "Peak resident memory of the process, excluding child processes.",
    "parity": "`same` with the largest relative error of the logits, `partly checked`, `differs`, or `unchecked`.",
    "status": "`ok`, or the number of successful runs and the kinds of failures.",
    "flags": "Reasons why values in the row may be unreliable.",
    "failures": "Split, seed, kind of failure and error message of each failed run.",
    "accuracy": "Fraction of examples whose predicted class is the true class.",
    "f1_micro": "F1 over all predictions.",
    "f1_weighted": "F1, averaged over classes, weighted by support.",
    "precision_macro": "Precision, averaged over classes.",
    "recall_macro": "Recall, averaged over classes.",
    "roc_auc": "Area under the ROC curve of each class against the rest, averaged over classes.",
    "average_precision": "Area under the precision-recall curve of each class against the rest, averaged over classes.",
    "balanced_accuracy": "Recall, averaged over the classes with examples.",
    "mcc": "Matthews correlation coefficient of the true and the predicted classes.",
    "log_loss": "Mean negative log-likelihood of the true class.",
    "brier": "Mean squared error of the probabilities, halved for two classes.",
    "ece": "Expected calibration error: mean difference between confidence and accuracy.",
    "rmse": "Root mean squared error.",
    "mae": "Mean absolute error.",
}
"""Mapping from the name of a column or metric to its description."""

COMPARED = {"by default": "by default", "on request": "with `--metric`"}


def tables() -> dict[str, str]:
    """Return the tables, keyed by the line that precedes each table on the page."""
    columns = [(f"`{c.name}`", c.title, c.unit, c.kind, c.better or "–", DESCRIPTIONS[c.name]) for c in COLUMNS]
    costs = [
        (f"`{m.name}`", m.unit, better_value(m.higher_is_better), COMPARED[m.compared], DESCRIPTIONS[m.name])
        for m in METRICS
        if not m.never_compared
    ]
    scores = [
        (
            f"`{m.name}`",
            m.title,
            m.objective,
            "that of the target" if m.unit == "target" else m.unit,
            better_value(m.higher_is_better),
            DESCRIPTIONS[m.name],
        )
        for m in SCORES
    ]
    return {
        "<!-- python -m benchmarks.columns: columns -->\n": _table(
            ("name", "title", "unit", "kind", "better", "description"), columns
        ),
        "<!-- python -m benchmarks.columns: costs -->\n": _table(
            ("name", "unit", "better", "compared", "description"), costs
        ),
        "<!-- python -m benchmarks.columns: scores -->\n": _table(
            ("name", "title", "objective", "unit", "better", "description"), scores
        ),
    }


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, [":--"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell or ' ' for cell in line)} |\n" for line in lines)


def updated(page: str) -> str:
    """Return the page with its tables replaced. Raises `ValueError` if a marker is missing."""
    for begin, table in tables().items():
        before, marker, rest = page.partition(begin)
        _, end, after = rest.partition(END)
        if not (marker and end):
            raise ValueError(f"{PAGE} must contain the lines {begin!r} and {END!r}")
        page = f"{before}{begin}\n{table}\n{END}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
