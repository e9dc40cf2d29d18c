"""Conformance tests for everything that the package provides."""

from __future__ import annotations

import pytest

from harness.testing import ModelSuite, NetworkSuite, PluginSuite


class TestPlugin(PluginSuite):
    name = "vit"


class TestModel(ModelSuite):
    name = "vit"


@pytest.mark.slow
class TestTorch(NetworkSuite):
    name = "vit/torch"


@pytest.mark.slow
class TestTensorflow(NetworkSuite):
    name = "vit/tensorflow"
