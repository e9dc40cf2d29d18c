"""What ships with harness keeps the rules that a stranger's plugin is asked to keep."""

from __future__ import annotations

from functools import cache

import pytest

from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.testing import BackendSuite, NetworkSuite, PluginSuite
from harness.testing.check import RULES, Subject, check, subjects

PLUGINS = ("core-metrics", "core-formats", "nlp", "vision", "speech", "regression", "baselines", "torch", "tensorflow")
LIGHT = ("dataset", "task", "model", "metric", "reporter")
FAMILIES = ("linear", "mlp", "lstm", "bert", "resnet", "wav2vec2")


@cache
def catalog() -> Catalog:
    return discover()


def light() -> list[Subject]:
    """All but backends and networks, and datasets whose files must be downloaded."""
    found = [subject for plugin in catalog().plugins for subject in subjects(plugin.ref, catalog())]
    return [it for it in found if it.kind in LIGHT and not (it.kind == "dataset" and catalog().dataset(it.name).files)]


@pytest.mark.parametrize("subject", light(), ids=str)
def test_keeps_every_rule(subject: Subject) -> None:
    findings = check(subject, catalog())
    assert len(findings) == len(RULES[subject.kind])
    assert [str(finding) for finding in findings if finding.passed is False] == []


class _Loads(PluginSuite):
    pass


for _name in PLUGINS:
    _class = type(f"Test{_name.title().replace('-', '')}Plugin", (_Loads,), {"name": _name})
    globals()[_class.__name__] = pytest.mark.plugins(_name)(_class)


@pytest.mark.torch
@pytest.mark.plugins("torch", "regression")
class TestTorch(BackendSuite):
    name = "torch"


@pytest.mark.tensorflow
@pytest.mark.plugins("tensorflow", "regression")
class TestTensorflow(BackendSuite):
    name = "tensorflow"


@pytest.mark.slow
@pytest.mark.plugins("nlp", "vision", "speech", "regression", "torch", "tensorflow")
@pytest.mark.torch
@pytest.mark.tensorflow
class _Network(NetworkSuite):
    """Compared with the other backend."""


for _backend in ("torch", "tensorflow"):
    for _family in FAMILIES:
        _class = f"TestNetwork{_family.title()}{_backend.title()}"
        globals()[_class] = type(_class, (_Network,), {"name": f"{_family}/{_backend}"})
