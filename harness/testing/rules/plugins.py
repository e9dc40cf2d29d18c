"""Rules for a plugin as a whole: how it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cached_property

from harness.plugins.catalog import Catalog, LoadedPlugin
from harness.plugins.code import DECLARATION
from harness.records import PluginRef
from harness.testing.rule import Broken, Rule

MAX_S = 0.05
"""What importing a plugin's module may take."""
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
    """A plugin, and what its import costs in fresh interpreters."""

    def __init__(self, ref: PluginRef, catalog: Catalog) -> None:
        self.ref, self.catalog = ref, catalog

    @cached_property
    def imports(self) -> list[tuple[float, list[str]]]:
        """Seconds, and the heavy modules that came along."""
        found = []
        for _ in range(_TRIES):
            command = [sys.executable, "-c", _MEASURE, self.ref.value, json.dumps(HEAVY)]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            if ended.returncode:
                lines = ended.stderr.strip().splitlines()
                raise Broken(f"it cannot be imported by itself: {lines[-1] if lines else ended.returncode}")
            seconds, heavy = json.loads(ended.stdout.splitlines()[-1])
            found.append((seconds, heavy))
        return found

    @property
    def loaded(self) -> LoadedPlugin:
        (loaded,) = [plugin for plugin in self.catalog.plugins if plugin.ref == self.ref]
        return loaded


def _loads(it: Installed) -> None:
    for failure in it.catalog.failures:
        if failure.ref == it.ref:
            raise Broken(failure.message)


def _brings_something(it: Installed) -> None:
    if not any(caller.get_hookimpls() for caller in vars(it.loaded.hooks).values()):
        raise Broken("it implements no hook")


def _shares_no_name(it: Installed) -> None:
    name = it.ref.value if it.ref.distribution == "file" else f"{it.ref.name!r} of distribution {it.ref.distribution}"
    for explanation in it.catalog.conflicts.values():
        if name in explanation:
            raise Broken(explanation)


def _declares_its_api(it: Installed) -> None:
    if not isinstance(getattr(it.loaded.module, DECLARATION, None), str):
        raise Broken(f"the module has no {DECLARATION}")


def _imports_nothing_heavy(it: Installed) -> None:
    if heavy := it.imports[0][1]:
        raise Broken(f"importing it imports {', '.join(heavy)}")


def _imports_quickly(it: Installed) -> None:
    fastest = min(seconds for seconds, _ in it.imports)
    if fastest > MAX_S:
        raise Broken(
            f"importing it took {1e3 * fastest:.0f} ms, the best of {_TRIES} tries; {1e3 * MAX_S:.0f} are fine"
        )


PLUGIN_RULES: tuple[Rule[Installed], ...] = (
    Rule("plugin-loads", "It is found and loads.", "what was seen is its own error: correct it", _loads),
    Rule(
        "plugin-brings-something",
        "It implements a hook.",
        "define a function of harness.plugins.hookspecs, such as harness_tasks, marked with @harness.hookimpl",
        _brings_something,
    ),
    Rule(
        "plugin-shares-no-name",
        "Nothing that it brings has a name of another plugin's.",
        "rename what it brings, or uninstall the other plugin",
        _shares_no_name,
    ),
    Rule(
        "plugin-declares-its-api",
        "It tells which version of the plugin API it was made for.",
        'put HARNESS_API_VERSION = "1.0" into the module',
        _declares_its_api,
    ),
    Rule(
        "plugin-imports-nothing-heavy",
        "Importing it imports no numpy, pandas, scipy, scikit-learn, framework or plotting library.",
        "import them inside the functions that use them, or in a module that is named as 'module:callable'",
        _imports_nothing_heavy,
    ),
    Rule(
        "plugin-imports-quickly",
        "Importing it takes less than 50 ms.",
        "python -X importtime -c 'import your_module' shows what takes long",
        _imports_quickly,
    ),
)
