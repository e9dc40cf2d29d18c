"""Rules to ensure that backends produce valid measurements. Backends are checked on the CPU with a small model."""

from __future__ import annotations

import gc
import re
import time
from typing import Any, get_args

from harness.errors import PluginError, UnsupportedError
from harness.execute.backends import devices_of
from harness.records import Precision
from harness.testing.rule import Broken, NotChecked, Rule
from harness.testing.rules.sessions import SESSION_RULES, by_steps, train_a_little
from harness.testing.workbench import Workbench

_DEVICE = re.compile(r"cpu|[a-z]+:\d+")


def _finds_devices(bench: Workbench) -> None:
    if not bench.spec:
        return
    try:
        devices = devices_of(bench.backend)
    except PluginError as error:
        raise Broken(str(error)) from None
    if not devices:
        raise Broken("devices() is empty")
    for device in devices:
        if not _DEVICE.fullmatch(device.name):
            raise Broken(f"the device name {device.name!r} is not valid; use cpu, cuda:0, ...")
        if "fp32" not in device.precisions:
            raise Broken(f"{device.name} has precisions {device.precisions}; include fp32")


def _opens(bench: Workbench) -> None:
    bench.request  # noqa: B018  # raises errors in the model or its network
    try:
        with bench.session():
            pass
    except Exception:
        bench.does_not_open = True
        raise


def _synchronizes(bench: Workbench) -> None:
    """Raise `Broken` if fetching a result after `synchronize` is slow, which means that the device had not finished."""
    trains = _trains_by_steps(bench)
    batch, rate = bench.batch(examples=128), bench.request.recipe.learning_rate
    with bench.session() as session:
        if trains:
            session.fetch(session.train_step(batch, rate))
        session.fetch(session.predict(batch.inputs))
        for method in ("train_step", "predict") if trains else ("predict",):
            steps = 8
            while True:
                start = time.perf_counter()
                for _ in range(steps):
                    handle = (
                        session.train_step(batch, rate) if method == "train_step" else session.predict(batch.inputs)
                    )
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
                    f"{steps} calls of {method} took {1e3 * (end - start):.0f} ms, but {1e3 * late:.0f} ms of "
                    "this time passed after synchronize() had returned"
                )


def _trains_by_steps(bench: Workbench) -> bool:
    """Return False if the backend only computes predictions. Raise `NotChecked` if the backend trains, but not step by
    step."""
    if bench.backend.trains:
        by_steps(bench)
    return bench.backend.trains


def _respects_threads(bench: Workbench) -> None:
    from harness.measure.cgroup import available_cores

    trains = _trains_by_steps(bench)
    if available_cores() < 2:
        raise NotChecked("this machine has only one core")
    batch, rate = bench.batch(examples=256), bench.request.recipe.learning_rate
    with bench.session(threads=1) as session:

        def step() -> None:
            session.fetch(session.train_step(batch, rate) if trains else session.predict(batch.inputs))

        for _ in range(5):
            step()
        session.synchronize()
        wall, busy = time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < 0.5:
            step()
        session.synchronize()
        used = (time.process_time() - busy) / (time.perf_counter() - wall)
    if used > 1.5:
        raise Broken(f"a session with one thread used {used:.1f} cores")


def _respects_precision(bench: Workbench) -> None:
    import numpy as np

    offered = next((device.precisions for device in bench.backend.devices() if device.name == "cpu"), None)
    if offered is None:
        raise NotChecked("the backend has no CPU device")
    inputs = bench.batch().inputs
    outputs = {}
    for precision in get_args(Precision):
        try:
            with bench.session(precision=precision) as session:
                train_a_little(bench, session)
                outputs[precision] = np.asarray(session.fetch(session.predict(inputs)), np.float64)
        except UnsupportedError as error:
            if precision in offered:
                raise Broken(f"devices() lists {precision}, but open() rejects it: {error}") from None
            continue
        if precision not in offered:
            raise Broken(f"devices() does not list {precision}, but open() accepts it")
        if not np.isfinite(outputs[precision]).all():
            raise Broken(f"predictions in {precision} are not finite")
        if precision not in ("fp32", "tf32") and np.array_equal(outputs[precision], outputs["fp32"]):
            raise Broken(
                f"predictions in {precision} are bitwise identical to those in fp32, so the precision was not applied"
            )


def _rejects_missing_devices(bench: Workbench) -> None:
    for changes in ({"device": "cuda:99"}, {"device": "nowhere:0"}):
        try:
            session = bench.backend.open(_changed(bench, **changes))
        except UnsupportedError:
            continue
        session.close()
        raise Broken(f"a session was opened on {changes['device']}, which does not exist")


def _frees_memory(bench: Workbench) -> None:
    import psutil

    process = psutil.Process()

    def rounds(count: int) -> int:
        for _ in range(count):
            with bench.session() as session:
                train_a_little(bench, session)
                session.synchronize()
            del session
        gc.collect()
        return int(process.memory_info().rss)

    before = rounds(3)
    grown = (rounds(5) - before) / 5
    size = sum(array.nbytes for array in bench.weights.values())
    if grown > max(4 * 2**20, 2 * size):
        raise Broken(
            f"opening and closing a session increased memory use by {grown / 2**20:.1f} MiB "
            f"(the weights occupy {size / 2**20:.2f} MiB)"
        )


def _changed(bench: Workbench, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(bench.request, **changes)


BACKEND_RULES: tuple[Rule[Workbench], ...] = (
    Rule(
        "backend-finds-devices",
        "devices() returns the available devices, named cpu or kind:index, with their precisions.",
        "return harness.DeviceInfo(name='cpu', description=..., precisions=('fp32',)), with the best device first",
        _finds_devices,
    ),
    Rule(
        "backend-opens",
        "A session can be opened with the model's recipe, accepts the initial weights, and can be closed.",
        "implement the recipe's optimizer, and allow set_weights() to be the first call",
        _opens,
    ),
    *SESSION_RULES,
    Rule(
        "backend-synchronizes",
        "When synchronize() returns, all submitted work has finished.",
        "wait for the device or for the last result in synchronize(); otherwise, measured times are wrong",
        _synchronizes,
    ),
    Rule(
        "backend-respects-threads",
        "A session with one thread uses one core.",
        "limit the intra-op and inter-op thread pools to request.threads before the pools start",
        _respects_threads,
    ),
    Rule(
        "backend-respects-precision",
        "Sessions compute in every precision that devices() lists, and all other precisions are rejected.",
        "compute in each listed precision, and raise harness.UnsupportedError for all other precisions",
        _respects_precision,
    ),
    Rule(
        "backend-rejects-missing-devices",
        "Opening a session on a device that does not exist raises harness.UnsupportedError.",
        "compare request.device with devices() in open(), and never fall back to another device",
        _rejects_missing_devices,
    ),
    Rule(
        "backend-frees-memory",
        "Closing a session frees its memory.",
        "release modules, optimizers, compiled functions and caches in close()",
        _frees_memory,
    ),
)
