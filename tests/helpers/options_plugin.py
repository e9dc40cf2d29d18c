"""Plugin with a backend for the toy model that claims to implement all recipe options, for tests of their values."""

from __future__ import annotations

from collections.abc import Iterable

from harness_toy import NumpyBackend

import harness
from harness import NetworkRef, Recipe

HARNESS_API_VERSION = "1.0"


class Able(NumpyBackend):
    name = "toy-able"
    recipe_options = tuple(sorted(Recipe.SESSION_OPTIONS))


@harness.hookimpl
def harness_backends() -> Iterable[harness.Backend]:
    yield Able()


@harness.hookimpl
def harness_networks() -> Iterable[NetworkRef]:
    yield NetworkRef(model="toy", backend="toy-able", build="harness_toy:build")
