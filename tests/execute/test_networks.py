"""Tests that errors about networks name the faulty network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sample_records import spec

from harness.errors import BadResultError, PluginError
from harness.execute.networks import checked_build, wrong_outputs_named
from harness.interfaces import Network, NetworkRef, PreparedData, Split
from harness.records import DataInfo

SPLIT = Split(inputs={"features": np.zeros((5, 2), np.float32)}, targets=np.zeros(5, np.int64))
INFO = DataInfo(kind="features", inputs={}, objective="classification", outputs=3)
DATA = PreparedData(train=SPLIT, validation=SPLIT, test=SPLIT, info=INFO)


def nothing(config: Any, info: DataInfo, dropout: float) -> None:
    return None


def unbuildable(config: Any, info: DataInfo, dropout: float) -> Network:
    return Network(module=config.hidden_size, bindings={})


def too_large(config: Any, info: DataInfo, dropout: float) -> Network:
    raise RuntimeError("out of memory")


def a_network(config: Any, info: DataInfo, dropout: float) -> Network:
    return Network(module=config, bindings={})


def build(name: str) -> Any:
    ref = NetworkRef(model="mlp", backend="torch", build=f"{__name__}:{name}")
    return checked_build(ref)("config", INFO, 0.0)


class Returns:
    """Session whose outputs have the given shape."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def predict(self, inputs: Any) -> Any:
        if not self.shape:
            raise RuntimeError("no prediction")
        return np.zeros(self.shape)

    def fetch(self, handle: Any) -> Any:
        return handle


def test_build_that_returns_no_network_raises() -> None:
    message = r"model 'mlp' for backend 'torch' cannot be used: .*:nothing returned NoneType, but it must return"
    with pytest.raises(PluginError, match=message):
        build("nothing")


def test_build_that_raises_names_the_network_and_the_line() -> None:
    message = (
        r"the network of model 'mlp' for backend 'torch' cannot be built: AttributeError: 'str' object has no "
        r"attribute 'hidden_size' \(test_networks.py, line \d+, in unbuildable\)"
    )
    with pytest.raises(PluginError, match=message):
        build("unbuildable")


def test_build_that_runs_out_of_memory_raises_the_same_error() -> None:
    ref = NetworkRef(model="mlp", backend="torch", build=f"{__name__}:too_large")
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        checked_build(ref, lambda error: "out of memory" in str(error))("config", INFO, 0.0)


def test_build_that_returns_a_network_returns_it() -> None:
    assert build("a_network") == Network(module="config", bindings={})


def fail(session: Any, error: Exception) -> None:
    with wrong_outputs_named(session, DATA, spec()):
        raise error


def test_training_that_fails_because_of_the_shape_of_the_outputs_names_the_network() -> None:
    message = (
        r"model 'bert-tiny' for backend 'torch' returns outputs of shape \(5, 1\), expected \(5, 3\); fix the network"
    )
    with pytest.raises(PluginError, match=message) as caught:
        fail(Returns(5, 1), IndexError("target 2 is out of bounds"))
    assert isinstance(caught.value.__cause__, IndexError)


@pytest.mark.parametrize("session", [Returns(5, 3), Returns()])
def test_training_that_fails_for_another_reason_raises_the_same_error(session: Any) -> None:
    with pytest.raises(IndexError, match="another reason"):
        fail(session, IndexError("another reason"))


def test_error_of_harness_is_not_explained() -> None:
    with pytest.raises(BadResultError, match="the loss is nan"):
        fail(Returns(5, 1), BadResultError("the loss is nan"))
