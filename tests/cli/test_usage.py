"""Help, options and everything that is wrong before anything runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import msgspec
import pytest
from command_line import Invoke, harness_cli

from harness.plugins.catalog import Catalog

COMMANDS = (
    "run",
    "parity",
    "evaluate",
    "latency",
    "list",
    "data",
    "show",
    "compare",
    "baseline",
    "audit",
    "report",
    "history",
    "bundle",
    "reproduce",
    "plugin",
    "doctor",
    "selftest",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_by_example(invoke: Invoke, command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"  harness {command}" in result.stdout.partition("Examples:")[2]


def test_help_names_every_command(invoke: Invoke) -> None:
    listing = invoke("--help").stdout.partition("Commands:")[2]
    assert [line.split()[0] for line in listing.splitlines() if line.startswith("  ")][: len(COMMANDS)] == [*COMMANDS]


def test_version(invoke: Invoke) -> None:
    from importlib.metadata import version

    assert invoke("--version").stdout == f"harness {version('harness')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rnu", "unknown command 'rnu'; did you mean 'run'?"),
        ("run", "no task given; known: toy-classify, toy-regress"),
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
        ("run --task toy-classify --set recipe.epochs=few", "wrong value in 'recipe'"),
        ("run --task toy-classify --set epochs", "write it as section.key=value"),
        ("run --task toy-classify --seed 1,x", "'x' is not a whole number from 0 up"),
        ("run --task toy-classify --seed -1", "'-1' is not a whole number"),
        ("run --task toy-classify, --seed 1", "empty name in 'toy-classify,'"),
        ("run --task toy-classify --threads 0", "0 is not in the range"),
        ("run --task toy-classify --timeout 0", "0.0 is not in the range"),
        ("run --task toy-classify --backend toy-absent", "run: pip install no-such-framework"),
        ("run --task toy-classify --dataset toy-numbers", "does not suit task 'toy-classify'"),
        ("list modles", "unknown kind 'modles'; did you mean 'models'?"),
        ("report --format cvs", "unknown report format 'cvs'; did you mean 'csv'?"),
        ("show nothing", "unknown run 'nothing'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    invoke: Invoke, tmp_path: Path, arguments: str, message: str
) -> None:
    result = invoke(*arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_timeouts_are_those_of_the_functions() -> None:
    from harness.checks.parity.check import TIMEOUT_S
    from harness.cli.root import cli
    from harness.execute.runner import DEFAULT_TIMEOUT_S

    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    defaults = {
        name: parameter.default
        for name, command in commands.items()
        for parameter in (command.params if command else ())
        if parameter.name == "timeout"
    }
    assert defaults.pop("parity") == TIMEOUT_S
    assert set(defaults.values()) == {DEFAULT_TIMEOUT_S}


def test_debug_shows_the_traceback(invoke: Invoke) -> None:
    result = invoke("--debug", "run", "--task", "nothing")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "UnknownNameError" in result.stderr


def test_an_unforeseen_error_is_short_too(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("harness.plugins.discover", broken)
    result = invoke("list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ZeroDivisionError: a bug\n")
    assert "--debug" in result.stderr
    assert "Traceback" not in result.stderr


def test_dry_run_shows_a_key_that_looks_like_a_number(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.records.RunSpec.key", "084e0232" + 56 * "0")
    result = invoke("run", "--task", "toy-regress", "--backend", "toy-numpy", "--dry-run")
    assert result.stdout.splitlines()[2].split()[-1] == "084e0232"


def test_dry_run_plans_in_order_and_each_once(invoke: Invoke, tmp_path: Path) -> None:
    arguments = (
        "run --task toy-regress,toy-classify --task toy-regress --backend toy-numpy --seed 2,0 --seed 2 --dry-run"
    )
    result = invoke(*arguments.split())
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("toy")]
    assert [(row[0], row[8]) for row in rows] == [
        ("toy-regress", "2"),
        ("toy-regress", "0"),
        ("toy-classify", "2"),
        ("toy-classify", "0"),
    ]
    assert result.stdout.endswith("4 runs planned; nothing was run\n")
    assert list(tmp_path.iterdir()) == []


def test_list_in_short_and_in_full(invoke: Invoke) -> None:
    short = invoke("list")
    assert short.exit_code == 0
    for kind in ("tasks", "datasets", "models", "backends", "metrics", "plugins"):
        assert f"{kind}\n" in short.stdout
    assert "toy-linear, toy-through-origin" in short.stdout
    full = invoke("list", "tasks")
    assert [line.split()[0] for line in full.stdout.splitlines()[3:]] == ["toy-classify", "toy-regress"]
    assert "toy-colors" in full.stdout


def test_list_tells_how_to_get_a_backend_that_is_missing(invoke: Invoke) -> None:
    line = next(line for line in invoke("list", "backends").stdout.splitlines() if "toy-absent" in line)
    assert "[unavailable: no_such_framework is not installed; run: pip install no-such-framework]" in line


def test_list_tells_of_a_broken_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_doctor(invoke: Invoke, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each backend is asked for its devices in a process of its own."""
    backends = {name: catalog.backends[name] for name in ("toy-numpy", "toy-absent", "toy-no-devices")}
    monkeypatch.setattr("harness.plugins.discover", lambda *_: dataclasses.replace(catalog, backends=backends))
    result = invoke("doctor", "--results", "new/results")
    assert result.exit_code == 0
    assert "  toy-numpy: can run\n    cpu  the host  fp32\n" in result.stdout
    assert "  toy-absent: cannot run here: no_such_framework is not installed" in result.stdout
    assert "  toy-no-devices: cannot run here: it has no device here" in result.stdout
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    refused = invoke("doctor", "--results", "file/results", "--format", "json")
    assert refused.exit_code == 1
    found = msgspec.json.decode(refused.stdout)
    assert found["results_problem"].endswith("file is not a directory; choose another with --results DIR")
    assert {backend["name"]: len(backend["devices"]) for backend in found["backends"]}["toy-numpy"] == 1
