"""Tests of discovery and loading: valid plugins, broken and slow plugins, and plugins whose names conflict."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from sample_records import record
from toy_plugin import FAULTS_REF, TOY_REF

from harness.errors import PluginError, UnknownNameError, UsageError
from harness.plugins import discover, load, resolve
from harness.plugins.catalog import Catalog
from harness.plugins.code import digest
from harness.plugins.events import Events
from harness.plugins.find import named
from harness.plugins.offers import YIELDS
from harness.plugins.requirements import missing
from harness.records import PluginRef

Install = Callable[..., PluginRef]
_numbers = itertools.count()

METRIC = """
import harness

@harness.hookimpl
def harness_metrics():
    yield harness.Metric(
        name={name!r}, objective="regression", function="{function}", higher_is_better=True, summary=""
    )
"""


def metric(name: str, function: str = "math:fsum") -> str:
    return METRIC.format(name=name, function=function)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that installs a distribution with one plugin module and returns the plugin's reference."""
    made: list[str] = []

    def install(source: str, *, distribution: str = "made", attribute: str = "", name: str = "") -> PluginRef:
        module = f"made_plugin_{next(_numbers)}"
        made.append(module)
        site = tmp_path / f"site{len(made)}"
        info = site / f"{distribution.replace('-', '_')}-2.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.0\n")
        ref = PluginRef(name=name or module, value=module + attribute, distribution=distribution, version="2.0")
        (info / "entry_points.txt").write_text(f"[harness]\n{ref.name} = {ref.value}\n")
        monkeypatch.syspath_prepend(str(site))
        return ref

    yield install
    for module in made:
        sys.modules.pop(module, None)


def failure(catalog: Catalog, ref: PluginRef) -> str:
    """Return the reason why a plugin is not loaded, which must be listed exactly once."""
    (message,) = [failure.message for failure in catalog.failures if failure.ref == ref]
    return message


# ---- valid plugins ----------------------------------------------------------------------------------------


def test_toy_is_discovered(toy: Path) -> None:
    catalog = discover()
    assert {TOY_REF, FAULTS_REF} <= {plugin.ref for plugin in catalog.plugins}
    assert catalog.tasks["toy-regress"].plugin == TOY_REF
    assert catalog.backends["toy-segfault"].plugin == FAULTS_REF
    assert catalog.metrics["toy_share"].plugin == TOY_REF
    assert "toy-count" in catalog.reporters
    assert not {"made", "harness-toy"} & {failure.ref.distribution for failure in catalog.failures}


def test_toy_is_discovered_by_a_child(toy: Path) -> None:
    code = "from harness.plugins import discover; print(sorted(discover().tasks))"
    output = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'toy-regress'" in output


def test_core_plugins_are_part_of_every_catalog() -> None:
    catalog = load([])
    assert [plugin.ref.name for plugin in catalog.plugins] == ["core-metrics", "core-formats"]
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


def test_model_family_selects_its_first_variant(catalog: Catalog) -> None:
    model, variant = catalog.model("toy")
    assert (model.name, variant) == ("toy", "toy-linear")
    assert catalog.model("toy-through-origin") == (model, "toy-through-origin")


def test_refs_for_returns_only_plugins_that_the_run_needs(catalog: Catalog) -> None:
    spec = record(task="toy-regress", dataset="toy-numbers", model="toy-linear", backend="toy-numpy").spec
    assert catalog.refs_for(spec) == (TOY_REF,)
    assert set(catalog.refs_for(msgspec.structs.replace(spec, backend="toy-killed"))) == {TOY_REF, FAULTS_REF}


def test_plugin_that_is_an_object_loads(install: Install) -> None:
    source = metric("by_object").replace("def harness_metrics():", "def harness_metrics(self):")
    body = textwrap.indent(source.replace("import harness\n", ""), "    ")
    catalog = load([install(f"import harness\nclass Plugin:\n{body}\nplugin = Plugin()\n", attribute=":plugin")])
    assert catalog.failures == ()
    assert "by_object" in catalog.metrics


def test_hook_that_returns_none_loads(install: Install) -> None:
    ref = install("import harness\n@harness.hookimpl\ndef harness_tasks():\n    return None\n")
    assert load([ref]).failures == ()


