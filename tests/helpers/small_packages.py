"""Wheels of a small package, and a plugin whose backend uses it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from harness.records import PluginRef

PACKAGE = "harness-test-tiny"
MODULE = "harness_test_tiny"

BACKEND = f"""
import harness
import harness_toy


class Session(harness_toy.NumpySession):
    def notes(self):
        import {MODULE}

        return {{"tiny": {MODULE}.VERSION}}


class Backend(harness_toy.NumpyBackend):
    name = "tiny"
    summary = "gradient descent in numpy, with a package that has several versions"
    requires = {{"{MODULE}": "{PACKAGE}"}}
    packages = ("{PACKAGE}",)

    def open(self, request):
        return Session(request)


@harness.hookimpl
def harness_backends():
    yield Backend()


@harness.hookimpl
def harness_networks():
    yield harness.NetworkRef(model="toy", backend="tiny", build="harness_toy:build")
"""


def write_wheel(folder: Path, version: str, *, name: str = PACKAGE, requires: str = "") -> Path:
    """Write a wheel of a package with one module, which contains its version, and return its path."""
    stem = f"{name.replace('-', '_')}-{version}"
    needed = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name.replace('-', '_')}.py": f'VERSION = "{version}"\n',
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{stem}.dist-info/RECORD"])
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in {**files, f"{stem}.dist-info/RECORD": record}.items():
            archive.writestr(path, content)
    return wheel


def write_plugin(folder: Path) -> PluginRef:
    """Write the plugin to a file and return the reference to it."""
    path = folder / "tiny_backend.py"
    path.write_text(BACKEND)
    return PluginRef(name=str(path), value=str(path), distribution="file", version="")
