"""Tests from harness's conformance kit, and tests of the settings that the backend rejects."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import harness_openvino
import pytest

import harness
import harness.testing
from harness.records import DataInfo, InputSpec, Recipe


class TestPlugin(harness.testing.PluginSuite):
    name = "openvino"


class TestBackend(harness.testing.BackendSuite):
    name = "openvino"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda:0"}, "does not support precision fp32 on cuda:0"),
        ({"precision": "bf16"}, "does not support precision bf16 on cpu"),
        ({"compile": True}, "remove --compile"),
    ],
)
def test_unsupported_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    request = harness.SessionRequest(
        build=pytest.fail,
        config=None,
        info=DataInfo(
            kind="features", inputs={"x": InputSpec(shape=(4,), dtype="float32")}, objective="regression", outputs=1
        ),
        parameters=(),
        recipe=Recipe(),
        device="cpu",
        precision="fp32",
        compile=False,
        seed=0,
        threads=1,
        exported=Path("unused"),
    )
    with pytest.raises(harness.UnsupportedError, match=message):
        harness_openvino.OpenVinoBackend().open(dataclasses.replace(request, **changes))
