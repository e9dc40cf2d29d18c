"""Comparison of the training and inference loops of harness and other trainers with bare loops, in one process.

Before the measurement, all contenders start from the same weights and train on four batches without dropout. The
resulting weights must be the same.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.contender import CONTENDERS, NEEDS, Contender
from harness import SessionRequest, Split, plugins
from harness.execute.weights import initial_weights
from harness.interfaces import PreparedData
from harness.measure.inference import predict
from harness.measure.steady import median_interval
from harness.measure.training import Training
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.records import Event, RunSpec

MODELS = {"mlp": "regression", "resnet-20": "vision", "bert-tiny": "nlp", "wav2vec2-tiny": "speech"}
ROUND_S = 0.5
"""Target time for measuring one contender in a round, in seconds."""
SAME_STEPS, SAME_ERROR = 4, 1e-4
"""Number of training steps before the weights are compared, and maximum norm-wise relative error of the weights. The
maximum error is the tolerance of the parity check for gradients (`harness.checks.parity.tolerances`)."""


@pytest.fixture(scope="session")
def framework(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.getoption("--framework"))


@pytest.fixture(scope="session")
def pairs(pytestconfig: pytest.Config) -> int:
    return max(6, int(pytestconfig.getoption("--pairs")))


class Bench:
    """Benchmark of one model, in which all contenders use the same data."""

    def __init__(self, model: str, framework: str, *, threads: int | None = None, dropout: bool = True) -> None:
        catalog = plugins.discover()
        selection = Selection(
            tasks=(MODELS[model],), backends=(framework,), models=(model,), devices=("cpu",), threads=threads
        )
        spec: RunSpec = expand(selection, catalog)[0]
        task, dataset = catalog.task(spec.task), catalog.dataset(spec.dataset)
        raw = dataset.load(msgspec.convert(spec.dataset_options, dataset.Options))
        self.data = task.prepare(raw, msgspec.convert(spec.task_options, task.Options))
        architecture, _ = catalog.model(model)
        config = msgspec.convert(spec.model_options, architecture.Config)
        network = catalog.network(architecture.name, framework)
        assert network is not None
        recipe = msgspec.structs.replace(spec.recipe, schedule="constant", warmup_fraction=0.0, epochs=1)
        if not dropout:
            recipe = msgspec.structs.replace(recipe, dropout=0.0)
        self.spec = msgspec.structs.replace(spec, recipe=recipe)
        request = SessionRequest(
            build=plugins.resolve(network.build),
            config=config,
            info=self.data.info,
            parameters=tuple(architecture.parameters(config, self.data.info)),
            recipe=recipe,
            device="cpu",
            precision="fp32",
            compile=False,
            seed=0,
            threads=spec.threads,
        )
        weights = initial_weights(request.parameters, 0)
        # opening a session sets threads and numeric modes for the whole process
        self.session = catalog.backend(framework).open(request)
        self.session.set_weights(weights)
        self.contenders = {
            name: importlib.import_module(module).prepare(request, weights)
            for name, module in CONTENDERS[framework].items()
            if all(importlib.util.find_spec(needed) for needed in NEEDS.get(name, ()))
        }
        self.contenders["harness"] = Contender(self._train, self._infer, self.session.get_weights)

    def order(self, examples: int) -> Any:
        """Return the order of the examples in the first epoch of a run."""
        return np.random.default_rng([self.spec.seed, 1]).permutation(examples)

    def _train(self, split: Split, order: Any) -> None:
        """Train for one epoch in the given order, using the training loop of a real run."""

        def emit(event: Event) -> None:
            msgspec.json.encode(event)

        data = PreparedData(train=split, validation=split, test=split, info=self.data.info)
        Training(self.session, data, self.spec, emit).run_epoch(1)

    def _infer(self, split: Split) -> Any:
        return predict(self.session, split, self.spec.recipe.batch_size, self.data.info.outputs)

    def split_for(self, run: Callable[[Split], object]) -> Split:
        """Return full batches of training examples. Examples are repeated so that `run` takes about `ROUND_S`
        seconds."""
        size, count = self.spec.recipe.batch_size, 2
        while True:
            split = self.data.train.take(np.resize(np.arange(len(self.data.train)), count * size))
            start = time.perf_counter()
            run(split)
            seconds = time.perf_counter() - start
            if seconds > ROUND_S / 2:
                return split
            count = max(count + 1, min(8 * count, round(count * ROUND_S / seconds)))


@pytest.mark.parametrize("model", list(MODELS))
def test_all_contenders_train_to_the_same_weights(model: str, framework: str) -> None:
    bench = Bench(model, framework, dropout=False)
    size = bench.spec.recipe.batch_size
    split = bench.data.train.take(np.arange(SAME_STEPS * size))
    trained = {}
    for name, contender in bench.contenders.items():
        contender.train(split, bench.order(len(split)))
        trained[name] = contender.weights()
        outputs = contender.infer(split)
        assert np.shape(outputs) == (len(split), bench.data.info.outputs), name
    bare = trained.pop("bare")
    for name, weights in trained.items():
        for parameter, expected in bare.items():
            norm = float(np.linalg.norm(expected)) or 1.0
            error = float(np.linalg.norm(np.asarray(weights[parameter], np.float64) - expected)) / norm
            assert error <= SAME_ERROR, f"{name}: {parameter} differs by {error:.1e}"


@pytest.fixture(scope="session", params=list(MODELS))
def bench(request: pytest.FixtureRequest, framework: str) -> Bench:
    return Bench(request.param, framework, threads=request.config.getoption("--threads"))


@pytest.fixture(scope="session")
def clock(pytestconfig: pytest.Config) -> Callable[[], float]:
    return time.process_time if pytestconfig.getoption("--clock") == "cpu" else time.perf_counter


def test_training(benchmark: Any, bench: Bench, pairs: int, clock: Callable[[], float]) -> None:
    split = bench.split_for(lambda s: bench.contenders["bare"].train(s, bench.order(len(s))))
    order = bench.order(len(split))
    calls = {name: partial(contender.train, split, order) for name, contender in bench.contenders.items()}
    compare(benchmark, pairs, "training", bench, len(split), calls, clock)


def test_inference(benchmark: Any, bench: Bench, pairs: int, clock: Callable[[], float]) -> None:
    split = bench.split_for(bench.contenders["bare"].infer)
    calls = {name: partial(contender.infer, split) for name, contender in bench.contenders.items()}
    compare(benchmark, pairs, "inference", bench, len(split), calls, clock)


def compare(
    benchmark: Any,
    pairs: int,
    phase: str,
    bench: Bench,
    samples: int,
    calls: Mapping[str, Callable[[], object]],
    clock: Callable[[], float],
) -> None:
    """Time every contender once per round with `clock`. Each round reverses the order of the contenders.

    The contenders' times and their ratios within each round are stored in pytest-benchmark's ``extra_info``.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)

    def timed(name: str) -> float:
        gc.collect()
        start = clock()
        own_seconds = calls[name]()
        call_seconds = clock() - start
        # The wall time that a contender measures itself cannot be compared with CPU time.
        return own_seconds if isinstance(own_seconds, float) and clock is time.perf_counter else call_seconds

    for name in names:  # warm-up: the first call traces, allocates memory and fills caches
        timed(name)

    def one_round() -> None:
        for name in names[::-1] if len(seconds[names[0]]) % 2 else names:
            seconds[name].append(timed(name))

    benchmark.pedantic(one_round, rounds=pairs, iterations=1, warmup_rounds=0)
    bare = seconds["bare"]
    contenders = {}
    for name, times in seconds.items():
        ratios = np.array([b / s for b, s in zip(bare, times, strict=True)])
        contenders[name] = {
            "samples_per_s": samples / median(times),
            "ratio": float(np.median(ratios)),
            "ratio_range": median_interval(ratios),
            "seconds": times,
        }
    benchmark.extra_info.update(phase=phase, model=bench.spec.model, pairs=pairs, contenders=contenders)
