"""Rules for what a backend's session computes, with a small model on the CPU."""

from __future__ import annotations

from typing import Any

from harness.interfaces import Session
from harness.testing.rule import Broken, NotChecked, Rule
from harness.testing.workbench import Workbench

CLOSE = 1e-4
"""Largest relative difference of float32 results that another order of adding up explains."""


def round_trips_weights(it: Workbench) -> None:
    import numpy as np

    from harness.execute.weights import check

    rng = np.random.default_rng(0)
    weights = {name: rng.uniform(0.1, 1, array.shape).astype(np.float32) for name, array in it.weights.items()}
    with it.session() as session:
        session.set_weights(weights)
        found = session.get_weights()
    check(found, it.request.parameters)
    for name, array in weights.items():
        if found[name].dtype != np.float32:
            raise Broken(f"{name} came back as {found[name].dtype}")
        if not np.array_equal(found[name], array):
            raise Broken(f"{name} came back with other values")


def _predicts_in_order(it: Workbench) -> None:
    import numpy as np

    from harness.data.batches import output_shape

    inputs, targets = it.batch()
    with it.session() as session:
        train_a_little(it, session)
        outputs = session.fetch(session.predict(inputs))
        order = np.random.default_rng(0).permutation(len(outputs))
        others = session.fetch(
            session.predict({name: np.ascontiguousarray(array[order]) for name, array in inputs.items()})
        )
    wanted = output_shape(targets, len(order), it.data.info.outputs)
    if outputs.shape != wanted or outputs.dtype != np.float32:
        raise Broken(f"predictions are {outputs.dtype} {outputs.shape}, wanted float32 {wanted}")
    if not np.isfinite(outputs).all():
        raise Broken("predictions are not finite")
    if distance(others, outputs[order]) > CLOSE:
        raise Broken("examples in another order get other predictions: what is predicted depends on the place")


def _predicting_changes_nothing(it: Workbench) -> None:
    import numpy as np

    batch = it.batch()
    before = {name: array.copy() for name, array in batch.inputs.items()}
    with it.session() as session:
        train_a_little(it, session)
        weights = session.get_weights()
        one, again = (session.fetch(session.predict(batch.inputs)).copy() for _ in range(2))
        after = session.get_weights()
    if any(not np.array_equal(array, batch.inputs[name]) for name, array in before.items()):
        raise Broken("predict changed the inputs that it was given")
    if any(not np.array_equal(array, after[name]) for name, array in weights.items()):
        raise Broken("predict changed the weights or running statistics")
    if distance(one, again) > CLOSE:
        raise Broken("the same inputs are predicted differently the second time: dropout is on, or state is kept")


def _learns(it: Workbench) -> None:
    import numpy as np

    by_steps(it)
    batch = it.batch(examples=32)
    with it.session() as session:
        rate = it.request.recipe.learning_rate
        losses = [float(session.fetch(session.train_step(batch, rate))) for _ in range(40)]
        after = session.get_weights()
    if not np.isfinite(losses).all():
        raise Broken(f"the loss is {losses[-1]} after 40 steps on one batch")
    if min(losses[-5:]) >= losses[0]:
        raise Broken(f"40 steps on one batch took the loss from {losses[0]:.4g} to {losses[-1]:.4g}")
    still = [p.name for p in it.request.parameters if p.trainable and np.array_equal(after[p.name], it.weights[p.name])]
    if len(still) == sum(p.trainable for p in it.request.parameters):
        raise Broken("no weight moved in 40 steps, though the loss fell")


def _obeys_the_learning_rate(it: Workbench) -> None:
    import numpy as np

    by_steps(it)
    with it.session() as session:
        it.losses(session, steps=3, learning_rate=0.0)
        after = session.get_weights()
    moved = [
        p.name for p in it.request.parameters if p.trainable and not np.array_equal(after[p.name], it.weights[p.name])
    ]
    if moved:
        raise Broken(f"at learning rate 0, {moved[0]} moved")


def _starts_afresh(it: Workbench) -> None:
    by_steps(it)
    with it.session() as session:
        first = it.losses(session)
        session.set_weights(it.weights)
        second = it.losses(session)
    if distance(second, first) > CLOSE:
        raise Broken(f"after set_weights the same steps give the losses {shown(second)}, at first {shown(first)}")


