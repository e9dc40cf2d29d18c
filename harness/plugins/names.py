"""Enter the objects that plugins offer into a catalog, by name. A name that two plugins claim is left out as a
conflict."""

from __future__ import annotations

from typing import Any

from harness.plugins.catalog import Catalog, Provided
from harness.plugins.offers import Offer
from harness.records import PluginRef


def fill(catalog: Catalog, offers: list[Offer]) -> None:
    """Enter the offers into the catalog."""
    kinds: dict[str, tuple[str, dict[Any, Any]]] = {
        "harness_tasks": ("task", catalog.tasks),
        "harness_datasets": ("dataset", catalog.datasets),
        "harness_models": ("model", catalog.models),
        "harness_networks": ("network", catalog.networks),
        "harness_backends": ("backend", catalog.backends),
        "harness_metrics": ("metric", catalog.metrics),
        "harness_reporters": ("report format", catalog.reporters),
    }
    claims: dict[tuple[str, Any], list[tuple[PluginRef, Any]]] = {}
    for ref, hook, value in offers:
        name = (value.model, value.backend) if hook == "harness_networks" else value.name
        claims.setdefault((hook, name), []).append((ref, value))
    for (hook, name), claimants in claims.items():
        kind, known = kinds[hook]
        if len(claimants) > 1:
            _conflict(catalog, kind, name, [ref for ref, _ in claimants])
        else:
            ref, value = claimants[0]
            known[name] = Provided(value, ref)
    owners: dict[str, list[str]] = {}
    for family, provided in catalog.models.items():
        for name in dict.fromkeys((family, *provided.value.variants)):
            owners.setdefault(name, []).append(family)
    for name, families in owners.items():
        if len(families) > 1:
            _conflict(catalog, "model", name, [catalog.models[family].plugin for family in families])
        elif name in catalog.models[families[0]].value.variants:
            catalog.variants[name] = families[0]


def _conflict(catalog: Catalog, kind: str, name: Any, refs: list[PluginRef]) -> None:
    who = " and ".join(
        ref.value if ref.distribution == "file" else f"{ref.name!r} of distribution {ref.distribution}" for ref in refs
    )
    shown = "/".join(name) if isinstance(name, tuple) else name
    catalog.conflicts[kind, shown] = f"the {kind} {shown!r} is provided more than once, by {who}; leave out all but one"
