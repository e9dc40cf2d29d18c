"""Rules for backends, looked at on the CPU with a small model: what makes a session's figures mean something."""

from __future__ import annotations

import gc
import re
import time
from typing import Any

from harness.errors import UnsupportedError
from harness.protocols import Session
from harness.testing.rule import Broken, NotChecked, Rule
from harness.testing.workbench import Workbench

_DEVICE = re.compile(r"cpu|[a-z]+:\d+")
_PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp64")
CLOSE = 1e-4
"""Largest relative difference of float32 results that another order of adding up explains."""


def _finds_devices(it: Workbench) -> None:
    if not it.spec:
        return
    devices = it.backend.devices()
    if not devices:
        raise Broken("devices() is empty")
    for device in devices:
        if not _DEVICE.fullmatch(device.name):
            raise Broken(f"a device is called {device.name!r}; wanted: cpu, cuda:0, ...")
        if "fp32" not in device.precisions or set(device.precisions) - set(_PRECISIONS):
            raise Broken(f"{device.name} has the precisions {device.precisions}; fp32 is in all, of {_PRECISIONS}")


def _opens(it: Workbench) -> None:
    it.request  # noqa: B018  # what is wrong with the model or its network is told as such
    try:
        with it.session():
            pass
    except Exception:
        it.does_not_open = True
        raise


def _round_trips_weights(it: Workbench) -> None:
    import numpy as np

    from harness.weights import check

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
        _train_a_little(it, session)
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
    if _distance(others, outputs[order]) > CLOSE:
        raise Broken("examples in another order get other predictions: what is predicted depends on the place")


def _predicting_changes_nothing(it: Workbench) -> None:
    import numpy as np

    batch = it.batch()
    before = {name: array.copy() for name, array in batch.inputs.items()}
    with it.session() as session:
        _train_a_little(it, session)
        weights = session.get_weights()
        one, again = (session.fetch(session.predict(batch.inputs)).copy() for _ in range(2))
        after = session.get_weights()
    if any(not np.array_equal(array, batch.inputs[name]) for name, array in before.items()):
        raise Broken("predict changed the inputs that it was given")
    if any(not np.array_equal(array, after[name]) for name, array in weights.items()):
        raise Broken("predict changed the weights or running statistics")
    if _distance(one, again) > CLOSE:
        raise Broken("the same inputs are predicted differently the second time: dropout is on, or state is kept")


def _learns(it: Workbench) -> None:
    import numpy as np

    _by_steps(it)
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

    _by_steps(it)
    with it.session() as session:
        it.losses(session, steps=3, learning_rate=0.0)
        after = session.get_weights()
    moved = [
        p.name for p in it.request.parameters if p.trainable and not np.array_equal(after[p.name], it.weights[p.name])
    ]
    if moved:
        raise Broken(f"at learning rate 0, {moved[0]} moved")


def _starts_afresh(it: Workbench) -> None:
    _by_steps(it)
    with it.session() as session:
        first = it.losses(session)
        session.set_weights(it.weights)
        second = it.losses(session)
    if _distance(second, first) > CLOSE:
        raise Broken(f"after set_weights the same steps give the losses {_shown(second)}, at first {_shown(first)}")


def _respects_the_seed(it: Workbench) -> None:
    import msgspec

    _by_steps(it)
    has_dropout = it.model.has_dropout
    recipe = msgspec.structs.replace(it.request.recipe, dropout=0.5) if has_dropout else it.request.recipe

    def losses(seed: int) -> list[float]:
        with it.session(seed=seed, recipe=recipe) as session:
            return it.losses(session)

    first, again = losses(1), losses(1)
    if _distance(again, first) > CLOSE:
        raise Broken(f"the same seed gives the losses {_shown(again)} and {_shown(first)}")
    if has_dropout and _distance(losses(2), first) <= CLOSE:
        raise Broken("another seed drops the same units: the losses are the same")


def _computes_gradients(it: Workbench) -> None:
    import numpy as np

    _by_steps(it)
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


def _synchronises(it: Workbench) -> None:
    """Work that is still going on after `synchronize` shows when its result is fetched."""
    _by_steps(it)
    batch, rate = it.batch(examples=128), it.request.recipe.learning_rate
    with it.session() as session:
        session.fetch(session.train_step(batch, rate))
        session.fetch(session.predict(batch.inputs))
        for what in ("train_step", "predict"):
            steps = 8
            while True:
                start = time.perf_counter()
                for _ in range(steps):
                    handle = session.train_step(batch, rate) if what == "train_step" else session.predict(batch.inputs)
                session.synchronize()
                waited = time.perf_counter()
                session.fetch(handle)
                end = time.perf_counter()
                if end - start > 0.05 or steps >= 4096:
                    break
                steps *= 4
            late = end - waited
            if late > 0.01 and late > 0.3 * (end - start):
                raise Broken(
                    f"{1e3 * late:.0f} of {1e3 * (end - start):.0f} ms of {steps} calls of {what} passed after "
                    "synchronize had returned"
                )


