"""Rules for the results of a backend's sessions. Sessions are checked with a small model on the CPU."""

from __future__ import annotations

import contextlib
from typing import Any

from harness.interfaces import Session
from harness.testing.rule import Broken, NotChecked, Rule
from harness.testing.workbench import EXAMPLES, Workbench

CLOSE = 1e-4
"""Largest relative difference between float32 results that differ only in the order of summation."""


def round_trips_weights(bench: Workbench) -> None:
    """Raise `Broken` unless weights can be set and read back unchanged."""
    import numpy as np

    from harness.execute.weights import check

    if bench.backend.executes:
        raise NotChecked("the weights are part of the exported model")
    rng = np.random.default_rng(0)
    weights = {name: rng.uniform(0.1, 1, array.shape).astype(np.float32) for name, array in bench.weights.items()}
    with bench.session() as session:
        session.set_weights(weights)
        returned = session.get_weights()
    check(returned, bench.request.parameters)
    for name, array in weights.items():
        if returned[name].dtype != np.float32:
            raise Broken(f"get_weights() returned {name} as {returned[name].dtype}, expected float32")
        if not np.array_equal(returned[name], array):
            raise Broken(f"get_weights() returned values for {name} that differ from those passed to set_weights()")


def _predicts_in_order(bench: Workbench) -> None:
    import numpy as np

    from harness.data.batches import output_shape

    batch = bench.batch()
    inputs, targets = batch.inputs, batch.targets
    with bench.session() as session:
        train_a_little(bench, session)
        outputs = session.fetch(session.predict(inputs))
        order = np.random.default_rng(0).permutation(len(outputs))
        others = session.fetch(
            session.predict({name: np.ascontiguousarray(array[order]) for name, array in inputs.items()})
        )
    expected = output_shape(targets, len(order), bench.data.info.outputs)
    if outputs.shape != expected or outputs.dtype != np.float32:
        raise Broken(f"predictions are {outputs.dtype} {outputs.shape}, expected float32 {expected}")
    if not np.isfinite(outputs).all():
        raise Broken("predictions are not finite")
    if distance(others, outputs[order]) > CLOSE:
        raise Broken("the prediction for an example depends on its position in the batch")


def _predict_changes_nothing(bench: Workbench) -> None:
    import numpy as np

    batch = bench.batch()
    before = {name: array.copy() for name, array in batch.inputs.items()}
    with bench.session() as session:
        train_a_little(bench, session)
        weights = session.get_weights()
        one, again = (session.fetch(session.predict(batch.inputs)).copy() for _ in range(2))
        after = session.get_weights()
    if any(not np.array_equal(array, batch.inputs[name]) for name, array in before.items()):
        raise Broken("predict() changed its inputs")
    if any(not np.array_equal(array, after[name]) for name, array in weights.items()):
        raise Broken("predict() changed the weights or running statistics")
    if distance(one, again) > CLOSE:
        raise Broken(
            "a second call with the same inputs returns different predictions: dropout is active, or the "
            "session keeps state"
        )


def _computes_the_exported_model(bench: Workbench) -> None:
    from harness.measure.inference import predict
    from harness.records.arrays import read_arrays
    from harness.records.store import ARRAYS

    if not bench.backend.executes:
        raise NotChecked("the backend builds networks")
    assert bench.request.exported is not None
    expected = read_arrays(bench.request.exported / ARRAYS)["outputs"]
    with bench.session() as session:
        outputs = predict(session, bench.data.test, EXAMPLES, bench.data.info.outputs)
    if (error := distance(outputs, expected)) > CLOSE:
        raise Broken(f"the predictions differ from the outputs of the exported model by {error:.1e}")


def _learns(bench: Workbench) -> None:
    import numpy as np

    by_steps(bench)
    batch = bench.batch(examples=32)
    with bench.session() as session:
        rate = bench.request.recipe.learning_rate
        losses = [float(session.fetch(session.train_step(batch, rate))) for _ in range(40)]
        after = session.get_weights()
    if not np.isfinite(losses).all():
        raise Broken(f"the loss is {losses[-1]} after 40 steps on one batch")
    if min(losses[-5:]) >= losses[0]:
        raise Broken(f"40 steps on one batch changed the loss from {losses[0]:.4g} to {losses[-1]:.4g}")
    unchanged = [
        p.name for p in bench.request.parameters if p.trainable and np.array_equal(after[p.name], bench.weights[p.name])
    ]
    if len(unchanged) == sum(p.trainable for p in bench.request.parameters):
        raise Broken("the loss decreased over 40 steps, but no weight changed")


