"""Tests of discovery: entry points, files, modules, variables and built-in plugins."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from plugin_sources import Install, failure, metric
from toy_plugin import FAULTS_REF, TOY_REF

from harness.errors import UnknownNameError, UsageError
from harness.plugins import discover, load, resolve
from harness.records import PluginRef


def test_toy_is_discovered(toy: Path) -> None:
    catalog = discover()
    assert {TOY_REF, FAULTS_REF} <= {plugin.ref for plugin in catalog.plugins}
    assert catalog.tasks["toy-regress"].plugin == TOY_REF
    assert catalog.backends["toy-segfault"].plugin == FAULTS_REF
    assert catalog.metrics["toy_share"].plugin == TOY_REF
    assert "toy-count" in catalog.reporters
    assert not {"made", "harness-toy"} & {failure.ref.distribution for failure in catalog.failures}


@pytest.fixture
def unregistered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Source folder of an installed distribution that requires harness, but has no entry point."""
    site, project = tmp_path / "site", tmp_path / "project"
    (site / "harness_tiny7-0.1.dist-info").mkdir(parents=True)
    metadata = "Metadata-Version: 2.1\nName: Harness_Tiny7\nVersion: 0.1\nRequires-Dist: ml-harness[torch]>=0.1\n"
    (site / "harness_tiny7-0.1.dist-info" / "METADATA").write_text(metadata)
    project.mkdir()
    (project / "pyproject.toml").write_text('[project]\nname = "harness-tiny7"\n')
    monkeypatch.syspath_prepend(site)
    return project


@pytest.mark.parametrize(
    "words", [("plugin", "check", "tiny7"), ("run", "--task", "toy-regress", "--model", "tiny7-wide")]
)
def test_unknown_name_of_an_installed_distribution_without_entry_point_is_explained(
    words: tuple[str, ...], toy: Path, unregistered: Path
) -> None:
    from harness.cli.root import cli

    done = CliRunner().invoke(cli, words, prog_name="harness")
    assert done.exit_code == 2
    assert "the distribution 'harness-tiny7' is installed, but declares no plugin; add the table" in done.stderr
    assert "[project.entry-points.harness]" in done.stderr


