"""Measure the false positive rate of the comparison of dropout masks in parity checks: ``python -m
benchmarks.dropout_masks``.

One backend generates many masks for one batch. Disjoint sets of these masks are compared in the same way as the masks
of two backends. The table shows the threshold for several nominal false positive rates, and how often the largest
difference exceeds the threshold.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tabulate import tabulate

from harness.checks.parity.computations import Computations
from harness.checks.parity.masks import CHANGES, EXAMPLES, MASKS, RATE, Statistic, mask_statistics
from harness.checks.parity.probe_weights import probe_weights
from harness.data.batches import training_batches
from harness.execute.preparation import opened_session, prepare
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import discover

Array = NDArray[Any]

LEVELS = (0.1, 0.05, 0.01, 1e-3, 1e-4)
OTHER_TESTS = 6
"""Number of additional tests that a parity check performs and this benchmark does not simulate. The additional tests
compare the losses of training steps, repeated masks and successive masks."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dropout_masks", description=__doc__)
    parser.add_argument("--task", default="speech", help="task [speech]")
    parser.add_argument("--model", default="wav2vec2-tiny", help="model [wav2vec2-tiny]")
    parser.add_argument("--backend", default="torch", help="backend [torch]")
    parser.add_argument("--masks", type=int, default=6144, help="number of masks, at least 512 [6144]")
    parser.add_argument("--orders", type=int, default=800, help="number of random permutations of the masks [800]")
    options = parser.parse_args()
    values = statistics(options.task, options.model, options.backend, options.masks)
    tests = sum(each.shape[1] for each in values) + OTHER_TESTS
    lowest = np.array(list(p_values(values, options.orders)))
    rows = []
    for level in LEVELS:
        limits = [float(stats.t.isf(level / tests / 2, 2 * size - 2)) for size in (MASKS, CHANGES)]
        rate = float((lowest < level / tests).mean())
        rows.append([f"{level:g}", *(f"{limit:.2f}" for limit in limits), f"{rate:.3%}"])
    print(f"{tests} tests, {len(lowest)} comparisons of {MASKS} with {MASKS} masks")
    header = ["level", "threshold, standard errors", f"threshold for {CHANGES} training steps", "exceeded"]
    print(tabulate(rows, header, tablefmt="pipe", disable_numparse=True))


def statistics(task: str, model: str, backend: str, masks: int) -> tuple[Array, Array]:
    """Return the statistics of each mask, ``[masks, tests]``, and the statistics of the weight changes in training
    steps, ``[steps, tests]``. The weights and dropout rates are the same as in a parity check. The number of steps is
    chosen so that there are as many disjoint sets of `CHANGES` steps as disjoint sets of `MASKS` masks."""
    catalog = discover()
    selection = Selection(tasks=(task,), models=(model,), backends=(backend,), devices=("cpu",), threads=1)
    (spec,) = expand(selection, catalog)
    prepared = prepare(spec, catalog.refs_for(spec))
    batch = next(training_batches(prepared.data.train, EXAMPLES, spec.seed, 1, prepared.data.augment))
    weights = probe_weights(prepared.request.parameters, spec.seed)
    computations = Computations(prepared, 0, weights, {}, 0, reference=False)
    with opened_session(prepared, weights, dropout=0.0) as session:
        _, plain = session.gradients(batch)
    with opened_session(prepared, weights, dropout=max(RATE, spec.recipe.dropout)) as session:
        found = mask_statistics(session, batch, plain, masks)
    with opened_session(prepared, weights) as session:
        steps = masks // MASKS * CHANGES
        changes = computations.change_statistics(session, batch, plain, found, steps)
    loss = found["loss"]
    columns = [loss, np.abs(loss - np.median(loss)), *found["pairs"].T]
    columns += [array[:, statistic] for array in _parameters(found) for statistic in Statistic]
    others = [array[:, statistic] for array in changes.values() for statistic in Statistic]
    return np.stack(columns, axis=1), np.stack(others, axis=1)


def _parameters(found: dict[str, Array]) -> Iterator[Array]:
    return (array for name, array in found.items() if name.startswith("parameter/"))


def p_values(values: tuple[Array, Array], orders: int) -> Iterator[float]:
    """Yield the smallest p-value of Welch's t-tests between two sets of masks, for each pair of disjoint sets."""
    rng = np.random.default_rng(0)
    for _ in range(orders):
        lowest = []
        for each, size in zip(values, (MASKS, CHANGES), strict=True):
            shuffled = each[rng.permutation(len(each))]
            sets = [shuffled[start : start + size] for start in range(0, len(each) - size + 1, size)]
            lowest.append([_smallest(a, b) for a, b in zip(sets[::2], sets[1::2], strict=False)])
        yield from map(min, *lowest)


def _smallest(one: Array, other: Array) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.nanmin(stats.ttest_ind(one, other, equal_var=False).pvalue))


if __name__ == "__main__":
    main()