def _respects_the_seed(it: Workbench) -> None:
    import msgspec

    by_steps(it)
    has_dropout = it.model.has_dropout
    recipe = msgspec.structs.replace(it.request.recipe, dropout=0.5) if has_dropout else it.request.recipe

    def losses(seed: int) -> list[float]:
        with it.session(seed=seed, recipe=recipe) as session:
            return it.losses(session)

    first, again = losses(1), losses(1)
    if distance(again, first) > CLOSE:
        raise Broken(f"the same seed gives the losses {shown(again)} and {shown(first)}")
    if has_dropout and distance(losses(2), first) <= CLOSE:
        raise Broken("another seed drops the same units: the losses are the same")


def _computes_gradients(it: Workbench) -> None:
    import numpy as np

    by_steps(it)
    batch = it.batch()
    with it.session() as session:
        loss, gradients = session.gradients(batch)
        unmoved = session.get_weights()
        step = float(session.fetch(session.train_step(batch, 0.0)))
    wanted = {p.name: p.shape for p in it.request.parameters if p.trainable}
    found = {name: tuple(array.shape) for name, array in gradients.items()}
    if found != wanted:
        differing = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        raise Broken(f"the gradient by {differing[0]} is {found.get(differing[0])}, wanted {wanted.get(differing[0])}")
    if not all(np.isfinite(array).all() for array in gradients.values()):
        raise Broken("a gradient is not finite")
    if any(not np.array_equal(unmoved[name], it.weights[name]) for name in wanted):
        raise Broken("gradients moved a weight")
    if abs(loss - step) > CLOSE * max(1.0, abs(step)):
        raise Broken(f"gradients gives the loss {loss:.6g}, train_step {step:.6g} on the same batch and weights")
    slope = sum(float((array.astype(np.float64) ** 2).sum()) for array in gradients.values())
    size = 1e-2 / max(1e-12, slope**0.5)
    with it.session() as session:
        session.set_weights({n: (w - size * gradients[n] if n in wanted else w) for n, w in it.weights.items()})
        below, _ = session.gradients(batch)
    if slope > 1e-10 and below >= loss:
        raise Broken(f"a small step against the gradients takes the loss from {loss:.6g} to {below:.6g}")


def by_steps(it: Workbench) -> None:
    if not it.backend.trains_by_steps:
        raise NotChecked("each of its steps fits anew")


def train_a_little(it: Workbench, session: Session) -> None:
    for _ in range(2):
        session.fetch(session.train_step(it.batch(examples=64), it.request.recipe.learning_rate))


def distance(one: Any, other: Any) -> float:
    """Norm-wise relative difference."""
    import numpy as np

    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    difference, norm = float(np.linalg.norm(a - b)), float(np.linalg.norm(b))
    return difference / norm if norm else difference


def shown(losses: list[float]) -> str:
    return ", ".join(f"{loss:.4g}" for loss in losses)


SESSION_RULES: tuple[Rule[Workbench], ...] = (
    Rule(
        "backend-round-trips-weights",
        "get_weights gives exactly the float32 arrays, names and shapes that set_weights was given.",
        "copy values through Binding.to_own and Binding.to_canonical; list every parameter in Network.bindings",
        round_trips_weights,
    ),
    Rule(
        "backend-predicts-in-order",
        "Predictions are finite float32 [B, outputs], or [B, L, outputs], each following from its own example.",
        "keep the order of the batch, and use running statistics, not the batch's, in predict",
        _predicts_in_order,
    ),
    Rule(
        "backend-predicting-changes-nothing",
        "predict leaves weights, running statistics and inputs alone, and gives the same again.",
        "run the network in evaluation mode: no dropout, no update of running statistics",
        _predicting_changes_nothing,
    ),
    Rule(
        "backend-learns",
        "Steps on one batch lower its loss.",
        "check the sign of the step, the loss's mean, and that the optimizer has all trainable variables",
        _learns,
    ),
    Rule(
        "backend-obeys-the-learning-rate",
        "A step at rate 0 moves no weight.",
        "apply the learning_rate that train_step is called with, not the recipe's",
        _obeys_the_learning_rate,
    ),
    Rule(
        "backend-starts-afresh",
        "set_weights also resets the optimizer.",
        "zero the moments and the step count in set_weights",
        _starts_afresh,
    ),
    Rule(
        "backend-respects-the-seed",
        "Sessions of one seed compute the same; dropout follows from the seed.",
        "seed the framework's generators, or its keys, from request.seed when the session opens",
        _respects_the_seed,
    ),
    Rule(
        "backend-computes-gradients",
        "gradients gives the batch's loss and, under canonical names and shapes, what points down its slope.",
        "return what train_step would hand to its optimizer, through Binding.to_canonical, and move no weight",
        _computes_gradients,
    ),
)
