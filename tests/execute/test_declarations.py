"""Tests of the validation of what a model's methods return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from command_line import harness_cli
from toy_plugin import SET_FAST

from harness.errors import PluginError
from harness.execute.declarations import declared_flops, declared_parameters
from harness.interfaces import Parameter

PARAMETER = Parameter(name="weight", shape=(2, 3))
PLUGIN = """
import harness, harness_toy
HARNESS_API_VERSION = "1.0"

class Forgetful(harness_toy.ToyLinear):
    name, variants, recipes = "forgetful", {"forgetful": {}}, {}
    def flops_per_sample(self, config, info):
        2.0 * info.outputs

@harness.hookimpl
def harness_models():
    yield Forgetful()

@harness.hookimpl
def harness_networks():
    yield harness.NetworkRef(model="forgetful", backend="toy-numpy", build="harness_toy:build")
"""


def model(method: str, value: Any) -> Any:
    from harness_toy import ToyLinear

    return type("Returns", (ToyLinear,), {method: lambda self, config, info: value})()


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "returned None instead of a number"),
        ("12", "returned an object of type str instead of a number"),
        (True, "returned an object of type bool instead of a number"),
        (float("nan"), "returned nan; return a finite number"),
        (-1.0, "returned -1.0; return a finite number"),
    ],
)
def test_flops_that_are_not_a_number_of_operations_are_an_error(value: Any, shown: str) -> None:
    with pytest.raises(PluginError) as caught:
        declared_flops(model("flops_per_sample", value), None, None)  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"model 'toy': flops_per_sample() {shown}")


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("value", [12, 12.0, np.float32(12), np.int64(12)])
def test_flops_of_any_numeric_type_are_accepted(value: Any) -> None:
    returned = declared_flops(model("flops_per_sample", value), None, None)  # type: ignore[arg-type]
    assert (returned, type(returned)) == (12.0, float)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "parameters() returned None instead of a list"),
        ([PARAMETER, None], "the list returned by parameters() contains None"),
        (["weight"], "the list returned by parameters() contains an object of type str"),
    ],
)
def test_parameters_that_are_not_a_list_of_parameters_are_an_error(value: Any, shown: str) -> None:
    with pytest.raises(PluginError) as caught:
        declared_parameters(model("parameters", value), None, None)  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"model 'toy': {shown}")
    assert declared_parameters(model("parameters", [PARAMETER]), None, None) == (PARAMETER,)  # type: ignore[arg-type]


@pytest.mark.usefixtures("toy")
def test_failed_run_names_the_model_and_the_method(tmp_path: Any) -> None:
    path = tmp_path / "forgetful_plugin.py"
    path.write_text(PLUGIN)
    words = ("--plugin", path, "--task", "toy-regress", "--model", "forgetful", "--backend", "toy-numpy", *SET_FAST)
    done = harness_cli("run", *words, results=tmp_path / "results", status=1)
    assert "model 'forgetful': flops_per_sample() returned None instead of a number" in done.stdout + done.stderr
