"""Tests that generated command lines do not end in unexpected errors. They are generated from the command definitions.

Most of them are valid. The values are hostile, such as names that are too long, control characters, other scripts,
files of the wrong type, and deeply nested or damaged files.
"""

from __future__ import annotations

import random
import shutil
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import click
import click.testing
import numpy as np
import pytest
from command_line import store
from sample_records import comparison
from sample_store import report_of, write
from toy_plugin import FAULTS_REF, TOY_REF

from harness.cli.root import cli
from harness.plugins import load
from harness.records.store import ARRAYS, RECORD
from harness.report.bundle.pack import pack

FAST, SLOW = 60, 2000
TRAIN = {"run", "selftest", "latency", "evaluate", "parity", "reproduce", "doctor", "audit"}
"""Commands that start child processes; they are only run with arguments that end before that."""
FLAGS = {"run": ["--dry-run"], "reproduce": ["--verify"], "parity": ["--backend", "toy-absent"]}
"""Options with which these commands start no child processes."""
SKIPPED = {"data fetch", "data verify", "plugin check"}
ODD = [
    *("", " ", "n" * 5000, "é", "a\x1b[31mb", "\u202eabc", "-1", "1e999", "nan", "../..", "/", "~", ".", "%s", "{}"),
    *("$(id)", "a,b", ",", "[x]", "{", "a=b=c", "--", "\udcff"),
]
"""Hostile values, used for one in twelve."""
VALUES = {
    "kind": ["tasks", "datasets", "models", "backends", "metrics", "plugins", "options"],
    "format_": ["text", "json"],
    "report format": ["text", "markdown", "latex", "csv", "json", "pytest-benchmark"],
    "plot": ["pareto", "ratios", "memory", "latency"],
    "metric": ["accuracy", "rmse", "train_samples_per_s", "latency_p50_ms", "host_peak_mib"],
    "fail_on": ["accuracy:-0.01", "train_samples_per_s:-5%"],
    "set": ["recipe.epochs=2", "recipe.batch_size=8", "protocol.window_s=0.1"],
    "seed": ["0", "0,1", "2"],
    "status": ["success"],
    "since": ["2025-01-01"],
    "until": ["2030-01-01"],
    "split": ["all", "0"],
    "protocol": ["quick", "standard", "publish"],
    "which": ["toy", "toy-faults"],
    "toy task": ["toy-classify", "toy-regress"],
    "toy dataset": ["toy-colors", "toy-numbers"],
    "toy model": ["toy-linear"],
    "toy backend": ["toy-numpy", "toy-absent"],
    "task": ["nlp", "regression"],
    "model": ["bert-tiny", "linear", "mlp"],
    "backend": ["torch", "tensorflow"],
    "dataset": ["sms-spam", "diabetes"],
    "device": ["cpu", "auto"],
    "precision": ["fp32", "bf16"],
    "name": ["toy-colors"],
    "toy name": ["toy-colors", "toy-numbers"],
    "data path name": ["sms-spam", "diabetes", "toy-colors"],
}
"""Values of options and arguments, by name."""


