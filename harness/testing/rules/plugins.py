"""Rules for a plugin as a whole: loading, hooks, names and import time."""

from __future__ import annotations

import json
import sys
from functools import cached_property

from harness.execute.child import run_program
from harness.plugins.attributes import misspelled_attributes
from harness.plugins.catalog import Catalog, LoadedPlugin
from harness.plugins.code import DECLARATION
from harness.plugins.offers import YIELDS
from harness.records import PluginRef
from harness.testing.rule import Broken, Rule

MAX_S = 0.05
"""Maximum import time of a plugin's module, in seconds."""
HEAVY = ("numpy", "pandas", "scipy", "sklearn", "torch", "tensorflow", "keras", "jax", "transformers", "matplotlib")
_TRIES = 5

_MEASURE = """
import sys, time, json
import harness, harness.interfaces, harness.plugins
from harness.records import RunRecord
for name in harness.__all__: getattr(harness, name)
heavy = json.loads(sys.argv[2])
before = set(sys.modules)
start = time.perf_counter()
from harness.plugins.code import import_object
import_object(sys.argv[1])
print(json.dumps([time.perf_counter() - start, [n for n in heavy if n in sys.modules and n not in before]]))
"""


class Installed:
    """A plugin and measurements of its import in new processes."""

    def __init__(self, ref: PluginRef, catalog: Catalog) -> None:
        self.ref, self.catalog = ref, catalog

    @cached_property
    def imports(self) -> list[tuple[float, list[str]]]:
        """Tuples (duration in seconds, heavy modules that were loaded), one for each measured import."""
        measured = []
        for _ in range(_TRIES):
            command = [sys.executable, "-c", _MEASURE, self.ref.value, json.dumps(HEAVY)]
            process = run_program(command, timeout_s=60)
            if process.returncode:
                lines = process.stderr.strip().splitlines()
                raise Broken(
                    f"the plugin cannot be imported in a new process: {lines[-1] if lines else process.returncode}"
                )
            seconds, heavy = json.loads(process.stdout.splitlines()[-1])
            measured.append((seconds, heavy))
        return measured

    @property
    def loaded(self) -> LoadedPlugin:
        (loaded,) = [plugin for plugin in self.catalog.plugins if plugin.ref == self.ref]
        return loaded


def _loads(case: Installed) -> None:
    for failure in case.catalog.failures:
        if failure.ref == case.ref:
            raise Broken(failure.message)


def _implements_a_hook(case: Installed) -> None:
    if not any(caller.get_hookimpls() for caller in vars(case.loaded.hooks).values()):
        raise Broken("the plugin does not implement any hook")


def _has_unique_names(case: Installed) -> None:
    name = (
        case.ref.value
        if case.ref.distribution == "file"
        else f"{case.ref.name!r} of distribution {case.ref.distribution}"
    )
    for explanation in case.catalog.conflicts.values():
        if name in explanation:
            raise Broken(explanation)


def _declares_its_api(case: Installed) -> None:
    if not isinstance(getattr(case.loaded.module, DECLARATION, None), str):
        raise Broken(f"the module does not define {DECLARATION}")


def _has_no_misspelled_attributes(case: Installed) -> None:
    for hook, (_, kind, _) in YIELDS.items():
        for provided in getattr(case.catalog, hook.removeprefix("harness_")).values():
            if provided.plugin != case.ref:
                continue
            owner = type(provided.value).__name__
            for name, near in misspelled_attributes(provided.value, kind).items():
                raise Broken(f"{owner} defines {name}, which harness does not use; did you mean {near!r}?")


def _imports_nothing_heavy(case: Installed) -> None:
    if heavy := case.imports[0][1]:
        raise Broken(f"importing the plugin also imports {', '.join(heavy)}")


def _imports_quickly(case: Installed) -> None:
    fastest = min(seconds for seconds, _ in case.imports)
    if fastest > MAX_S:
        raise Broken(f"the import took {1e3 * fastest:.0f} ms (best of {_TRIES}); the limit is {1e3 * MAX_S:.0f} ms")


PLUGIN_RULES: tuple[Rule[Installed], ...] = (
    Rule("plugin-loads", "The plugin loads.", "fix the reported error", _loads),
    Rule(
        "plugin-implements-a-hook",
        "The plugin implements at least one hook.",
        "define a hook, such as harness_tasks, and decorate it with @harness.hookimpl",
        _implements_a_hook,
    ),
    Rule(
        "plugin-has-unique-names",
        "No other plugin provides an object with the same name.",
        "rename the object, or uninstall the other plugin",
        _has_unique_names,
    ),
    Rule(
        "plugin-declares-its-api",
        "The plugin declares the version of the plugin API that it was written for.",
        'add HARNESS_API_VERSION = "1.0" to the module',
        _declares_its_api,
    ),
    Rule(
        "plugin-has-no-misspelled-attributes",
        "No class has an attribute whose name is similar to an attribute or method of its base class.",
        "correct the name, or choose one that is less similar or begins with an underscore",
        _has_no_misspelled_attributes,
    ),
    Rule(
        "plugin-imports-nothing-heavy",
        "Importing the plugin does not import numpy, pandas, scipy, scikit-learn, a framework or a plotting library.",
        "import these packages inside functions, or in a module that is referred to as 'module:callable'",
        _imports_nothing_heavy,
    ),
    Rule(
        "plugin-imports-quickly",
        "Importing the plugin takes less than 50 ms.",
        "run python -X importtime -c 'import your_module' to find the slow imports",
        _imports_quickly,
    ),
)