def _applies_the_learning_rate(bench: Workbench) -> None:
    import numpy as np

    by_steps(bench)
    with bench.session() as session:
        bench.losses(session, steps=3, learning_rate=0.0)
        after = session.get_weights()
    changed = [
        p.name
        for p in bench.request.parameters
        if p.trainable and not np.array_equal(after[p.name], bench.weights[p.name])
    ]
    if changed:
        raise Broken(f"{changed[0]} changed in a step with a learning rate of 0")


def _resets_the_optimizer(bench: Workbench) -> None:
    by_steps(bench)
    with bench.session() as session:
        first = bench.losses(session)
        session.set_weights(bench.weights)
        second = bench.losses(session)
    if distance(second, first) > CLOSE:
        raise Broken(f"after set_weights(), the same steps give the losses {shown(second)} instead of {shown(first)}")


def _respects_the_seed(bench: Workbench) -> None:
    import msgspec

    by_steps(bench)
    has_dropout = bench.model.has_dropout
    recipe = msgspec.structs.replace(bench.request.recipe, dropout=0.5) if has_dropout else bench.request.recipe

    def losses(seed: int) -> list[float]:
        with bench.session(seed=seed, recipe=recipe) as session:
            return bench.losses(session)

    first, again = losses(1), losses(1)
    if distance(again, first) > CLOSE:
        raise Broken(f"two sessions with the same seed have different losses: {shown(first)} and {shown(again)}")
    if has_dropout and distance(losses(2), first) <= CLOSE:
        raise Broken("sessions with different seeds have the same losses, so dropout does not depend on the seed")


def _restores_its_state(bench: Workbench) -> None:
    import msgspec
    import numpy as np

    by_steps(bench)
    if not bench.backend.checkpoints:
        raise NotChecked("the backend does not support checkpoints (Backend.checkpoints)")
    has_average = "ema_decay" in bench.backend.recipe_options
    changes: dict[str, Any] = {"dropout": 0.5} if bench.model.has_dropout else {}
    changes |= {"ema_decay": 0.5} if has_average else {}
    recipe = msgspec.structs.replace(bench.request.recipe, **changes)

    def steps(session: Session, numbers: range) -> list[float]:
        losses = []
        for number in numbers:
            batch, rate = bench.batch(8 * number), recipe.learning_rate / (number + 1)
            losses.append(float(session.fetch(session.train_step(batch, rate))))
            if has_average:
                session.update_average(0.5)
        return losses

    def weights(session: Session) -> dict[str, Any]:
        with session.averaged() if has_average else contextlib.nullcontext():
            averaged = session.get_weights()
        return {f"average of {name}": array for name, array in averaged.items()} | session.get_weights()

    with bench.session(recipe=recipe) as session:
        steps(session, range(3))
        state = session.state()
        for name, array in state.items():
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
                raise Broken(f"state() returned {name!r} as {getattr(array, 'dtype', type(array).__name__)}")
        kept = {name: array.copy() for name, array in state.items()}
        expected, after = steps(session, range(3, 6)), weights(session)
    changed = [name for name, array in kept.items() if not np.array_equal(array, state[name], equal_nan=True)]
    if changed:
        raise Broken(f"{changed[0]} in the result of state() changed during further training steps")
    with bench.session(recipe=recipe) as session:
        session.set_state(state)
        losses, restored = steps(session, range(3, 6)), weights(session)
    if losses != expected:
        raise Broken(f"after set_state(), the same steps give the losses {losses} instead of {expected}")
    different = [name for name, array in after.items() if not np.array_equal(array, restored[name])]
    if different:
        raise Broken(f"after set_state() and the same steps, {different[0]} differs")


