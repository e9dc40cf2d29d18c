"""Validation of networks, with error messages that name the faulty network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from harness.errors import HarnessError, PluginError
from harness.interfaces import BuildNetwork, Network, NetworkRef, PreparedData, Session
from harness.plugins import resolve
from harness.plugins.failures import described_with_place
from harness.records import DataInfo, RunSpec


def checked_build(
    network: NetworkRef, is_out_of_memory: Callable[[Exception], bool] = lambda error: False
) -> BuildNetwork:
    """Return the function that builds a network. The returned function raises `harness.PluginError` if building fails
    or the result is not a network."""
    build = resolve(network.build)
    subject = f"the network of model {network.model!r} for backend {network.backend!r}"

    def checked(config: Any, info: DataInfo, dropout: float) -> Network:
        try:
            built = build(config, info, dropout)
        except (HarnessError, MemoryError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise PluginError(f"{subject} cannot be built: {described_with_place(error)}") from error
        if not isinstance(built, Network):
            raise PluginError(
                f"{subject} cannot be used: {network.build} returned {type(built).__name__}, but it must return a "
                "harness.Network"
            )
        return built

    return checked


@contextmanager
def wrong_outputs_named(session: Session, data: PreparedData, spec: RunSpec) -> Iterator[None]:
    """Raise `harness.PluginError` if training fails because the network's outputs have the wrong shape.

    The error message of a framework's loss function does not name the network. The shape of the outputs is computed
    only after training has failed.
    """
    try:
        yield
    except (HarnessError, MemoryError):
        raise
    except Exception as error:
        if problem := _wrong_shape(session, data, spec.recipe.batch_size):
            raise PluginError(
                f"the network of model {spec.model!r} for backend {spec.backend!r} {problem}; fix the network's outputs"
            ) from error
        raise


def _wrong_shape(session: Session, data: PreparedData, batch_size: int) -> str:
    """Return a description of outputs with an unexpected shape, or an empty string if the shape is correct or cannot be
    determined."""
    import numpy as np

    from harness.data.batches import output_shape

    examples = data.train.take(np.arange(min(batch_size, len(data.train))))
    try:
        shape = np.shape(session.fetch(session.predict(dict(examples.inputs))))
    except Exception:  # the error in training is reported instead
        return ""
    expected = output_shape(examples.targets, len(examples), data.info.outputs)
    return "" if shape == expected else f"returns outputs of shape {shape}, expected {expected}"
