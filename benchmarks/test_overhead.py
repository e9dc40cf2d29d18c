"""The harness's training and inference loops against bare loops, pair by pair in one process."""

from __future__ import annotations

import gc
import importlib
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.stats import binom

from harness import Session, SessionRequest, Split, plugins
from harness.measure.inference import predict
from harness.measure.training import Training
from harness.plan import Selection, expand
from harness.protocols import PreparedData
from harness.types import Event, RunSpec
from harness.weights import initial_weights

MODELS = {"mlp": "regression", "resnet-20": "vision", "bert-tiny": "nlp", "wav2vec2-tiny": "speech"}
ROUND_S = 1.0
"""Length that a round aims at."""


@pytest.fixture(scope="session")
def framework(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.getoption("--framework"))


@pytest.fixture(scope="session")
def pairs(pytestconfig: pytest.Config) -> int:
    return max(6, int(pytestconfig.getoption("--pairs")))


class Bench:
    """One model opened twice in this process, in the harness's session and in a bare loop, on the same data."""

    def __init__(self, model: str, framework: str) -> None:
        catalog = plugins.discover()
        selection = Selection(tasks=(MODELS[model],), backends=(framework,), models=(model,), devices=("cpu",))
        self.spec: RunSpec = expand(selection, catalog)[0]
        task, dataset = catalog.task(self.spec.task), catalog.dataset(self.spec.dataset)
        raw = dataset.load(msgspec.convert(self.spec.dataset_options, dataset.Options))
        self.data = task.prepare(raw, msgspec.convert(self.spec.task_options, task.Options))
        architecture, _ = catalog.model(model)
        config = msgspec.convert(self.spec.model_options, architecture.Config)
        network = catalog.network(architecture.name, framework)
        assert network is not None
        request = SessionRequest(
            build=plugins.resolve(network.build),
            config=config,
            info=self.data.info,
            parameters=tuple(architecture.parameters(config, self.data.info)),
            recipe=msgspec.structs.replace(self.spec.recipe, schedule="constant", warmup_fraction=0.0),
            device="cpu",
            precision="fp32",
            compile=False,
            seed=0,
            threads=self.spec.threads,
        )
        weights = initial_weights(request.parameters, 0)
        self.session: Session = catalog.backend(framework).open(request)
        self.session.set_weights(weights)
        self.bare_train, self.bare_infer = importlib.import_module(f"benchmarks.bare_{framework}").prepare(
            request, weights
        )
        self.spec = msgspec.structs.replace(self.spec, recipe=request.recipe)

    def split_for(self, run: Callable[[Split], object]) -> Split:
        """Training examples, repeated or cut to whole batches that keep `run` busy for about `ROUND_S`."""
        size, count = self.spec.recipe.batch_size, 2
        while True:
            split = self.data.train.take(np.resize(np.arange(len(self.data.train)), count * size))
            start = time.perf_counter()
            run(split)
            seconds = time.perf_counter() - start
            if seconds > ROUND_S / 2:
                return split
            count = max(count + 1, min(8 * count, round(count * ROUND_S / seconds)))


@pytest.fixture(scope="session", params=list(MODELS))
def bench(request: pytest.FixtureRequest, framework: str) -> Bench:
    return Bench(request.param, framework)


def test_training(benchmark: Any, bench: Bench, pairs: int) -> None:
    order = np.random.default_rng(0).permutation

    def harness_epoch(split: Split) -> None:
        training(bench, split).run_epoch(1)

    split = bench.split_for(lambda s: bench.bare_train(s, order(len(s))))
    harness_epoch(split)
    compare(
        benchmark,
        pairs,
        what="training",
        bench=bench,
        samples=len(split),
        bare=lambda: bench.bare_train(split, order(len(split))),
        ours=lambda: harness_epoch(split),
    )


def test_inference(benchmark: Any, bench: Bench, pairs: int) -> None:
    size = bench.spec.recipe.batch_size
    split = bench.split_for(bench.bare_infer)
    outputs = bench.data.info.outputs
    predict(bench.session, split, size, outputs)
    compare(
        benchmark,
        pairs,
        what="inference",
        bench=bench,
        samples=len(split),
        bare=lambda: bench.bare_infer(split),
        ours=lambda: predict(bench.session, split, size, outputs),
    )


def training(bench: Bench, split: Split) -> Training:
    """A one-epoch training of the harness, with everything that its loop does in a real run."""

    def emit(event: Event) -> None:
        msgspec.json.encode(event)

    data = PreparedData(train=split, validation=split, test=split, info=bench.data.info)
    recipe = msgspec.structs.replace(bench.spec.recipe, epochs=1)
    return Training(bench.session, data, msgspec.structs.replace(bench.spec, recipe=recipe), emit)


def compare(
    benchmark: Any,
    pairs: int,
    *,
    what: str,
    bench: Bench,
    samples: int,
    bare: Callable[[], object],
    ours: Callable[[], object],
) -> None:
    """Alternate the two; a round of pytest-benchmark is one pair, whose two times are kept apart in ``extra_info``.

    Every other pair starts with the harness, so that neither always runs on a machine that the other warmed.
    """
    bare_s: list[float] = []
    ours_s: list[float] = []

    def timed(work: Callable[[], object], into: list[float]) -> None:
        gc.collect()
        start = time.perf_counter()
        work()
        into.append(time.perf_counter() - start)

    def pair() -> None:
        both = [(bare, bare_s), (ours, ours_s)]
        for work, into in both if len(bare_s) % 2 == 0 else reversed(both):
            timed(work, into)

    benchmark.pedantic(pair, rounds=pairs, iterations=1, warmup_rounds=0)
    ratios = sorted(b / o for b, o in zip(bare_s, ours_s, strict=True))
    benchmark.extra_info.update(
        what=what,
        model=bench.spec.model,
        pairs=pairs,
        ratio=median(ratios),
        ratio_range95=median_range(ratios),
        bare_samples_per_s=samples / median(bare_s),
        harness_samples_per_s=samples / median(ours_s),
        bare_s=bare_s,
        harness_s=ours_s,
    )


def median_range(values: list[float]) -> tuple[float, float]:
    """Order statistics that hold the median with at least 95% confidence, whatever the distribution (binomial)."""
    n = len(values)
    k = max(int(binom.ppf(0.025, n, 0.5)), 1)
    return values[k - 1], values[n - k]