# ---- broken plugins ---------------------------------------------------------------------------------------

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
        "write the method load of D (",
        "line 5, in harness_datasets",
    ),
    "missing methods": (
        "import harness\nclass B(harness.Backend): ...\n@harness.hookimpl\ndef harness_backends():\n    yield B()\n",
        "write the methods devices, open of B",
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
    "name that is not a string": (metric("x").replace("'x'", "['x']"), "['x']", "names consist of"),
    "name that is a path": (metric("../x"), "'../x'", "names consist of"),
    "name with a comma": (metric("a,b"), "'a,b'"),
    "empty name": (metric(""), "names consist of"),
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


def test_keyboard_interrupt_propagates(install: Install) -> None:
    with pytest.raises(KeyboardInterrupt):
        load([install("raise KeyboardInterrupt")])


def test_unknown_name_lists_plugins_that_are_not_loaded(install: Install) -> None:
    ref = install("import no_such_module_anywhere\n" + metric("kappa"), distribution="harness-kappa")
    with pytest.raises(UnknownNameError) as caught:
        load([ref]).metric("kappa")
    message = str(caught.value)
    assert "unknown metric 'kappa'" in message
    assert f"plugin {ref.name!r} (harness-kappa) is not loaded" in message
    assert "No module named 'no_such_module_anywhere'" in message


def test_unknown_name_suggests_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(UnknownNameError, match="unknown task 'toy-regres'; did you mean 'toy-regress'\\?"):
        catalog.task("toy-regres")
    with pytest.raises(UnknownNameError, match="unknown dataset 'qqqq'; known: toy-colors, toy-numbers"):
        catalog.dataset("qqqq")
    with pytest.raises(UnknownNameError, match="'toy-linear'"):
        catalog.model("toy-linaer")


# ---- conflicting names ------------------------------------------------------------------------------------


def test_duplicate_name_raises_with_both_distributions(install: Install) -> None:
    one = install(metric("twin"), distribution="harness-one")
    _, _, second_yield = metric("single").partition("def harness_metrics():\n")
    two = install(metric("twin") + second_yield, distribution="harness-two")
    three = install(metric("alone"))
    catalog = load([one, two, three])
    assert catalog.failures == ()
    with pytest.raises(PluginError, match=r"metric 'twin'.*harness-one.*harness-two"):
        catalog.metric("twin")
    assert "twin" not in catalog.metrics
    assert catalog.metric("single").name == "single"
    assert catalog.metric("alone").name == "alone"


MODEL = """
import harness
class M(harness.Model):
    name, summary, accepts, objectives = {name!r}, "", (), ()
    Config = harness.NoOptions
    variants = {{{variants}: {{}}, {name!r} + "-own": {{}}}}
    def parameters(self, config, info): ...
    def flops_per_sample(self, config, info): ...
@harness.hookimpl
def harness_models():
    yield M()
"""


def test_variant_of_two_families_raises(install: Install) -> None:
    one = install(MODEL.format(name="first", variants="'shared'"), distribution="harness-one")
    two = install(MODEL.format(name="second", variants="'shared'"), distribution="harness-two")
    catalog = load([one, two])
    with pytest.raises(PluginError, match=r"model 'shared'.*harness-one.*harness-two"):
        catalog.model("shared")
    assert catalog.model("first-own")[1] == "first-own"


def test_variant_with_the_name_of_another_family_raises(install: Install) -> None:
    """Without the error, the family's name would silently select the other plugin's model."""
    one = install(MODEL.format(name="first", variants="'second'"), distribution="harness-one")
    two = install(MODEL.format(name="second", variants="'second-large'"), distribution="harness-two")
    catalog = load([one, two])
    with pytest.raises(PluginError, match=r"model 'second'.*harness-one.*harness-two"):
        catalog.model("second")
    assert catalog.model("second-large")[0].name == "second"


def test_module_with_two_entry_points_loads_once(install: Install) -> None:
    ref = install(metric("once"))
    again = msgspec.structs.replace(ref, name="again")
    catalog = load([ref, again])
    assert "once" in catalog.metrics
    assert failure(catalog, again) == f"it has the same module as plugin {ref.name!r}; leave out one of them"


# ---- events -----------------------------------------------------------------------------------------------


def test_event_hook_that_raises_is_reported_and_others_run(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = "import harness\nreceived = []\n@harness.hookimpl\ndef harness_run_finished({argument}):\n    {body}\n"
    loud = install(hook.format(argument="record", body="raise ValueError('no tracker')"))
    leaving = install(hook.format(argument="", body="raise SystemExit(3)"))
    sound = install(hook.format(argument="record", body="received.append(record.run_id)"))
    catalog = load([loud, leaving, sound])
    assert catalog.failures == ()
    finished = record()
    Events(catalog).notify("harness_run_finished", record=finished)
    assert sys.modules[sound.value].received == [finished.run_id]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"plugin {loud.name!r} failed in harness_run_finished: ValueError: no tracker" in captured.err
    assert f"plugin {leaving.name!r} failed in harness_run_finished: SystemExit: 3" in captured.err


def test_event_hook_that_hangs_is_abandoned(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_PLUGIN_TIMEOUT", "0.2")
    hook = "import harness, time\nreceived = []\n@harness.hookimpl\ndef harness_run_finished(record):\n    {body}\n"
    stuck = install(hook.format(body="received.append(record.run_id); time.sleep(60)"))
    sound = install(hook.format(body="received.append(record.run_id)"))
    events = Events(load([stuck, sound]))
    start = time.monotonic()
    for _ in range(3):
        events.notify("harness_run_finished", record=record())
    assert time.monotonic() - start < 3
    assert len(sys.modules[stuck.value].received) == 1
    assert len(sys.modules[sound.value].received) == 3
    assert capsys.readouterr().err.count("did not return within 0.2 s (HARNESS_PLUGIN_TIMEOUT") == 1


def test_event_hooks_of_a_plugin_run_in_one_thread(install: Install) -> None:
    """An event tracker may use an SQLite connection, which works only in the thread that opened it."""
    source = "import harness, threading\nreceived = []\n@harness.hookimpl\ndef harness_run_finished():\n"
    ref = install(source + "    received.append(threading.get_ident())\n")
    events = Events(load([ref]))
    for _ in range(4):
        events.notify("harness_run_finished", record=record())
    assert len(sys.modules[ref.value].received) == 4
    assert len(set(sys.modules[ref.value].received)) == 1


# ---- files, modules, environment variables ----------------------------------------------------------------


@pytest.fixture
def one_file(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    made: list[Path] = []

    def write(source: str, name: str = "") -> Path:
        path = tmp_path / (name or f"one_file_plugin_{next(_numbers)}.py")
        path.write_text(textwrap.dedent(source))
        made.append(path)
        return path

    yield write
    for path in made:
        sys.modules.pop(path.stem, None)


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
    assert "give the file another name" in found.message
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
    assert "several plugins are named 'twins', in harness-one" in failure(catalog, one)
    assert "harness-two" in failure(catalog, one)


# ---- API version and code digest --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "loads"), [("1", True), ("1.0", True), ("1.9", True), ("2.0", False), ("0.4", False), ("new", False)]
)
def test_plugin_for_another_major_version_is_not_imported(declared: str, loads: bool, install: Install) -> None:
    ref = install(f"HARNESS_API_VERSION = {declared!r}\nRAN = 1\n" + metric("versioned"))
    catalog = load([ref])
    assert ("versioned" in catalog.metrics) is loads
    if not loads:
        message = failure(catalog, ref)
        assert f"was written for version {declared} of the plugin API, but this harness has version 1.0" in message
        assert ref.value not in sys.modules, "the plugin's code was run"


def test_computed_api_version_is_checked(install: Install) -> None:
    ref = install("HARNESS_API_VERSION = '.'.join(['3', '1'])\n" + metric("computed"))
    assert "was written for version 3.1" in failure(load([ref]), ref)


def test_digest_changes_with_the_code(one_file: Callable[..., Path]) -> None:
    path = one_file(metric("digested"))
    before = digest(str(path))
    assert len(before) == 64
    path.write_text(path.read_text() + "# changed\n")
    assert digest(str(path)) != before


def test_digest_of_a_package_covers_all_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "digested_package"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py", "inner/net.py"):
        (package / name).write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = digest("digested_package:plugin")
    (package / "notes.txt").write_text("no code")
    assert digest("digested_package:plugin") == before
    (package / "inner" / "net.py").rename(package / "inner" / "other.py")
    assert digest("digested_package:plugin") != before
    assert digest("digested_package.inner") == digest("digested_package")
    assert "digested_package" not in sys.modules
    assert digest("there_is_no_such_package") == ""


def test_named_module_has_its_distribution() -> None:
    assert named("pluggy").distribution == "pluggy"


# ---- requirements and references --------------------------------------------------------------------------


def test_missing_returns_the_install_command() -> None:
    assert missing({}) is None
    assert missing({"json": "pip install json"}) is None
    assert missing({"no_such_thing": "pip install a"}) == "no_such_thing is not installed; run: pip install a"
    both = missing({"no_such_thing": "pip install a", "json": "pip install j", "no_other": "pip install a"})
    assert both == "no_such_thing and no_other are not installed; run: pip install a"


def test_missing_finds_submodules() -> None:
    assert missing({"importlib.metadata": "x"}) is None
    assert missing({"no_such_thing.inside": "pip install a"}) is not None
    assert missing({"json.decoder.inside": "pip install a"}) is not None


def test_missing_imports_nothing() -> None:
    sys.modules.pop("this", None)
    assert missing({"this": "x"}) is None
    assert "this" not in sys.modules


def test_resolve_returns_the_object_or_raises() -> None:
    assert resolve("math:sqrt")(9) == 3
    for reference in ("math:no_such", "no_such_module:f", "math", ":f", ""):
        with pytest.raises(PluginError, match=r"no_such|math|''|':f'"):
            resolve(reference)


def test_resolve_of_a_broken_module_raises_its_error(install: Install) -> None:
    ref = install("import math\nmath.no_such\n")
    with pytest.raises(AttributeError, match="no_such"):
        resolve(f"{ref.value}:build")


def test_discover_with_every_broken_plugin_loads_the_others(install: Install, toy: Path) -> None:
    for source, *_ in BROKEN.values():
        install(source, distribution=f"broken-{next(_numbers)}")
    catalog = discover()
    broken = [failure for failure in catalog.failures if failure.ref.distribution.startswith("broken-")]
    assert len(broken) == len(BROKEN)
    assert "toy-regress" in catalog.tasks


def test_every_hook_that_yields_has_a_type() -> None:
    from harness.plugins import hookspecs

    plural = {name for name in vars(hookspecs) if name.startswith("harness_") and not name.startswith("harness_run_")}
    assert set(YIELDS) == plural - {"harness_epoch_ended"}
