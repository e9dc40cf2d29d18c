"""Tests that reports show or exclude records with arbitrary values of the right types, but do not fail."""

from __future__ import annotations

import random
import shutil
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click.testing
import msgspec
import pytest
from sample_records import comparison
from sample_store import write
from toy_plugin import FAULTS_REF, TOY_REF

from harness.checks.parity.verdict import FOLDER, ParityVerdict, Stage
from harness.cli.root import cli
from harness.errors import RecordError
from harness.plugins import load
from harness.records.store import RECORD, decode_record

FAST, SLOW = 10, 300
STRINGS = [
    "",
    "x" * 3000,
    "\x1b[2J",
    "\u202e",
    "../..",
    "<script>",
    "=1+1",
    "a\nb\r\tc",
    "é",
    "{}",
    "%s",
    "nan",
    "None",
]
NUMBERS: list[int | float] = [0, -1, 1, 2**53, -(2**63), 2**63 - 1, 0.0, -0.0, 1e-320, 1e308, -1e308, 0.5]


@pytest.mark.parametrize("field", [("spec", "seed"), ("spec", "recipe", "epochs"), ("repeat",), ("spec", "threads")])
def test_integers_that_no_float_can_represent_are_refused(field: tuple[str, ...]) -> None:
    record = msgspec.json.decode(msgspec.json.encode(comparison()[0]))
    place = record
    for name in field[:-1]:
        place = place[name]
    place[field[-1]] = 0
    text = msgspec.json.encode(record).decode().replace(f'"{field[-1]}":0', f'"{field[-1]}":{"9" * 400}', 1)
    with pytest.raises(RecordError, match="not a valid record"):
        decode_record(text.encode(), Path("x"))


def mutated(value: Any, rng: random.Random, rate: float) -> Any:
    """Return plain JSON data in which some values are replaced by values of the same type."""
    if isinstance(value, dict):
        changed = {key: mutated(each, rng, rate) for key, each in value.items()}
        if changed and rng.random() < rate / 4:
            changed.pop(rng.choice(sorted(changed)))
        return changed
    if isinstance(value, list):
        each = [mutated(one, rng, rate) for one in value]
        if rng.random() < rate:
            return rng.choice([[], each[:1], each + each[-1:], each[::-1]])
        return each
    if rng.random() >= rate:
        return value
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return rng.choice(STRINGS)
    if isinstance(value, int | float):
        return rng.choice(NUMBERS)
    return rng.choice([None, 0.0, ""])


COMMANDS = [
    ("report",),
    ("report", "--format", "csv"),
    ("report", "--format", "json"),
    ("report", "--format", "latex"),
    ("report", "--format", "markdown", "--price-per-hour", "1"),
    ("report", "--format", "pytest-benchmark"),
    ("report", "--format", "html", "--output", "site"),
    ("report", "--plot", "pareto", "--output", "plot.json"),
    ("report", "--plot", "curves", "--output", "plot.json"),
    ("report", "--plot", "ratios", "--output", "plot.json"),
    ("report", "--plot", "confusion", "--output", "plot.json"),
    ("report", "--plot", "roc", "--output", "plot.json"),
    ("report", "--plot", "latency", "--output", "plot.json"),
    ("report", "--plot", "memory", "--output", "plot.json"),
    ("history", "--all"),
    ("compare", "torch", "tensorflow"),
    ("show", "torch"),
    ("baseline", "torch", "base.json"),
    ("bundle", "--output", "b.zip"),
]


def check(seed: int, folder: Path, commands: Sequence[tuple[str, ...]]) -> int:
    """Mutate some records, run the commands, and return the number of mutated records that can be read."""
    rng = random.Random(seed)
    shutil.rmtree(folder / "results", ignore_errors=True)
    shutil.copytree(folder / "sound", folder / "results")
    readable = 0
    for path in sorted((folder / "results").iterdir()):
        if rng.random() < 0.5:
            record = msgspec.json.decode((path / RECORD).read_bytes())
            content = msgspec.json.encode(mutated(record, rng, rng.choice([0.003, 0.01, 0.05])))
            (path / RECORD).write_bytes(content)
            try:
                decode_record(content, path)
                readable += 1
            except RecordError:
                pass
    for line in commands:
        result = click.testing.CliRunner().invoke(cli, line, prog_name="harness")
        raised = "".join(traceback.format_exception(result.exception)) if result.exception else ""
        told = f"seed {seed}: harness {line}\n{result.output[-2000:]}\n{raised[-2000:]}"
        assert result.exit_code in {0, 1, 2}, told
        assert "This is a bug" not in result.output, told
    return readable


@pytest.fixture
def folder(tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("harness.plugins.discover", lambda *_: load([TOY_REF, FAULTS_REF]))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "sound", comparison())
    return tmp_path


def test_reports_of_mutated_records_end_as_documented(folder: Path) -> None:
    light = [line for line in COMMANDS if "html" not in line and line[0] != "bundle"]
    readable = [check(seed, folder, random.Random(seed).sample(light, 2)) for seed in range(FAST)]
    assert sum(readable) > FAST  # many mutated records can be read


@pytest.mark.slow
def test_reports_of_many_mutated_records_end_as_documented(folder: Path) -> None:
    for seed in range(FAST, FAST + SLOW):
        check(seed, folder, random.Random(seed).sample(COMMANDS, 4))


def verdict() -> ParityVerdict:
    stage = Stage(name="logits", passed=True, error=1e-7, where="example 3", tolerance=1e-5, source="rounding")
    return ParityVerdict(
        key="k" * 64,
        checked_at="2026-01-01T00:00:00Z",
        wall_s=3.0,
        spec=comparison()[0].spec,
        backends=("torch", "tensorflow"),
        devices=("cpu", "cpu"),
        reference="torch",
        steps=50,
        parameters=10,
        passed=True,
        stages=[stage],
        explanation="",
    )


def test_mutated_verdicts_do_not_fail_a_report(folder: Path) -> None:
    rng = random.Random(0)
    shutil.copytree(folder / "sound", folder / "results")
    plain = msgspec.json.decode(msgspec.json.encode(verdict()))
    (folder / "results" / FOLDER).mkdir()
    for number in range(30):
        content = msgspec.json.encode(mutated(plain, rng, 0.05))
        (folder / "results" / FOLDER / f"{number}.json").write_bytes(content)
    for line in (("report",), ("report", "--format", "html", "--output", "site"), ("bundle", "--output", "b.zip")):
        result = click.testing.CliRunner().invoke(cli, line, prog_name="harness")
        assert result.exit_code == 0, result.output
