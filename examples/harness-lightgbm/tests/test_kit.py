"""Conformance tests for everything that the package provides."""

from __future__ import annotations

import pytest

from harness.testing import BackendSuite, ModelSuite, NetworkSuite, PluginSuite


class TestPlugin(PluginSuite):
    name = "lightgbm"


class TestModel(ModelSuite):
    name = "lightgbm"


class TestBackend(BackendSuite):
    name = "lightgbm"


@pytest.mark.slow
class TestNetwork(NetworkSuite):
    name = "lightgbm/lightgbm"
