"""Tests of ``harness report`` and ``harness show`` with handwritten records."""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from command_line import MAIN, Invoke, store
from sample_records import comparison, record

from harness.analysis.comparison_table import build_table
from harness.records import Failure, Pretrained, RunRecord
from harness.records.store import Store
from harness.report.csv_json import csv_text
from harness.report.text import render


def test_report_prints_the_table_of_all_records(invoke: Invoke, results: Path) -> None:
    result = invoke("report")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == render(build_table([run.record for run in Store(results).load().runs]))


def test_report_format_of_core_or_plugin(invoke: Invoke, results: Path) -> None:
    assert invoke("report", "--format", "json").stdout.startswith('{\n "schema_version": 1,')
    assert invoke("report", "--format", "markdown").stdout.startswith("### nlp")
    assert invoke("report", "--format", "toy-count").exit_code == 0


def test_report_output_replaces_the_file_only(invoke: Invoke, results: Path, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("old")
    result = invoke("report", "--format", "csv", "--output", "table.csv")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "table.csv").read_text() == csv_text(build_table([r.record for r in Store(results).load().runs]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "table.csv"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "table.csv").stat().st_mode & 0o777 == 0o666 & ~umask


def test_report_output_dash_is_stdout(invoke: Invoke, results: Path, tmp_path: Path) -> None:
    table = invoke("report", "--format", "csv").stdout
    assert table.startswith("task,")
    assert invoke("report", "--format", "csv", "--output", "-").stdout == table
    assert "a directory such as site/" in invoke("report", "--format", "html", "--output", "-").output
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_report_output_in_missing_directory_fails(invoke: Invoke, results: Path) -> None:
    result = invoke("report", "--output", "nowhere/table.csv")
    assert result.exit_code == 1
    assert "nowhere/table.csv: cannot be written: No such file or directory" in result.stderr


def test_report_filters_select_runs_and_order_backends(invoke: Invoke, results: Path) -> None:
    result = invoke("report", "--task", "nlp", "--backend", "tensorflow,torch", "--format", "csv")
    rows = [line.split(",")[:4] for line in result.stdout.splitlines()[1:]]
    assert rows == [["nlp", "cldr-langid", "bert-tiny", name] for name in ("tensorflow", "torch")]


def test_report_filters_without_match_fail(invoke: Invoke, results: Path) -> None:
    unknown = invoke("report", "--backend", "trch")
    assert unknown.exit_code == 2
    assert "no run has the backend 'trch'; the results contain: " in unknown.stderr
    none = invoke("report", "--task", "nlp", "--model", "mlp")
    assert none.exit_code == 2
    assert "no run matches all of these filters" in none.stderr


def test_report_status_and_dates_select_runs(invoke: Invoke, results: Path) -> None:
    runs = [run.record for run in Store(results).load().runs]
    day = runs[0].started_at[:10]
    assert any(isinstance(run.outcome, Failure) for run in runs)
    shown = invoke("report", "--status", "failure", "--since", day, "--until", day, "--format", "csv")
    table = list(csv.DictReader(io.StringIO(shown.stdout)))
    assert table
    assert {row["status"].partition(":")[0] for row in table} == {"failed"}
    for option in ("--since", "--until"):
        wrong = invoke("report", option, "30.11.2026")
        assert (wrong.exit_code, "is not a date such as 2026-11-30" in wrong.stderr) == (2, True)
    assert invoke("report", "--until", "2000-01-01").exit_code == 2
    assert "unknown status 'fail'" in invoke("report", "--status", "fail").stderr


@pytest.mark.parametrize("exists", [True, False])
def test_report_without_results_fails(invoke: Invoke, tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "results").mkdir()
    result = invoke("report")
    assert (result.exit_code, result.stdout) == (2, "")
    assert ("contains no runs" if exists else "does not exist") in result.stderr
    assert "harness run --task" in result.stderr


def test_report_lists_unreadable_records_and_shows_the_others(invoke: Invoke, results: Path) -> None:
    runs = sorted(results.iterdir())
    (runs[0] / "record.json").write_text((runs[0] / "record.json").read_text()[:500])
    later = (runs[1] / "record.json").read_text().replace('"schema_version": 2', '"schema_version": 99')
    (runs[1] / "record.json").write_text(later)
    result = invoke("report")
    assert result.exit_code == 0
    cut_off, too_new = result.stderr.splitlines()
    assert str(Path("results", runs[0].name, "record.json")) in cut_off
    assert "99" in too_new
    assert "upgrade" in too_new
    left = [run.record for run in Store(results).load().runs]
    assert len(left) == len(runs) - 2
    assert result.stdout == render(build_table(left))


def test_report_with_only_unreadable_records_fails(invoke: Invoke, tmp_path: Path) -> None:
    (name,) = store(tmp_path / "results", [record()])
    (tmp_path / "results" / name / "record.json").write_bytes(b"\xff\x00")
    result = invoke("report")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "none of the records can be read" in result.stderr


def test_report_to_a_closed_pipe_succeeds(results: Path) -> None:
    command = f"{shlex.join([*MAIN, 'report', '--format', 'json'])} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=results.parent, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


def test_show_prints_every_part_of_a_record(invoke: Invoke, tmp_path: Path) -> None:
    kept = next(run for run in comparison() if run.spec.model == "mlp")
    (name,) = store(tmp_path / "results", [kept])
    text = invoke("show", name).stdout
    for part in (
        "run",
        "quality",
        "per class",
        "by group",
        "speed",
        "latency",
        "peak memory",
        "seconds by phase",
        "training",
    ):
        assert re.search(rf"^{part}", text, re.MULTILINE), part
    for figure in (
        "1000 samples/s",
        "12 ms",
        "too few samples",
        "device, allocator  21.0 MiB",
        "numpy 2.4.6",
        "a" * 64,
    ):
        assert figure in text


def test_show_prints_the_checkpoint(invoke: Invoke, tmp_path: Path) -> None:
    kept = comparison()[0]
    checkpoint = Pretrained(name="owner/tiny", revision="1f2e3d", digest="d", path="/hub/tiny")
    spec = msgspec.structs.replace(kept.spec, pretrained=checkpoint)
    (name,) = store(tmp_path / "results", [msgspec.structs.replace(kept, spec=spec)])
    assert re.search(r"pretrained +owner/tiny@1f2e3d\n +checkpoint +/hub/tiny\n", invoke("show", name).stdout)


def test_show_prints_a_failure(invoke: Invoke, results: Path) -> None:
    text = invoke("show", "nlp-cldr-langid-bert-tiny-tensorflow-s2").stdout
    assert "FAILED in phase train: oom: killed: out of memory" in text
    assert "  | step 12\n  | Killed" in text


def test_show_json_equals_the_record(invoke: Invoke, tmp_path: Path) -> None:
    (name,) = store(tmp_path / "results", [record()])
    text = invoke("show", name, "--format", "json").stdout
    assert msgspec.json.decode(text, type=RunRecord) == Store(tmp_path / "results").find(name).record
    assert invoke("show", f"results/{name}", "--format", "json").stdout == text


def test_show_ambiguous_run_fails(invoke: Invoke, results: Path) -> None:
    result = invoke("show", "nlp-cldr-langid-bert-tiny")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "7 runs match 'nlp-cldr-langid-bert-tiny'" in result.stderr


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema_version": 1}', b"\xff"])
def test_show_invalid_record_names_its_file(invoke: Invoke, tmp_path: Path, content: bytes) -> None:
    (name,) = store(tmp_path / "results", [record()])
    (tmp_path / "results" / name / "record.json").write_bytes(content)
    result = invoke("show", name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"results/{name}/record.json: not a valid record" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_report_to_a_full_disk_fails(results: Path) -> None:
    command = [sys.executable, "-m", "harness", "report", "--results", str(results)]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: cannot write to stdout: no space left")


@pytest.mark.parametrize("format_", ["text", "markdown", "csv", "json", "latex"])
def test_report_metric_adds_a_column_to_every_format(format_: str, invoke: Invoke, results: Path) -> None:
    result = invoke("report", "--format", format_, "--metric", "worker_peak_mib,quality")
    assert result.exit_code == 0
    assert "worker" in result.stdout
    assert "worker" not in invoke("report", "--format", format_).stdout


def test_report_metric_without_values_is_an_error(invoke: Invoke, results: Path) -> None:
    result = invoke("report", "--metric", "first_step")
    assert result.exit_code == 2
    assert "unknown metric 'first_step'; did you mean 'first_step_s'?" in result.stderr


def test_report_metric_with_plot_is_an_error(invoke: Invoke, results: Path) -> None:
    result = invoke("report", "--metric", "accuracy", "--plot", "pareto", "--output", "a.svg")
    assert result.exit_code == 2
    assert "--plot and --metric cannot be combined" in result.stderr
