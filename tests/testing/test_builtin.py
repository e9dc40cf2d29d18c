"""Tests of the built-in plugins against the rules for third-party plugins."""

from __future__ import annotations

from functools import cache

import pytest

from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.testing import BackendSuite, NetworkSuite, PluginSuite
from harness.testing.check import RULES, Subject, apply_rules, subjects

PLUGINS = (
    "core-metrics",
    "core-formats",
    "core-executors",
    "nlp",
    "ray",
    "vision",
    "speech",
    "regression",
    "tabular",
    "baselines",
    "torch",
    "tensorflow",
    "onnxruntime",
)
LIGHT = ("dataset", "task", "model", "metric", "reporter")
FAMILIES = ("linear", "mlp", "lstm", "bert", "resnet", "wav2vec2")


@cache
def catalog() -> Catalog:
    return discover()


def light_subjects() -> list[Subject]:
    """Return all objects except backends, networks, and datasets whose files must be downloaded."""
    every = [subject for plugin in catalog().plugins for subject in subjects(plugin.ref, catalog())]
    return [s for s in every if s.kind in LIGHT and not (s.kind == "dataset" and catalog().dataset(s.name).files)]


@pytest.mark.parametrize("subject", light_subjects(), ids=str)
def test_builtin_object_breaks_no_rule(subject: Subject) -> None:
    findings = list(apply_rules(subject, catalog()))  # in this process, which imports scikit-learn only once
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
@pytest.mark.plugins("onnxruntime", "torch", "regression")
class TestOnnxruntime(BackendSuite):
    name = "onnxruntime"


@pytest.mark.slow
@pytest.mark.plugins("nlp", "vision", "speech", "regression", "torch", "tensorflow")
@pytest.mark.torch
@pytest.mark.tensorflow
class _Network(NetworkSuite):
    """Suite for a network, which includes the parity check against the other backend."""


for _backend in ("torch", "tensorflow"):
    for _family in FAMILIES:
        _class = f"TestNetwork{_family.title()}{_backend.title()}"
        globals()[_class] = type(_class, (_Network,), {"name": f"{_family}/{_backend}"})
