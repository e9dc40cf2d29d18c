"""Tests of the text and the page of one run: targets, memory and fits in one call."""

from __future__ import annotations

from pathlib import Path

import msgspec
from sample_records import MIB, record, success

from harness.records import Memory, TargetScore
from harness.records.store import StoredRun
from harness.report.run_text import render
from harness.report.site.run_page import context

replace = msgspec.structs.replace
TARGETS = [
    TargetScore(label="height", unit="m", scores={"rmse": 0.5, "r2": None}),
    TargetScore(label="weight", unit="", scores={"rmse": 12.25, "r2": 0.75}),
]


def test_each_target_has_a_row_in_the_text_and_on_the_page(tmp_path: Path) -> None:
    made = success(5.0, primary="rmse")
    run = record(replace(made, scores=replace(made.scores, per_target=TARGETS)))
    block = render(run, tmp_path).partition("per target, test split")[2].split("\n\n")[0]
    assert [line.split() for line in block.splitlines()[1:]] == [
        ["target", "unit", "rmse", "r2"],
        ["height", "m", "0.5", "not", "known"],
        ["weight", "not", "known", "12.25", "0.75"],
    ]
    views = {view.name: view for view in context(StoredRun(tmp_path, run), "", {})["tables"]}
    assert [row[0] for row in views["per-target"].rows] == ["height", "weight"]


def test_single_target_has_no_table_of_targets(tmp_path: Path) -> None:
    assert "per target" not in render(record(success(5.0, primary="rmse")), tmp_path)


def test_both_host_peaks_are_shown(tmp_path: Path) -> None:
    memory = Memory(
        host_peak_bytes=400 * MIB, host_peak_by_phase_bytes={}, host_counter="VmHWM", tree_peak_bytes=900 * MIB
    )
    text = " ".join(render(record(replace(success(), memory=memory)), tmp_path).split())
    assert "host, including child processes 900.0 MiB host, worker 400.0 MiB (VmHWM)" in text
    alone = " ".join(render(record(), tmp_path).split())
    assert "peak memory host, worker 500.0 MiB" in alone


def test_fit_in_one_call_is_labeled_and_has_no_flops(tmp_path: Path) -> None:
    made = success(train=50_000.0)
    run = record(replace(made, speed=replace(made.speed, by_steps=False)))
    text = " ".join(render(run, tmp_path).split())
    assert "speed (steady state) fit in one call 50000 samples/s" in text
    assert "GFLOP/s" not in text
    names = [name for name, _, _ in context(StoredRun(tmp_path, run), "", {})["figures"]]
    assert "fit in one call" in names
    assert "training" not in names
