"""Tests of the checks of objects that hooks yield."""

from __future__ import annotations

import math
from typing import Any

import pytest

from harness.errors import PluginError
from harness.interfaces import Backend, DeviceInfo, Metric, NetworkRef, Reporter, Session, SessionRequest
from harness.plugins.attributes import misspelled_attributes
from harness.plugins.offers import check_offer


def metric(**changes: Any) -> Metric:
    values: dict[str, Any] = {"name": "odd", "objective": "regression", "function": "math:fsum", "summary": ""}
    return Metric(**values | {"higher_is_better": True} | changes)


@pytest.mark.parametrize("bounds", [(None, None), (0, 1), (0.0, None), (None, 1), (-2.0, -1.0)])
def test_metric_with_valid_bounds_is_accepted(bounds: Any) -> None:
    check_offer("harness_metrics", metric(bounds=bounds))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"higher_is_better": "yes"}, "higher_is_better"),
        ({"higher_is_better": None}, "higher_is_better"),
        ({"bounds": (0.0,)}, "bounds"),
        ({"bounds": ("0", "1")}, "bounds"),
        ({"bounds": (1.0, 0.0)}, "the bounds 1 and 0; the first bound must be smaller"),
        ({"bounds": (1.0, 1.0)}, "the bounds 1 and 1; the first bound must be smaller"),
        ({"bounds": (0.0, math.nan)}, "the bounds 0 and nan"),
        ({"unit": None}, "unit"),
        ({"summary": 3}, "summary"),
        ({"title": 3}, "title"),
        ({"in_tables": "yes"}, "in_tables"),
    ],
)
def test_metric_that_a_record_cannot_describe_is_rejected(change: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError, match="metric 'odd'") as error:
        check_offer("harness_metrics", metric(**change))
    assert said in str(error.value)


class Sound(Backend):
    name, summary = "sound", ""
    requires, packages = {"numpy": "pip install numpy"}, ("numpy",)

    def devices(self) -> list[DeviceInfo]:
        return []

    def open(self, request: SessionRequest) -> Session:
        raise NotImplementedError


def backend(**attributes: Any) -> Backend:
    made: Backend = type("Odd", (Sound,), attributes)()
    return made


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"packages": "numpy"}, "the attribute packages of Odd is 'numpy'; write a tuple, such as ('numpy',)"),
        ({"default_models": "mlp"}, "write a tuple, such as ('mlp',)"),
        ({"default_models": ("mlp", None)}, "for each element of the tuple, write a string"),
        ({"recipe_options": 3}, "the attribute recipe_options of Odd is 3; write a tuple"),
        ({"requires": ("numpy",)}, "the attribute requires of Odd is ('numpy',); write a dictionary"),
        ({"requires": {"numpy": None}}, "for each value of the dictionary, write a string"),
        ({"exports": {"onnx": "onnx"}}, "for each value of the dictionary, write a dictionary"),
        ({"trains_by_steps": "no"}, "the attribute trains_by_steps of Odd is 'no'; write True or False"),
        ({"summary": None}, "the attribute summary of Odd is None; write a string"),
    ],
)
def test_attribute_of_another_type_is_rejected(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError) as error:
        check_offer("harness_backends", backend(**attributes))
    assert said in str(error.value)


@pytest.mark.parametrize("many", [("numpy",), ["numpy"], {"numpy"}, {"numpy": 1}, ()])
def test_attribute_of_an_equivalent_type_is_accepted(many: Any) -> None:
    check_offer("harness_backends", backend(packages=many, recipe_options=many))


def test_attribute_with_an_unknown_value_lists_the_values() -> None:
    reporter = Reporter(name="odd", render="a:b", summary="", takes="reports")  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"the attribute takes of Reporter is 'reports'; use one of: table, report"):
        check_offer("harness_reporters", reporter)


def test_network_with_a_flag_of_another_type_is_rejected() -> None:
    network = NetworkRef(model="a", backend="b", build="c:d", fitted_weights="yes")  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"fitted_weights of NetworkRef is 'yes'; write True or False"):
        check_offer("harness_networks", network)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"train_by_steps": False}, {"train_by_steps": "trains_by_steps"}),
        ({"default_model": ("mlp",)}, {"default_model": "default_models"}),
        ({"is_outofmemory": None}, {"is_outofmemory": "is_out_of_memory"}),
        ({"export": {}, "exports": {}}, {}),
        ({"_exports": {}, "library": "numpy", "trains": False}, {}),
    ],
)
def test_misspelled_attributes_are_found(attributes: dict[str, Any], expected: dict[str, str]) -> None:
    assert misspelled_attributes(backend(**attributes), Backend) == expected