def _respects_threads(it: Workbench) -> None:
    from harness.plan import available_cores

    _by_steps(it)
    if available_cores() < 2:
        raise NotChecked("this machine has one core")
    batch, rate = it.batch(examples=256), it.request.recipe.learning_rate
    with it.session(threads=1) as session:
        for _ in range(5):
            session.fetch(session.train_step(batch, rate))
        session.synchronize()
        wall, busy = time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < 0.5:
            session.fetch(session.train_step(batch, rate))
        session.synchronize()
        used = (time.process_time() - busy) / (time.perf_counter() - wall)
    if used > 1.5:
        raise Broken(f"asked for one thread, it kept {used:.1f} cores busy")


def _respects_precision(it: Workbench) -> None:
    import numpy as np

    offered = next((device.precisions for device in it.backend.devices() if device.name == "cpu"), None)
    if offered is None:
        raise NotChecked("it has no CPU device")
    inputs = it.batch().inputs
    outputs = {}
    for precision in _PRECISIONS:
        try:
            with it.session(precision=precision) as session:
                _train_a_little(it, session)
                outputs[precision] = np.asarray(session.fetch(session.predict(inputs)), np.float64)
        except UnsupportedError as error:
            if precision in offered:
                raise Broken(f"devices() offers {precision}, and open refuses it: {error}") from None
            continue
        if precision not in offered:
            raise Broken(f"devices() does not offer {precision}, and open takes it all the same")
        if not np.isfinite(outputs[precision]).all():
            raise Broken(f"predictions in {precision} are not finite")
        if precision not in ("fp32", "tf32") and np.array_equal(outputs[precision], outputs["fp32"]):
            raise Broken(f"predictions in {precision} are those of fp32, to the bit: it was not applied")


def _refuses_what_is_not_there(it: Workbench) -> None:
    for changes in ({"device": "cuda:99"}, {"device": "nowhere:0"}):
        try:
            session = it.backend.open(_changed(it, **changes))
        except UnsupportedError:
            continue
        session.close()
        raise Broken(f"it opened a session on {changes['device']}, which is not there")


def _frees_memory(it: Workbench) -> None:
    import psutil

    process = psutil.Process()

    def rounds(count: int) -> int:
        for _ in range(count):
            with it.session() as session:
                _train_a_little(it, session)
                session.synchronize()
            del session
        gc.collect()
        return int(process.memory_info().rss)

    before = rounds(3)
    grown = (rounds(5) - before) / 5
    size = sum(array.nbytes for array in it.weights.values())
    if grown > max(4 * 2**20, 2 * size):
        raise Broken(
            f"each session that was opened and closed left {grown / 2**20:.1f} MiB behind "
            f"(its weights are {size / 2**20:.2f} MiB)"
        )


def _by_steps(it: Workbench) -> None:
    if not it.backend.trains_by_steps:
        raise NotChecked("each of its steps fits anew")


def _train_a_little(it: Workbench, session: Session) -> None:
    for _ in range(2):
        session.fetch(session.train_step(it.batch(examples=64), it.request.recipe.learning_rate))


def _changed(it: Workbench, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(it.request, **changes)


def _distance(one: Any, other: Any) -> float:
    """Norm-wise relative difference."""
    import numpy as np

    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    difference, norm = float(np.linalg.norm(a - b)), float(np.linalg.norm(b))
    return difference / norm if norm else difference


def _shown(losses: list[float]) -> str:
    return ", ".join(f"{loss:.4g}" for loss in losses)


BACKEND_RULES: tuple[Rule[Workbench], ...] = (
    Rule(
        "backend-finds-devices",
        "devices() names what is there as cpu or kind:number, each with its precisions.",
        "return harness.DeviceInfo(name='cpu', description=..., precisions=('fp32',)), best device first",
        _finds_devices,
    ),
    Rule(
        "backend-opens",
        "It opens a session with the recipe of its model, takes the initial weights, and closes.",
        "implement the recipe's optimizer; set_weights is called once before anything else",
        _opens,
    ),
    Rule(
        "backend-round-trips-weights",
        "get_weights gives exactly the float32 arrays, names and shapes that set_weights was given.",
        "copy values through Binding.to_own and Binding.to_canonical; list every parameter in Network.bindings",
        _round_trips_weights,
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
    Rule(
        "backend-synchronises",
        "When synchronize returns, all that was submitted is done.",
        "wait for the device, or for the last handle, in synchronize; else no timed window means anything",
        _synchronises,
    ),
    Rule(
        "backend-respects-threads",
        "A session asked for one thread keeps one core busy.",
        "set the framework's pools, inside and between operations, to request.threads before it starts them",
        _respects_threads,
    ),
    Rule(
        "backend-respects-precision",
        "Each precision that devices() offers is computed in; every other one is refused.",
        "raise harness.UnsupportedError for what is not implemented, and cast where it is",
        _respects_precision,
    ),
    Rule(
        "backend-refuses-what-is-not-there",
        "A device that is not there raises harness.UnsupportedError.",
        "compare request.device with devices() in open; never fall back to another device",
        _refuses_what_is_not_there,
    ),
    Rule(
        "backend-frees-memory",
        "Sessions that were opened and closed leave nothing behind.",
        "drop modules, optimizers, compiled functions and caches in close",
        _frees_memory,
    ),
)
