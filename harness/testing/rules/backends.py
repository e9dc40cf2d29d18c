"""Rules for backends, looked at on the CPU with a small model: what makes a session's figures mean something."""

from __future__ import annotations

import gc
import re
import time
from typing import Any

from harness.errors import UnsupportedError
from harness.testing.rule import Broken, NotChecked, Rule
from harness.testing.rules.sessions import SESSION_RULES, by_steps, train_a_little
from harness.testing.workbench import Workbench

_DEVICE = re.compile(r"cpu|[a-z]+:\d+")
_PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp64")


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


def _synchronizes(it: Workbench) -> None:
    """Work that is still going on after `synchronize` shows when its result is fetched."""
    by_steps(it)
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
    from harness.measure.environment import available_cores

    by_steps(it)
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
                train_a_little(it, session)
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
                train_a_little(it, session)
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


def _changed(it: Workbench, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(it.request, **changes)


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
    *SESSION_RULES,
    Rule(
        "backend-synchronizes",
        "When synchronize returns, all that was submitted is done.",
        "wait for the device, or for the last handle, in synchronize; else no timed window means anything",
        _synchronizes,
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
