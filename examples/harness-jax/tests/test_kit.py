"""Tests from harness's conformance kit. The network suites also compare each network with another installed backend."""

from __future__ import annotations

import pytest

import harness.testing


class TestPlugin(harness.testing.PluginSuite):
    name = "jax"


@pytest.mark.slow
class TestBackend(harness.testing.BackendSuite):
    name = "jax"


@pytest.mark.slow
class TestLinear(harness.testing.NetworkSuite):
    name = "linear/jax"


@pytest.mark.slow
class TestMlp(harness.testing.NetworkSuite):
    name = "mlp/jax"


@pytest.mark.slow
class TestLstm(harness.testing.NetworkSuite):
    name = "lstm/jax"


@pytest.mark.slow
class TestBert(harness.testing.NetworkSuite):
    name = "bert/jax"


@pytest.mark.slow
class TestResNet(harness.testing.NetworkSuite):
    name = "resnet/jax"


@pytest.mark.slow
class TestWav2Vec2(harness.testing.NetworkSuite):
    name = "wav2vec2/jax"
