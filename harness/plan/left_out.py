"""Explanation of why a plan does not use some backends, if the user did not select backends."""

from __future__ import annotations

from collections.abc import Sequence

from harness.plan.expand import backend_problem, suits
from harness.plugins.catalog import Catalog
from harness.records import RunSpec


def left_out(specs: Sequence[RunSpec], catalog: Catalog) -> dict[str, str]:
    """Return the reasons why backends without a planned run are not used, keyed by backend name."""
    used = {spec.backend for spec in specs}
    return {name: _reason(name, specs, catalog) for name in sorted(catalog.backends) if name not in used}


def describe(reasons: dict[str, str]) -> str:
    """Return the reasons as a line of text."""
    return "Backends that are not used: " + ", ".join(f"{name} ({reason})" for name, reason in reasons.items())


def _reason(name: str, specs: Sequence[RunSpec], catalog: Catalog) -> str:
    backend = catalog.backend(name)
    if problem := backend_problem(name, catalog):
        return problem.removeprefix(f"backend {name!r} is not available: ")
    if not backend.trains:
        return "cannot train; use it with --weights"
    models = ", ".join(dict.fromkeys(spec.model for spec in specs))
    tasks = [catalog.task(task) for task in dict.fromkeys(spec.task for spec in specs)]
    known = [model for model in backend.default_models if model in catalog.models or model in catalog.variants]
    own = [model for model in known if any(suits(task, catalog.model(model)[0]) for task in tasks)]
    advice = f"; --backend {name} trains {own[0]}" if own else ""
    return f"does not implement {models}{advice}"