def test_unknown_name_without_a_similar_distribution_has_no_hint(toy: Path, unregistered: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        discover().model("toy-linaer")
    assert str(caught.value) == "unknown model 'toy-linaer'; did you mean 'toy-linear'?"


def test_check_of_an_installed_project_without_entry_point_is_explained(toy: Path, unregistered: Path) -> None:
    from harness.cli.root import cli

    done = CliRunner().invoke(cli, ["plugin", "check", str(unregistered)], prog_name="harness")
    assert done.exit_code == 2
    assert "'harness-tiny7' is installed, but declares no plugin" in done.stderr
    assert f"pip install --editable {unregistered}" in done.stderr
    (unregistered / "pyproject.toml").write_text('[project]\nname = "harness-absent"\n')
    done = CliRunner().invoke(cli, ["plugin", "check", str(unregistered)], prog_name="harness")
    assert "the distribution 'harness-absent' is not installed; run: pip install" in done.stderr


def test_toy_is_discovered_by_a_child(toy: Path) -> None:
    code = "from harness.plugins import discover; print(sorted(discover().tasks))"
    output = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'toy-regress'" in output


def test_core_plugins_are_part_of_every_catalog() -> None:
    catalog = load([])
    assert [plugin.ref.name for plugin in catalog.plugins] == ["core-metrics", "core-formats", "core-executors"]
    assert {"accuracy", "rmse"} <= set(catalog.metrics)
    assert {"text", "json"} <= set(catalog.reporters)
    assert catalog.metrics["rmse"].plugin == catalog.plugin("core-metrics")
    assert not catalog.tasks


def test_core_plugins_are_discovered_once_and_can_be_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [plugin.ref.name for plugin in discover(["harness.report.builtin"]).plugins]
    assert [names.count(name) for name in ("core-metrics", "core-formats")] == [1, 1]
    monkeypatch.setenv("HARNESS_DISABLE_PLUGINS", "core-formats")
    catalog = discover()
    assert "text" not in catalog.reporters
    assert "rmse" in catalog.metrics
    assert [failure.message for failure in catalog.failures if failure.ref.name == "core-formats"] == [
        "disabled by HARNESS_DISABLE_PLUGINS"
    ]
    assert load([]).reporters == {}, "a child process leaves it out too"


def test_load_in_another_order_gives_the_same_catalog(toy: Path) -> None:
    one, other = load([TOY_REF, FAULTS_REF]), load([FAULTS_REF, TOY_REF])
    for kind in ("tasks", "datasets", "models", "networks", "backends", "metrics", "variants"):
        assert set(getattr(one, kind)) == set(getattr(other, kind))


def test_plugin_that_is_an_object_loads(install: Install) -> None:
    source = metric("by_object").replace("def harness_metrics():", "def harness_metrics(self):")
    body = textwrap.indent(source.replace("import harness\n", ""), "    ")
    catalog = load([install(f"import harness\nclass Plugin:\n{body}\nplugin = Plugin()\n", attribute=":plugin")])
    assert catalog.failures == ()
    assert "by_object" in catalog.metrics


def test_hook_that_returns_none_loads(install: Install) -> None:
    ref = install("import harness\n@harness.hookimpl\ndef harness_tasks():\n    return None\n")
    assert load([ref]).failures == ()


def test_file_is_a_plugin(one_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = one_file(metric("in_a_file"))
    monkeypatch.chdir(path.parent)
    ref = discover([path.name]).metrics["in_a_file"].plugin
    assert ref == PluginRef(name=path.stem, value=str(path), distribution="file", version="")
    assert "in_a_file" not in discover().metrics
    monkeypatch.setenv("HARNESS_PLUGINS", f" {path} ,")
    assert "in_a_file" in discover().metrics
    assert "in_a_file" in discover([str(path)]).metrics, "a plugin that is listed twice is loaded once"
    assert load([ref]).metrics["in_a_file"].plugin == ref, "a child process loads it by its reference"


def test_reference_into_a_plugin_file_resolves(one_file: Callable[..., Path]) -> None:
    path = one_file("def mine(): return 3\n" + metric("own", "PLACE:mine"))
    path.write_text(path.read_text().replace("PLACE", path.stem))
    catalog = discover([str(path)])
    assert resolve(catalog.metric("own").function)() == 3


def test_module_is_a_plugin(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = install(metric("by_module"), distribution="harness-by-module")
    site = next(path for path in sys.path if (Path(path) / f"{ref.value}.py").exists())
    monkeypatch.delenv("HARNESS_PLUGINS", raising=False)
    assert discover([ref.value]).metrics["by_module"].plugin == ref, "an installed plugin is not loaded twice"
    for info in Path(site).glob("*.dist-info"):
        info.rename(info.with_suffix(".off"))
    assert discover([ref.value]).metrics["by_module"].plugin.distribution == "module"


@pytest.mark.parametrize("source", ["./nowhere.py", "folder/", "./notes.txt"])
def test_plugin_file_that_is_not_valid_raises(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").touch()
    reason = "does not exist" if source == "./nowhere.py" else "is not a Python file"
    with pytest.raises(UsageError, match=rf"{reason}; pass the path of .*, or a module name"):
        discover([source])


def test_missing_module_is_listed() -> None:
    (found,) = [f for f in discover(["no_such_module_anywhere"]).failures if f.ref.distribution == "module"]
    assert "No module named 'no_such_module_anywhere'" in found.message


def test_file_that_would_hide_a_module_is_listed(one_file: Callable[..., Path]) -> None:
    path = one_file(metric("hiding"), "json.py")
    (found,) = [f for f in discover([str(path)]).failures if f.ref.distribution == "file"]
    sys.modules["json"].dumps  # noqa: B018  # the module imported before is unchanged
    assert "would hide the module 'json'" in found.message
    assert "rename the file" in found.message
    import json

    sys.modules["json"] = json


def test_disabled_plugin_is_listed(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    ref, other = install(metric("left_out"), distribution="a"), install(metric("kept"), distribution="b")
    monkeypatch.setenv("HARNESS_DISABLE_PLUGINS", f"unknown, {ref.name}")
    catalog = discover()
    assert failure(catalog, ref) == "disabled by HARNESS_DISABLE_PLUGINS"
    (unknown,) = [each for each in catalog.failures if each.ref.name == "unknown"]
    assert unknown.message == "listed in HARNESS_DISABLE_PLUGINS, but no such plugin is installed"
    assert "kept" in catalog.metrics
    assert other in {plugin.ref for plugin in catalog.plugins}
    with pytest.raises(UnknownNameError, match="disabled by HARNESS_DISABLE_PLUGINS"):
        catalog.metric("left_out")


def test_plugins_with_the_same_name_are_listed(install: Install) -> None:
    one = install(metric("of_one"), distribution="harness-one", name="twins")
    two = install(metric("of_two"), distribution="harness-two", name="twins")
    catalog = discover()
    assert failure(catalog, one) == failure(catalog, two)
    assert "several plugins are named 'twins': harness-one" in failure(catalog, one)
    assert "harness-two" in failure(catalog, one)
