"""Rules for networks, which implement a model on a backend."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from harness.errors import PluginError, UnsupportedError
from harness.execute.declarations import declared_flops
from harness.measure.losses import fetched_loss
from harness.testing.rule import Broken, NotChecked, Rule
from harness.testing.rules.sessions import CLOSE, by_steps, distance, round_trips_weights
from harness.testing.workbench import Workbench

FLOPS = "network-computes-the-declared-flops"
FLOPS_TOLERANCE = 0.01
"""Largest permitted relative error of `Model.flops_per_sample`. An implementation may compute slightly more than the
architecture requires. For example, the positional convolution of wav2vec 2.0 computes one frame more than it
returns."""


def _has_every_parameter(bench: Workbench) -> None:
    if bench.backend.trains_by_steps:
        round_trips_weights(bench)
    elif (network := bench.catalog.network(bench.model.name, bench.backend.name)) and network.fitted_weights:
        _restores_the_fitted_model(bench)


def _restores_the_fitted_model(bench: Workbench) -> None:
    """Raise `Broken` unless the arrays of a model that was fitted in one call restore its predictions exactly."""
    import numpy as np

    batch = bench.batch(examples=64)
    with bench.session() as session:
        session.fetch(session.train_step(batch, bench.request.recipe.learning_rate))
        weights, outputs = session.get_weights(), session.fetch(session.predict(batch.inputs))
    if not weights:
        raise Broken("NetworkRef.fitted_weights is True, but get_weights() returned no arrays after fitting")
    with bench.session() as session:
        session.set_weights(weights)
        again = session.fetch(session.predict(batch.inputs))
    if not np.array_equal(outputs, again):
        raise Broken("a session with the weights of a fitted model does not return the same predictions as the model")


def _predicts_each_example(bench: Workbench) -> None:
    import numpy as np

    from harness.data.batches import output_shape

    batch = bench.batch(examples=4)
    expected = output_shape(batch.targets, 4, bench.data.info.outputs)
    with bench.session() as session:
        if bench.backend.trains_by_steps:  # The loss function of a framework may fail for outputs with a wrong shape.
            _check_shape(session.fetch(session.predict(batch.inputs)), expected)
        # Backends that fit the model from scratch need more examples.
        training = batch if bench.backend.trains_by_steps else bench.batch(examples=64)
        loss = fetched_loss(session, session.train_step(training, bench.request.recipe.learning_rate))
        outputs = session.fetch(session.predict(batch.inputs))
        one = {name: np.ascontiguousarray(np.repeat(array[:1], 4, axis=0)) for name, array in batch.inputs.items()}
        alone = session.fetch(session.predict(one))
    _check_shape(outputs, expected)
    if not math.isfinite(loss):
        raise Broken(f"train_step() returns the loss {loss}, not the mean loss of the batch")
    if not np.isfinite(outputs).all():
        raise Broken("predictions are not finite")
    if distance(alone[0], outputs[0]) > 10 * CLOSE:
        raise Broken("the prediction for an example depends on other examples in the batch")


def _check_shape(outputs: Any, expected: tuple[int, ...]) -> None:
    import numpy as np

    if not isinstance(outputs, np.ndarray) or outputs.dtype != np.float32:
        found = f"an array of {outputs.dtype}" if isinstance(outputs, np.ndarray) else type(outputs).__name__
        raise Broken(f"fetch() returns {found} for the result of predict(), not a float32 array")
    if outputs.shape != expected:
        raise Broken(f"predictions have shape {outputs.shape}, expected {expected}")


def _declares_its_dropout(bench: Workbench) -> None:
    """Train with dropout and two seeds, whose losses differ only if the network has dropout layers."""
    by_steps(bench)
    recipe = msgspec.structs.replace(bench.request.recipe, dropout=0.5)
    losses = []
    for seed in (1, 2):
        with bench.session(seed=seed, recipe=recipe) as session:
            losses.append(bench.losses(session, steps=2))
    if not bench.model.has_dropout and distance(losses[0], losses[1]) > CLOSE:
        raise Broken(
            f"the network uses dropout, but has_dropout of model {bench.model.name!r} is False, so the rate is always 0"
        )
    if bench.model.has_dropout and losses[0] == losses[1]:  # The losses of small networks may differ only slightly.
        raise Broken(f"has_dropout of model {bench.model.name!r} is True, but the network does not use dropout")


def _computes_the_declared_flops(bench: Workbench) -> None:
    """Compare `Model.flops_per_sample` with the operations that the backend counts.

    Operations are counted for two batch sizes. The difference between the counts excludes operations whose number does
    not depend on the batch size.
    """
    try:
        declared = declared_flops(bench.model, bench.request.config, bench.data.info)
        with bench.session() as session:
            small, large = (session.flops_bounds(bench.batch(examples=count).inputs) for count in (2, 4))
    except (PluginError, UnsupportedError) as error:  # the rules for models report an invalid result of the model
        raise NotChecked(str(error)) from None
    low, high = ((more - fewer) / 2 for fewer, more in zip(small, large, strict=True))
    if not (1 - FLOPS_TOLERANCE) * low <= declared <= (1 + FLOPS_TOLERANCE) * high:
        raise Broken(
            f"flops_per_sample of model {bench.model.name!r} returns {declared:.10g}, but the network computes "
            f"{low:.10g} operations per example in matrix products and convolutions, and at most {high:.10g} in total"
        )


NETWORK_RULES: tuple[Rule[Workbench], ...] = (
    Rule(
        "network-has-every-parameter",
        "Every canonical array can be set and read back unchanged, and a fitted model can be restored from its "
        "weights.",
        "list every parameter of the model in Network.bindings, with the axes and shape of its variable; for a model "
        "fitted in one call, return arrays that determine all predictions, or do not set NetworkRef.fitted_weights",
        _has_every_parameter,
    ),
    Rule(
        "network-predicts-each-example",
        "The loss and predictions are finite. Predictions are float32 [B, outputs] or [B, L, outputs], and do not "
        "depend on other examples.",
        "return float32 [B, info.outputs] or [B, L, info.outputs]; use running statistics and masks when predicting",
        _predicts_each_example,
    ),
    Rule(
        "network-declares-its-dropout",
        "The network uses dropout if and only if has_dropout of the model is True.",
        "apply the argument `dropout` of the build function in training and set has_dropout = True, or remove both",
        _declares_its_dropout,
    ),
    Rule(
        FLOPS,
        "flops_per_sample of the model is between the operations in matrix products and convolutions and the total of "
        "the network, if the backend counts them.",
        "correct the formula in flops_per_sample or the sizes of the layers; count each multiply-add as two operations",
        _computes_the_declared_flops,
    ),
)
PARITY = "network-matches-other-backends"
PARITY_FIX = (
    "inspect the first stage and parameter that differ; the page 'Parity' of the documentation explains the stages"
)
