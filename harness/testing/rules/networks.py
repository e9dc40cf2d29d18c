"""Rules for a model's network on a backend."""

from __future__ import annotations

from harness.testing.rule import Broken, Rule
from harness.testing.rules.sessions import CLOSE, distance, round_trips_weights
from harness.testing.workbench import Workbench


def _has_every_parameter(it: Workbench) -> None:
    if it.backend.trains_by_steps:
        round_trips_weights(it)


def _is_called_with_the_inputs(it: Workbench) -> None:
    import numpy as np

    from harness.data.batches import output_shape

    batch = it.batch(examples=4)
    with it.session() as session:
        learnt = batch if it.backend.trains_by_steps else it.batch(examples=64)  # what fits at once needs some
        session.fetch(session.train_step(learnt, it.request.recipe.learning_rate))
        outputs = session.fetch(session.predict(batch.inputs))
        one = {name: np.ascontiguousarray(np.repeat(array[:1], 4, axis=0)) for name, array in batch.inputs.items()}
        alone = session.fetch(session.predict(one))
    wanted = output_shape(batch.targets, 4, it.data.info.outputs)
    if outputs.shape != wanted or not np.isfinite(outputs).all():
        raise Broken(f"predictions have the shape {outputs.shape} and should have {wanted}, or are not finite")
    if distance(alone[0], outputs[0]) > 10 * CLOSE:
        raise Broken("the other examples of a batch change an example's prediction")


NETWORK_RULES: tuple[Rule[Workbench], ...] = (
    Rule(
        "network-has-every-parameter",
        "Every canonical array goes in and comes out as it was.",
        "name every parameter of the model in Network.bindings, with the axes and shape of its variable",
        _has_every_parameter,
    ),
    Rule(
        "network-predicts-each-example",
        "It maps a batch to finite [B, outputs], or [B, L, outputs], each example by itself.",
        "return [B, info.outputs], of positions [B, L, info.outputs]; predict by running statistics and masks",
        _is_called_with_the_inputs,
    ),
)
PARITY = "network-computes-what-others-do"
PARITY_FIX = "see docs/explanation/parity.md: the verdict names the first stage and parameter that differ"
