"""Tests of loading plugins, including faulty or slow plugins and those for another version."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from plugin_sources import Install, failure, metric
from toy_plugin import TOY_REF

from harness.errors import UsageError
from harness.plugins import discover, load
from harness.plugins.hookspecs import API_VERSION
from harness.plugins.offers import YIELDS

BROKEN = {
    "import of an absent module": ("import no_such_module_anywhere", "ModuleNotFoundError", "no_such_module_anywhere"),
    "syntax error": ("def harness_tasks(:", "SyntaxError"),
    "exit at import": ("import sys\nsys.exit('not today')", "SystemExit", "not today"),
    "exception at import": ("1 / 0", "ZeroDivisionError"),
    "misspelled hook": (
        "import harness\n@harness.hookimpl\ndef harness_task():\n    yield None\n",
        "harness_task'",
        "did you mean 'harness_tasks'?",
    ),
    "hook without its mark": ("def harness_tasks():\n    yield None\n", "harness_tasks", "@harness.hookimpl"),
    "unknown argument": (
        "import harness\n@harness.hookimpl\ndef harness_run_finished(recrod): ...\n",
        "recrod",
        "harness_run_finished",
    ),
    "wrong type": (
        "import harness\n@harness.hookimpl\ndef harness_tasks():\n    yield 'nlp'\n",
        "harness_tasks yielded a str",
        "harness.Task",
    ),
    "class instead of instance": (
        "import harness\nclass T(harness.Task): ...\n@harness.hookimpl\ndef harness_tasks():\n    yield T\n",
        "harness.Task",
    ),
    "missing method": (
        "import harness\nclass D(harness.Dataset): ...\n@harness.hookimpl\ndef harness_datasets():\n    yield D()\n",
        "implement the method load of D (",
        "line 5, in harness_datasets",
    ),
    "missing methods": (
        "import harness\nclass B(harness.Backend): ...\n@harness.hookimpl\ndef harness_backends():\n    yield B()\n",
        "implement the methods devices, open of B",
    ),
    "missing attributes": (
        "import harness\nclass B(harness.Backend):\n    name = 'b'\n    summary = ''\n"
        "    def devices(self): ...\n    def open(self, request): ...\n"
        "@harness.hookimpl\ndef harness_backends():\n    yield B()\n",
        "Backend without the attributes requires, packages",
    ),
    "exception in a hook": (
        "import harness\n@harness.hookimpl\ndef harness_models():\n    raise KeyError('lost')\n    yield\n",
        "KeyError",
        "lost",
    ),
    "exception after the first yield": (metric("half") + "    raise OSError('torn')\n", "OSError", "torn"),
    "hook that returns no iterable": (
        "import harness\n@harness.hookimpl\ndef harness_tasks():\n    return 3\n",
        "TypeError",
    ),
    "name that is not a string": (metric("x").replace("'x'", "['x']"), "['x']", "use only letters, digits"),
    "name that is a path": (metric("../x"), "'../x'", "use only letters, digits"),
    "name with a comma": (metric("a,b"), "'a,b'"),
    "empty name": (metric(""), "use only letters, digits"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_is_listed_and_others_load(case: str, install: Install, toy: Path) -> None:
    source, *expected = BROKEN[case]
    broken = install(source, distribution="broken-one")
    sound = install(metric("sound"))
    catalog = load([broken, TOY_REF, sound])
    message = failure(catalog, broken)
    for words in expected:
        assert words in message
    assert {"sound", "toy_share", "rmse"} <= set(catalog.metrics)
    assert "half" not in catalog.metrics


def test_model_without_variants_is_listed(install: Install) -> None:
    ref = install("""
        import harness
        class M(harness.Model):
            name, summary, accepts, objectives = "m", "", (), ()
            Config = harness.NoOptions
            variants = {}
            def parameters(self, config, info): ...
            def flops_per_sample(self, config, info): ...
        @harness.hookimpl
        def harness_models():
            yield M()
    """)
    assert "model 'm' has no variants" in failure(load([ref]), ref)


def test_task_whose_primary_metric_is_not_in_its_metrics_is_listed(install: Install) -> None:
    ref = install("""
        import harness
        class T(harness.Task):
            name, kind, produces, objective, summary = "t", "x", "x", "regression", ""
            default_dataset, default_model, metric, metrics = "d", "m", "rmse", ("mae",)
            def prepare(self, data, options): ...
        @harness.hookimpl
        def harness_tasks():
            yield T()
    """)
    assert "'rmse'" in failure(load([ref]), ref)


def test_misspelled_hook_of_an_object_is_listed(install: Install) -> None:
    source = "import harness\nclass P:\n    @harness.hookimpl\n    def harness_metric(self): ...\np = P()\n"
    ref = install(source, attribute=":p")
    assert "did you mean 'harness_metrics'?" in failure(load([ref]), ref)


def test_object_with_every_attribute_is_not_a_hook(install: Install) -> None:
    assert load([install("from unittest.mock import call\n" + metric("beside_a_mock"))]).failures == ()


def test_entry_point_to_missing_attribute_is_listed(install: Install) -> None:
    ref = install("", attribute=":plugin")
    assert "plugin" in failure(load([ref]), ref)


def test_import_that_hangs_is_abandoned(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_PLUGIN_TIMEOUT", "0.2")
    ref, sound = install("import time\ntime.sleep(60)\n"), install(metric("quick"))
    start = time.monotonic()
    catalog = load([ref, sound])
    assert time.monotonic() - start < 3
    assert failure(catalog, ref) == "did not load within 0.2 s (HARNESS_PLUGIN_TIMEOUT sets the limit)"
    assert "quick" in catalog.metrics


def test_plugin_that_hangs_does_not_keep_the_process_alive(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = install("import time\ntime.sleep(60)\n")
    code = "import sys, msgspec; from harness.plugins import load; from harness.records import PluginRef;"
    code += "sys.path.insert(0, sys.argv[2]); load([msgspec.json.decode(sys.argv[1], type=PluginRef)])"
    site = next(path for path in sys.path if (Path(path) / f"{ref.value}.py").exists())
    monkeypatch.setenv("HARNESS_PLUGIN_TIMEOUT", "0.2")
    subprocess.run([sys.executable, "-c", code, msgspec.json.encode(ref).decode(), site], check=True, timeout=10)


def test_slow_import_within_the_limit_loads(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_PLUGIN_TIMEOUT", "20")
    assert "slow" in load([install("import time\ntime.sleep(0.3)\n" + metric("slow"))]).metrics


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
def test_time_limit_that_is_not_valid_raises(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_PLUGIN_TIMEOUT", value)
    with pytest.raises(UsageError, match="HARNESS_PLUGIN_TIMEOUT"):
        load([])


def test_output_of_a_plugin_does_not_go_to_stdout(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    load([install("print('hello')")])
    assert capsys.readouterr() == ("", "hello\n")


def test_plugin_that_raises_keyboard_interrupt_is_listed(install: Install) -> None:
    ref = install("raise KeyboardInterrupt")
    assert failure(load([ref]), ref) == "it raised KeyboardInterrupt"


def test_interrupt_while_a_plugin_loads_propagates(install: Install) -> None:
    ref = install("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)")
    with pytest.raises(KeyboardInterrupt):
        load([ref])


@pytest.mark.parametrize(
    ("declared", "loads"),
    [("1", True), ("1.0", True), (API_VERSION, True), ("1.99", False), ("2.0", False), ("0.4", False)],
)
def test_plugin_for_an_api_version_that_is_not_provided_is_not_imported(
    declared: str, loads: bool, install: Install
) -> None:
    ref = install(f"HARNESS_API_VERSION = {declared!r}\nRAN = 1\n" + metric("versioned"))
    catalog = load([ref])
    assert ("versioned" in catalog.metrics) is loads
    if not loads:
        message = failure(catalog, ref)
        assert (
            f"was written for version {declared} of the plugin API, but this version of harness provides version "
            f"{API_VERSION}" in message
        )
        assert ref.value not in sys.modules, "the plugin's code was run"


@pytest.mark.parametrize("declared", ["'new'", "''", "'1.x'", "'-1.0'", "1.0", "2", "(1, 0)", "True"])
def test_plugin_whose_api_version_is_not_a_version_is_refused(declared: str, install: Install) -> None:
    ref = install(f"HARNESS_API_VERSION = {declared}\n" + metric("versioned"))
    catalog = load([ref])
    assert "versioned" not in catalog.metrics
    assert f"HARNESS_API_VERSION is {declared}, which is not a version; write it as a string" in failure(catalog, ref)


def test_computed_api_version_is_checked(install: Install) -> None:
    ref = install("HARNESS_API_VERSION = '.'.join(['3', '1'])\n" + metric("computed"))
    assert "was written for version 3.1" in failure(load([ref]), ref)


def test_discover_with_every_broken_plugin_loads_the_others(install: Install, toy: Path) -> None:
    for number, (source, *_) in enumerate(BROKEN.values()):
        install(source, distribution=f"broken-{number}")
    catalog = discover()
    broken = [failure for failure in catalog.failures if failure.ref.distribution.startswith("broken-")]
    assert len(broken) == len(BROKEN)
    assert "toy-regress" in catalog.tasks


def test_every_hook_that_yields_has_a_type() -> None:
    from harness.plugins import hookspecs

    hooks = {name for name in vars(hookspecs) if name.startswith("harness_")}
    assert set(YIELDS) == {name for name in hooks if not name.endswith(("_started", "_ended", "_finished", "_lost"))}


def test_load_dataset_without_a_license_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "own-data v2.py"
    path.write_text(
        "import harness\nclass D(harness.Dataset):\n"
        "    name, kind, objective, summary = 'd', 'table', 'regression', 'x'\n"
        "    def load(self, options): ...\n@harness.hookimpl\ndef harness_datasets():\n    yield D()\n"
    )
    catalog = discover([str(path)])
    assert catalog.failures == ()
    assert catalog.dataset("d").license == ""