def commands() -> dict[str, click.Command]:
    """Return every command by its words, such as ``data info``."""
    found: dict[str, click.Command] = {}
    context = click.Context(cli)

    def visit(words: tuple[str, ...], command: click.Command) -> None:
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                visit((*words, name), child)
        else:
            found[" ".join(words)] = command

    visit((), cli)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with files of every kind that arguments refer to."""
    folder = tmp_path_factory.mktemp("fuzz")
    write(folder / "results", comparison())
    store(folder / "plain", comparison())
    shutil.copytree(folder / "results", folder / "damaged")
    for number, path in enumerate(sorted((folder / "damaged").iterdir())):
        (path / RECORD).write_bytes((b"{", b"[" * 10**5, b"\xff", b"{}")[number % 4])
    shutil.copytree(folder / "results", folder / "bad-arrays")
    for number, path in enumerate(sorted((folder / "bad-arrays").iterdir())):
        if number % 2:
            np.savez(path / ARRAYS, latencies_s=np.ones((2, 2)))
        else:
            (path / ARRAYS).write_bytes(b"PK\x05\x06" + bytes(18))
    (folder / "suite.toml").write_text('[[run]]\ntask = "toy"\n')
    for number, backend in enumerate(["toy-numpy", "toy-absent"]):
        text = f'[[run]]\ntask = ["toy-classify", "toy-regress"]\nbackend = "{backend}"\nseed = [0, {number + 1}]\n'
        (folder / f"good-{number}.toml").write_text(text)
    (folder / "deep.toml").write_text("a = " + "[" * 3000)
    (folder / "deeper.toml").write_text(f"[{'.'.join('a' * 3000)}]\n")
    (folder / "digits.toml").write_text("a = " + "9" * 5000)
    (folder / "wrong.toml").write_text("run = 3\n")
    (folder / "latin.toml").write_bytes(b"a = '\xff'")
    (folder / "deep.json").write_bytes(b"[" * 10**5)
    (folder / "data.csv").write_text("text,label\na,x\nb,y\n")
    (folder / "empty.csv").touch()
    pack(report_of(folder / "results"), folder / "good.zip", "0")
    (folder / "bundle.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    (folder / "plugin.py").write_text("raise SystemExit(3)\n")
    (folder / "fine.py").write_text("import harness\n")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("nowhere")
    return folder


def value_of(rng: random.Random, words: str, parameter: click.Parameter, place: Path) -> str:
    """Return a value for an option or argument, which is usually of the right kind."""
    files = sorted(str(path) for path in place.iterdir())
    runs = sorted(path.name for path in (place / "results").iterdir())
    name, kind = parameter.name or "", parameter.type
    if name in ("output", "file"):
        suffix = rng.choice(["svg", "html", "json", "zip", "csv"])
        return str(place / "out" / f"{rng.choice(['new', 'é', 'n' * 240])}{rng.random()}.{suffix}")
    if words.split()[0] in TRAIN and words not in FLAGS and name in ("run", "bundle"):
        return rng.choice([*ODD, *files])  # no run that a child process could work on
    if rng.random() < 1 / 12:
        return rng.choice(ODD)
    if isinstance(kind, click.Choice):
        return rng.choice([str(choice) for choice in kind.choices])
    if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        return str(rng.choice([1, 2, 3]))
    if name in ("run", "runs", "base", "new"):
        return rng.choice([*runs, *runs, *files, "nlp", "torch", "s0"])
    if name == "results":
        return str(place / rng.choice(["results", "results", "plain", "damaged", "bad-arrays", "folder", "none"]))
    usual = {"suite": "good-*.toml", "plugin": "fine.py", "bundle": "good.zip"}.get(name)
    if usual and rng.random() < 0.8:
        return str(rng.choice(sorted(place.glob(usual))))
    if words == "plugin new" and name == "name":
        return f"my-plugin-{rng.randrange(10**9)}"
    if words == "data info" and name == "name" and rng.random() < 0.3:
        return str(place / rng.choice(["data.csv", "empty.csv"]))
    if isinstance(kind, click.Path) or name in ("suite", "plugin", "pretrained"):
        return rng.choice(files)
    about_runs = words in ("report", "history", "compare", "reproduce", "bundle", "rank")
    for key in (f"{words} {name}".replace("report format_", "report format"), *([] if about_runs else [f"toy {name}"])):
        if key in VALUES:
            return rng.choice(VALUES[key])
    return rng.choice(VALUES.get(name, [*ODD, *files]))


def arguments(rng: random.Random, place: Path) -> list[str]:
    """Return a command line. Most command lines are valid."""
    known = commands()
    words = rng.choice([name for name in sorted(known) if name not in SKIPPED])
    line = words.split()
    if words in FLAGS:
        line += FLAGS[words]
    suite = words == "run" and rng.random() < 0.3
    if suite:
        line += ["--suite", str(place / rng.choice(["good-0.toml", "good-1.toml", "suite.toml"]))]
    elif words in ("run", "parity") and rng.random() < 0.9:
        line += ["--task", rng.choice(VALUES["toy task"])]
    parameters = known[words].params
    share = min(0.15, 1.2 / max(1, len(parameters)))  # most combinations of many options are invalid
    for parameter in parameters:
        option = max(parameter.opts, key=len) if isinstance(parameter, click.Option) else None
        optional = not parameter.required and option != "--backend"
        if option in ("--help", *line) or (optional and rng.random() > share):
            continue
        if suite and option != "--results":
            continue
        if isinstance(parameter, click.Option) and parameter.is_flag:
            line.append(option or "")
            continue
        value = value_of(rng, words, parameter, place)
        line += [value] if option is None else [option, value]
    return line


def harmless(line: list[str]) -> bool:
    """Return whether a command line ends before it starts a child process or needs the network."""
    return line[0] not in ("doctor", "selftest") or "--help" in line


@pytest.fixture
def fuzzed(place: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("harness.plugins.discover", lambda *_: load([TOY_REF, FAULTS_REF]))
    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    monkeypatch.setenv("HARNESS_RESULTS", str(place / "results"))
    monkeypatch.chdir(place / "folder")
    (place / "out").mkdir(exist_ok=True)
    yield place
    shutil.rmtree(place / "out")


def check(seed: int, place: Path) -> tuple[str, int]:
    """Run a generated command line, check how it ends, and return the command and its exit status."""
    line = arguments(random.Random(seed), place)
    if not harmless(line):
        line.append("--help")
    result = click.testing.CliRunner().invoke(cli, line, prog_name="harness")
    raised = "".join(traceback.format_exception(result.exception)) if result.exception else ""
    told = f"seed {seed}: harness {line}\n{result.output[-3000:]}\n{raised[-3000:]}"
    assert result.exit_code in {0, 1, 2, 130}, told
    assert result.exception is None or isinstance(result.exception, SystemExit), told
    assert "Traceback" not in result.output, told
    assert "This is a bug" not in result.output, told
    words = " ".join(line[:2])
    return words if words in commands() else line[0], result.exit_code


def test_generated_command_lines_end_as_documented(fuzzed: Path) -> None:
    ended = [check(seed, fuzzed)[1] for seed in range(FAST)]
    assert sum(status != 2 for status in ended) > 0.4 * FAST  # many of them are valid


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_generated_command_lines_end_as_documented(fuzzed: Path) -> None:
    ended: dict[str, list[int]] = {}
    for seed in range(FAST, FAST + SLOW):
        start = time.monotonic()
        words, status = check(seed, fuzzed)
        assert time.monotonic() - start < 60, seed
        ended.setdefault(words, []).append(status)
    statuses = [status for each in ended.values() for status in each]
    assert sum(status != 2 for status in statuses) > 0.4 * SLOW
    for words in ("run", "bundle", "report", "compare", "data info", "history", "reproduce", "show"):
        assert 0 in ended[words], words


LONG = "n" * 300
NAMED = [
    ("plugin", "new", "my-plugin", "--kind", "reporter", "--output", LONG),
    ("report", "--format", "html", "--output", LONG),
    ("report", "--format", "csv", "--output", LONG),
    ("report", "--output", f"{LONG}/x"),
    ("bundle", "--output", LONG),
    ("bundle", "suite.toml", "--output", "b.zip"),
    ("bundle", "deep.toml", "--output", "b.zip"),
    ("bundle", "digits.toml", "--output", "b.zip"),
    ("bundle", "deep.json", "--output", "b.zip"),
    ("bundle", "bundle.zip", "--output", "b.zip"),
    ("run", "--suite", "deep.toml", "--dry-run"),
    ("run", "--suite", "deeper.toml", "--dry-run"),
    ("run", "--suite", "latin.toml", "--dry-run"),
    ("run", "--suite", LONG, "--dry-run"),
    ("run", "--task", LONG, "--dry-run"),
    ("run", "--task", "toy-classify", "--dataset", LONG, "--dry-run"),
    ("run", "--task", "toy-classify", "--set", f"recipe.{LONG}=1", "--dry-run"),
    ("show", LONG),
    ("show", f"{LONG}/{LONG}"),
    ("compare", LONG, LONG),
    ("compare", "deep.json", "deep.json"),
    ("history", "--results", LONG),
    ("report", "--results", f"{LONG}/{LONG}"),
    ("report", "--results", "plugin.py/x"),
    ("data", "info", LONG),
    ("list", "options", "--task", LONG),
    ("reproduce", "bundle.zip"),
    ("reproduce", "deep.json"),
    ("reproduce", LONG),
]


@pytest.mark.parametrize("line", NAMED, ids=range(len(NAMED)))
def test_over_long_names_and_damaged_files_are_errors_of_the_user(
    line: tuple[str, ...], fuzzed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fuzzed)
    result = click.testing.CliRunner().invoke(cli, line, prog_name="harness")
    (fuzzed / "b.zip").unlink(missing_ok=True)
    assert result.exit_code in (1, 2), result.output
    assert "Error: " in result.output
    assert "This is a bug" not in result.output
    assert isinstance(result.exception, SystemExit)
