"""Tests of help texts and options, and of requests that are rejected before a run starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from command_line import Invoke, harness_cli

import harness
from harness.errors import UsageError
from harness.plugins.catalog import Catalog

COMMANDS = (
    "run",
    "distill",
    "tune",
    "status",
    "parity",
    "evaluate",
    "predictions",
    "predict",
    "explain",
    "export",
    "serve",
    "latency",
    "list",
    "data",
    "show",
    "groups",
    "compare",
    "baseline",
    "audit",
    "report",
    "history",
    "rank",
    "results",
    "track",
    "bundle",
    "reproduce",
    "plugin",
    "env",
    "doctor",
    "selftest",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_help_has_examples(invoke: Invoke, command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"  harness {command}" in result.stdout.partition("Examples:")[2]


def test_help_lists_commands_in_order(invoke: Invoke) -> None:
    listing = invoke("--help").stdout.partition("Commands:")[2]
    assert [line.split()[0] for line in listing.splitlines() if line.startswith("  ")][: len(COMMANDS)] == [*COMMANDS]


@pytest.mark.parametrize("arguments", [("options",), ("metrics",), ("executors",), ("models",), ()])
def test_list_on_a_terminal_fits_its_width(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    import harness.cli.list as listing

    monkeypatch.setattr(listing, "_is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "110")
    lines = invoke("list", *arguments).stdout.splitlines()
    assert max(map(len, lines)) <= 110
    assert len(lines) > 3


def test_version_is_that_of_the_distribution(invoke: Invoke) -> None:
    from importlib.metadata import version

    assert invoke("--version").stdout == f"harness {version('ml-harness')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rnu", "unknown command 'rnu'; did you mean 'run'?"),
        ("run", "no task given; select one of: toy-classify, toy-regress"),
        ("run --task toy-classify --teacher none", "unknown run 'none'"),
        ("distill --teacher none --student toy-linear", "unknown run 'none'"),
        ("run --task toy-clasify", "unknown task 'toy-clasify'; did you mean 'toy-classify'?"),
        ("run --task toy-classify --backend toy-nunpy", "unknown backend 'toy-nunpy'; did you mean 'toy-numpy'?"),
        ("run --task toy-classify --dataset toy-colours", "unknown dataset 'toy-colours'; did you mean 'toy-colors'?"),
        ("run --task toy-classify --model toy-linea", "unknown model 'toy-linea'; did you mean 'toy-linear'?"),
        ("run --task toy-classify --precision fp23", "unknown precision 'fp23'; did you mean 'fp32'?"),
        ("run --task toy-classify --device cdua", "unknown device 'cdua'; did you mean 'cuda'?"),
        (
            "run --task toy-classify --set recipe.epoch=1",
            "unknown option 'recipe.epoch'; did you mean 'recipe.epochs'?",
        ),
        ("run --task toy-classify --set recipe.epochs=few", "invalid value in section 'recipe'"),
        ("run --task toy-classify --set epochs", "write it as section.key=value"),
        ("run --task toy-classify --seed 1,x", "'x' is not a non-negative integer"),
        ("run --task toy-classify --seed -1", "'-1' is not a non-negative integer"),
        ("run --task toy-classify, --seed 1", "empty name in 'toy-classify,'"),
        ("run --task toy-classify --threads 0", "0 is not in the range"),
        ("run --task toy-classify --timeout 0", "0.0 is not in the range"),
        ("run --task toy-classify --timeout nan", "Invalid value for '--timeout': nan is not a finite number"),
        ("run --task toy-classify --backend toy-absent", "run: pip install no-such-framework"),
        ("run --task toy-classify --dataset toy-numbers", "cannot be used with task 'toy-classify'"),
        ("list modles", "unknown kind 'modles'; did you mean 'models'?"),
        ("report --format cvs", "unknown report format 'cvs'; did you mean 'csv'?"),
        ("show nothing", "unknown run 'nothing'"),
    ],
)
def test_wrong_request_starts_no_run(invoke: Invoke, tmp_path: Path, arguments: str, message: str) -> None:
    result = invoke(*arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def parameters() -> list[tuple[str, click.Parameter]]:
    """Return the parameters of all commands, with the name of the command."""
    from harness.cli.root import cli

    found: list[tuple[str, click.Parameter]] = []
    commands: list[tuple[str, click.Command]] = [("", cli)]
    while commands:
        name, command = commands.pop()
        found += [(name, parameter) for parameter in command.params]
        if isinstance(command, click.Group):
            context = click.Context(command)
            listed = [(each, command.get_command(context, each)) for each in command.list_commands(context)]
            commands += [(f"{name} {each}".strip(), inner) for each, inner in listed if inner is not None]
    return found


@pytest.mark.parametrize("command", ["status", "report", "history", "results prune", "results verify"])
def test_results_directory_as_an_argument_is_refused_with_advice(invoke: Invoke, command: str) -> None:
    result = invoke(*command.split(), "some/results")
    assert result.exit_code == 2
    assert "unexpected extra argument (some/results); pass a results directory with --results" in result.stderr


def test_commands_that_read_results_have_the_option_results() -> None:
    without = {"list", "selftest", "serve", "doctor", "data", "plugin", "env", ""}
    have = {
        command.partition(" ")[0]
        for command, each in parameters()
        if each.name == "results" and each.opts == ["--results"]
    }
    assert {*COMMANDS} - without <= have


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_numeric_options_refuse_numbers_that_are_not_finite(value: str) -> None:
    numeric = [
        (command, each)
        for command, each in parameters()
        if isinstance(each.type, click.FloatRange | click.types.FloatParamType)
    ]
    assert {("serve", "answer_timeout"), ("latency", "seconds"), ("run", "timeout"), ("rank", "price_per_hour")} <= {
        (command, each.name) for command, each in numeric
    }
    for _, each in numeric:
        with pytest.raises(click.BadParameter, match="is not a finite number"):
            each.type.convert(value, each, None)


def test_default_timeouts_equal_those_of_the_functions() -> None:
    from harness.checks.parity.check import TIMEOUT_S
    from harness.execute.runner import DEFAULT_TIMEOUT_S

    defaults = {command: parameter.default for command, parameter in parameters() if parameter.name == "timeout"}
    assert defaults.pop("parity") == TIMEOUT_S
    assert set(defaults.values()) == {DEFAULT_TIMEOUT_S}


def test_debug_prints_the_traceback(invoke: Invoke) -> None:
    result = invoke("--debug", "run", "--task", "nothing")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "UnknownNameError" in result.stderr


def test_unexpected_exception_is_reported_as_a_bug(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("harness.plugins.discover", broken)
    result = invoke("list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ZeroDivisionError: a bug\n")
    assert "This is a bug. Run `harness --debug ...` for a traceback, and please report it." in result.stderr
    assert "Traceback" not in result.stderr


def test_dry_run_key_that_looks_like_a_number_is_unchanged(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.records.RunSpec.key", "084e0232" + 56 * "0")
    result = invoke("run", "--task", "toy-regress", "--backend", "toy-numpy", "--dry-run")
    (row,) = (line.split() for line in result.stdout.splitlines() if line.startswith("toy"))
    assert "084e0232" in row


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--parity", "a parity check needs two backends"),
        ("--detach", "the executor 'local' does not support --detach"),
        ("--jobs 9999 --threads 1", "needs 9999 x 1 = 9999 cores"),
        ("--checkpoint-every soon", "'soon' is not an interval between checkpoints"),
        ("--timeout nan", "nan is not a finite number"),
        ("--memory-limit 0GiB", "'0GiB' is not a valid amount of memory"),
        ("--retry never", "unknown kind of failure 'never'"),
    ],
)
def test_dry_run_rejects_what_a_run_rejects(options: str, message: str, invoke: Invoke, tmp_path: Path) -> None:
    for more in ("", " --dry-run"):
        done = invoke(*f"run --task toy-regress --backend toy-numpy {options}{more}".split())
        assert done.exit_code == 2
        assert message in done.stderr
        assert not list(tmp_path.glob("results/*/record.json"))


def test_dry_run_in_python_rejects_what_a_run_rejects(toy: Path, tmp_path: Path) -> None:
    invalid: list[dict[str, Any]] = [{"parity": True}, {"timeout_s": float("nan")}, {"memory_limit": -1}]
    for settings in (*invalid, {"trackers": ["none"]}):
        with pytest.raises(UsageError):
            harness.run("toy-regress", backend="toy-numpy", results=tmp_path / "results", dry_run=True, **settings)


def test_dry_run_lists_each_run_once_in_order(invoke: Invoke, tmp_path: Path) -> None:
    arguments = (
        "run --task toy-regress,toy-classify --task toy-regress --backend toy-numpy --seed 2,0 --seed 2 --dry-run"
    )
    result = invoke(*arguments.split())
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("toy")]
    assert [(row[0], row[4]) for row in rows] == [
        ("toy-regress", "2"),
        ("toy-regress", "0"),
        ("toy-classify", "2"),
        ("toy-classify", "0"),
    ]
    assert result.stdout.endswith("4 runs planned; none was started\n")
    assert list(tmp_path.iterdir()) == []


def test_list_all_kinds_and_one_kind(invoke: Invoke) -> None:
    brief = invoke("list")
    assert brief.exit_code == 0
    for kind in ("tasks", "datasets", "models", "backends", "metrics", "plugins"):
        assert f"{kind}\n" in brief.stdout
    assert "toy-linear, toy-through-origin" in brief.stdout
    full = invoke("list", "tasks")
    assert [line.split()[0] for line in full.stdout.splitlines()[3:]] == ["toy-classify", "toy-regress"]
    assert "toy-colors" in full.stdout


def test_list_shows_how_to_install_a_missing_backend(invoke: Invoke) -> None:
    line = next(line for line in invoke("list", "backends").stdout.splitlines() if "toy-absent" in line)
    assert "[unavailable: no_such_framework is not installed; run: pip install no-such-framework]" in line


def test_list_shows_a_plugin_that_failed_to_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[harness]\nbroken = broken_plugin\n")
    (tmp_path / "broken_plugin.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for arguments in (["list"], ["list", "plugins"]):
        done = harness_cli(*arguments)
        line = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["broken"])
        assert "NOT LOADED: ModuleNotFoundError: No module named 'no_such_module_anywhere'" in line
    done = harness_cli("run", "--task", "nothing", status=2)
    assert "plugin 'broken' (broken) is not loaded" in done.stderr


def test_doctor_lists_backends_and_checks_the_results_directory(
    invoke: Invoke, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only three backends are used, since each lists its devices in a separate process."""
    backends = {name: catalog.backends[name] for name in ("toy-numpy", "toy-absent", "toy-no-devices")}
    monkeypatch.setattr("harness.plugins.discover", lambda *_: dataclasses.replace(catalog, backends=backends))
    result = invoke("doctor", "--results", "new/results")
    assert result.exit_code == 0
    assert "  toy-numpy: available\n    cpu  the host  fp32\n" in result.stdout
    assert "  toy-absent: not available: no_such_framework is not installed" in result.stdout
    assert "  toy-no-devices: not available: no device was found" in result.stdout
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    refused = invoke("doctor", "--results", "file/results", "--format", "json")
    assert refused.exit_code == 1
    found = msgspec.json.decode(refused.stdout)
    assert found["results_problem"].endswith("file is not a directory; choose another directory with --results DIR")
    assert {backend["name"]: len(backend["devices"]) for backend in found["backends"]}["toy-numpy"] == 1


def test_list_options_prints_defaults_and_meanings(invoke: Invoke, toy: Path) -> None:
    listing = invoke("list", "options", "--task", "toy-classify").stdout
    assert listing.startswith("recipe of toy-linear on toy-colors\n")
    line = next(line for line in listing.splitlines() if line.split()[:1] == ["recipe.epochs"])
    assert line.split(maxsplit=2)[2] == "Number of passes over the training split."
    assert "dataset.noise" in listing
    everything = invoke("list", "options").stdout
    assert "\ndataset from table files\n" in everything
    assert "\nmodel toy\n" in everything


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("list models --task toy-classify", "can only be used with `harness list options`"),
        ("list options --dataset toy-colors", "--dataset requires --task"),
        ("list options --task toy-clasify", "did you mean 'toy-classify'?"),
    ],
)
def test_list_options_rejects_wrong_selections(invoke: Invoke, toy: Path, arguments: str, message: str) -> None:
    result = invoke(*arguments.split())
    assert result.exit_code == 2
    assert message in result.stderr
