"""Tests of ``harness groups`` with handwritten records."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import msgspec
import pytest
from command_line import Invoke
from sample_records import record, success
from sample_store import write

from harness.records import SliceScore


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    made = success()
    slices = [
        SliceScore(
            group="side",
            value=value,
            support=40,
            score=0.75,
            class_support=[20, 20],
            class_predicted=[10 + more, 30 - more],
            class_correct=[10, 20 - more],
        )
        for value, more in (("left", 0), ("=1+1", 5))
    ]
    scores = msgspec.structs.replace(made.scores, slices=slices)
    return write(tmp_path / "results", [record(msgspec.structs.replace(made, scores=scores))])


def test_groups_prints_rates_gaps_and_notes(invoke: Invoke, stored: Path) -> None:
    result = invoke("groups", "nlp", "--results", str(stored))
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["side", "left", "(small)", "40"] in [line[:4] for line in lines]
    assert "true positive rate   0.250 [0.000, 0.523]" in result.stdout
    assert "The rates are for the class 'fr'." in result.stdout


def test_groups_as_json_and_csv_have_the_same_values(invoke: Invoke, stored: Path) -> None:
    found = json.loads(invoke("groups", "nlp", "--results", str(stored), "--format", "json").stdout)
    assert [one["true_positive_rate"]["value"] for one in found["rates"]] == [1.0, 0.75]
    rates = invoke("groups", "nlp", "--results", str(stored), "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(rates)))
    assert [float(row["true_positive_rate"]) for row in rows] == [1.0, 0.75]
    assert [row["value"] for row in rows] == ["left", "'=1+1"]
    gaps = invoke("groups", "nlp", "--results", str(stored), "--format", "csv", "--table", "gaps").stdout
    row = next(row for row in csv.DictReader(io.StringIO(gaps)) if row["rate"] == "true_positive_rate")
    (gap,) = (gap for gap in found["gaps"] if gap["rate"] == "true_positive_rate")
    assert (float(row["difference"]), float(row["difference_high"])) == (
        gap["difference"],
        gap["difference_interval"][1],
    )


def test_groups_of_a_class_and_with_another_minimum(invoke: Invoke, stored: Path) -> None:
    result = invoke("groups", "nlp", "--results", str(stored), "--class", "de", "--min-examples", "21")
    assert "The rates are for the class 'de'." in result.stdout
    assert "Rates computed from fewer than 21 examples have no interval" in result.stdout
    wrong = invoke("groups", "nlp", "--results", str(stored), "--class", "es")
    assert wrong.exit_code == 2
    assert "unknown class 'es'" in wrong.stderr


def test_groups_writes_a_file_only_as_csv(invoke: Invoke, stored: Path, tmp_path: Path) -> None:
    file = tmp_path / "rates.csv"
    assert invoke("groups", "nlp", "--results", str(stored), "--output", str(file)).exit_code == 2
    done = invoke("groups", "nlp", "--results", str(stored), "--output", str(file), "--format", "csv")
    assert done.exit_code == 0
    assert len(file.read_text().splitlines()) == 3
