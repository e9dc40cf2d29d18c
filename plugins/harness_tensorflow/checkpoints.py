"""The variables of a session that are stored in a checkpoint.

Names of the arrays:

- ``weights.NAME``: canonical parameters and running statistics, in the layout of their variables.
- ``optimizer.NAME``: moments and step count of the optimizer.
- ``loss_scale.NAME``: dynamic loss scale.
- ``average.INDEX``: moving average of the weights.
- ``module.INDEX``: all other variables of the network, including the states of the generators that draw dropout masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import harness
from harness_tensorflow.optimizers import LossScale, Optimizer

AVERAGE = "average."


def variables_of(
    module: Any,
    weights: Mapping[str, Any],
    optimizer: Optimizer,
    loss_scale: LossScale | None,
    average: Sequence[Any],
) -> dict[str, Any]:
    """Return the variables that change during training, by their names in a checkpoint."""
    known = {id(variable) for variable in weights.values()}
    others = {id(variable): variable for variable in _variables(module) if id(variable) not in known}
    return (
        {f"weights.{name}": variable for name, variable in weights.items()}
        | {f"optimizer.{name}": variable for name, variable in optimizer.state_variables().items()}
        | {f"loss_scale.{name}": each for name, each in (loss_scale.state_variables() if loss_scale else {}).items()}
        | {f"{AVERAGE}{index}": variable for index, variable in enumerate(average)}
        | {f"module.{index}": variable for index, variable in enumerate(others.values())}
    )


def restore(state: Mapping[str, Any], variables: Mapping[str, Any]) -> None:
    """Assign the arrays of a checkpoint to the variables.

    Raises `harness.PluginError` if the arrays do not match the variables.
    """
    problems = [f"missing {name}" for name in variables if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in variables]
    problems += [
        f"{name} is {array.dtype} {array.shape}, not {variables[name].dtype.name} {tuple(variables[name].shape)}"
        for name, array in state.items()
        if name in variables and (array.dtype, array.shape) != _form(variables[name])
    ]
    if problems:
        raise harness.PluginError(f"the state does not match the session: {'; '.join(problems[:8])}")
    for name, variable in variables.items():
        variable.assign(state[name])


def _form(variable: Any) -> tuple[Any, tuple[int, ...]]:
    return np.dtype(variable.dtype.as_numpy_dtype), tuple(variable.shape)


def _variables(module: Any) -> Iterator[Any]:
    """Yield the variables of a module, of its submodules, and of the Keras layers and generators in their attributes.

    Attributes are visited in the order of their names, so the order is the same in every process.
    """
    if isinstance(module, keras.Layer | keras.random.SeedGenerator):
        state = module.variables if isinstance(module, keras.Layer) else [module.state]
        yield from (variable.value for variable in state)
        return
    for each in (module, *module.submodules):
        for value in tf.nest.flatten([attribute for _, attribute in sorted(vars(each).items())]):
            if isinstance(value, tf.Variable):
                yield value
            elif isinstance(value, keras.Variable):
                yield value.value
            elif isinstance(value, keras.Layer | keras.random.SeedGenerator):
                yield from _variables(value)