def _computes_gradients(bench: Workbench) -> None:
    import numpy as np

    by_steps(bench)
    batch = bench.batch()
    with bench.session() as session:
        loss, gradients = session.gradients(batch)
        unchanged = session.get_weights()
        step = float(session.fetch(session.train_step(batch, 0.0)))
    expected = {p.name: p.shape for p in bench.request.parameters if p.trainable}
    shapes = {name: tuple(array.shape) for name, array in gradients.items()}
    if shapes != expected:
        name = min(name for name in {*shapes, *expected} if shapes.get(name) != expected.get(name))
        raise Broken(f"the gradient for {name} has shape {shapes.get(name)}, expected {expected.get(name)}")
    if not all(np.isfinite(array).all() for array in gradients.values()):
        raise Broken("a gradient is not finite")
    if any(not np.array_equal(unchanged[name], bench.weights[name]) for name in expected):
        raise Broken("calling gradients() changed a weight")
    if abs(loss - step) > CLOSE * max(1.0, abs(step)):
        raise Broken(
            f"for the same batch and weights, gradients() returns the loss {loss:.6g}, "
            f"but train_step() returns {step:.6g}"
        )
    slope = sum(float((array.astype(np.float64) ** 2).sum()) for array in gradients.values())
    size = 1e-2 / max(1e-12, slope**0.5)
    with bench.session() as session:
        session.set_weights({n: (w - size * gradients[n] if n in expected else w) for n, w in bench.weights.items()})
        below, _ = session.gradients(batch)
    if slope > 1e-10 and below >= loss:
        raise Broken(f"a small step against the gradients changes the loss from {loss:.6g} to {below:.6g}")


def by_steps(bench: Workbench) -> None:
    """Raise `NotChecked` if the backend does not train step by step."""
    if not bench.backend.trains:
        raise NotChecked("the backend only computes predictions")
    if not bench.backend.trains_by_steps:
        raise NotChecked("each training step of the backend fits the model from scratch")


def train_a_little(bench: Workbench, session: Session) -> None:
    """Run two training steps, unless the backend only computes predictions."""
    if not bench.backend.trains:
        return
    for _ in range(2):
        session.fetch(session.train_step(bench.batch(examples=64), bench.request.recipe.learning_rate))


def distance(one: Any, other: Any) -> float:
    """Return the norm of the difference relative to the norm of `other`."""
    import numpy as np

    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    difference, norm = float(np.linalg.norm(a - b)), float(np.linalg.norm(b))
    return difference / norm if norm else difference


def shown(losses: list[float]) -> str:
    """Format losses with four digits."""
    return ", ".join(f"{loss:.4g}" for loss in losses)


SESSION_RULES: tuple[Rule[Workbench], ...] = (
    Rule(
        "backend-round-trips-weights",
        "get_weights() returns exactly the float32 arrays that were passed to set_weights().",
        "convert arrays with Binding.to_own and Binding.to_canonical; list every parameter in Network.bindings",
        round_trips_weights,
    ),
    Rule(
        "backend-predicts-in-order",
        "Predictions are finite float32 [B, outputs] or [B, L, outputs], in the order of the examples in the batch.",
        "keep the order of the examples in the batch, and use running statistics instead of batch statistics in "
        "predict()",
        _predicts_in_order,
    ),
    Rule(
        "backend-predict-changes-nothing",
        "predict() is deterministic and does not change weights, running statistics or inputs.",
        "run the network in evaluation mode, without dropout and without updates of running statistics",
        _predict_changes_nothing,
    ),
    Rule(
        "backend-computes-the-exported-model",
        "A backend that executes exported models predicts the outputs that were computed after the export.",
        "load the model in request.exported, and pass the inputs by name",
        _computes_the_exported_model,
    ),
    Rule(
        "backend-learns",
        "Repeated training steps on the same batch decrease its loss.",
        "check the sign of the update, the averaging of the loss, and whether every trainable variable is updated",
        _learns,
    ),
    Rule(
        "backend-applies-the-learning-rate",
        "A training step with a learning rate of 0 does not change the weights.",
        "apply the learning_rate argument of train_step(), not the learning rate of the recipe",
        _applies_the_learning_rate,
    ),
    Rule(
        "backend-resets-the-optimizer",
        "set_weights() also resets the optimizer.",
        "reset the moments and the step count in set_weights()",
        _resets_the_optimizer,
    ),
    Rule(
        "backend-restores-its-state",
        "set_state() restores everything that determines further training steps, if Backend.checkpoints is True.",
        "include moments, step counts, random number generators and the moving average in state(), and return copies",
        _restores_its_state,
    ),
    Rule(
        "backend-respects-the-seed",
        "Sessions with the same seed produce the same results, and dropout depends on the seed.",
        "seed the framework's random number generators with request.seed when the session opens",
        _respects_the_seed,
    ),
    Rule(
        "backend-computes-gradients",
        "gradients() returns the loss of the batch and its gradients, by canonical name and in canonical shape.",
        "return the gradients of train_step(), converted with Binding.to_canonical, without updating the weights",
        _computes_gradients,
    ),
)
