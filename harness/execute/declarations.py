"""Validation of what a model's methods return, with error messages that name the model and the method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from harness.errors import PluginError
from harness.interfaces import Model, Parameter
from harness.records import DataInfo


def declared_parameters(model: Model, config: Any, info: DataInfo) -> tuple[Parameter, ...]:
    """Return `Model.parameters` for the data. Raises `harness.PluginError` if the result is not a sequence of
    parameters."""
    returned: Any = model.parameters(config, info)
    if not isinstance(returned, Sequence) or isinstance(returned, str):
        raise PluginError(
            f"model {model.name!r}: parameters() returned {_described(returned)} instead of a list of "
            "harness.Parameter objects; return the list"
        )
    for each in returned:
        if not isinstance(each, Parameter):
            raise PluginError(
                f"model {model.name!r}: the list returned by parameters() contains {_described(each)}; list only "
                "harness.Parameter objects"
            )
    return tuple(returned)


def declared_flops(model: Model, config: Any, info: DataInfo) -> float:
    """Return `Model.flops_per_sample` for the data. Raises `harness.PluginError` if the result is not a finite number
    or is negative."""
    returned: Any = model.flops_per_sample(config, info)
    if not isinstance(returned, Real) or isinstance(returned, bool):
        raise PluginError(
            f"model {model.name!r}: flops_per_sample() returned {_described(returned)} instead of a number; return "
            "the number of operations"
        )
    flops = float(returned)
    if not (math.isfinite(flops) and flops >= 0):
        raise PluginError(
            f"model {model.name!r}: flops_per_sample() returned {flops}; return a finite number of "
            "operations, 0 or more"
        )
    return flops


def _described(value: Any) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"
