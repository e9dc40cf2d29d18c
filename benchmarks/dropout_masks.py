"""Measure the false positive rate of the parity check's comparison of dropout masks: ``python -m
benchmarks.dropout_masks``.

One backend generates many masks for one batch. Disjoint sets of these masks are compared in the same way as the masks
of two backends. For several nominal false positive rates, the table shows the threshold and how often the largest
difference exceeds it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from harness.checks.parity.masks import EXAMPLES, MASKS, RATE, Statistic, mask_statistics
from harness.checks.parity.probe_weights import probe_weights
from harness.data.batches import training_batches
from harness.execute.preparation import opened_session, prepare
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import discover

Array = NDArray[Any]

LEVELS = (0.1, 0.05, 0.01, 1e-3, 1e-4)
OTHER_TESTS = 6
"""Number of tests in a parity check that this benchmark does not simulate, in addition to those of the changes of the
weights. These tests compare the losses of training steps, repeated masks and successive masks."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dropout_masks", description=__doc__)
    parser.add_argument("--task", default="speech", help="task [speech]")
    parser.add_argument("--model", default="wav2vec2-tiny", help="model [wav2vec2-tiny]")
    parser.add_argument("--backend", default="torch", help="backend [torch]")
    parser.add_argument("--masks", type=int, default=6144, help="number of masks, at least 512 [6144]")
    parser.add_argument("--orders", type=int, default=800, help="number of random orders of the masks [800]")
    options = parser.parse_args()
    values, changes = statistics(options.task, options.model, options.backend, options.masks)
    from scipy import stats

    tests = values.shape[1] + changes + OTHER_TESTS
    lowest = np.array(list(p_values(values, options.orders)))
    rows = []
    for level in LEVELS:
        rate = float((lowest < level / tests).mean())
        limit = stats.t.isf(level / tests / 2, 2 * MASKS - 2)
        rows.append([f"{level:g}", f"{limit:.2f}", f"{rate:.3%}"])
    print(f"{tests} tests, {len(lowest)} comparisons of {MASKS} with {MASKS} masks")
    print(tabulate(rows, ["level", "threshold, standard errors", "exceeded"], tablefmt="pipe", disable_numparse=True))


def statistics(task: str, model: str, backend: str, masks: int) -> tuple[Array, int]:
    """Return the statistics of each mask, ``[masks, tests]``, for the weights and dropout rate of a parity check, and
    the number of statistics of the changes of the weights."""
    catalog = discover()
    selection = Selection(tasks=(task,), models=(model,), backends=(backend,), devices=("cpu",), threads=1)
    (spec,) = expand(selection, catalog)
    prepared = prepare(spec, catalog.refs_for(spec))
    batch = next(training_batches(prepared.data.train, EXAMPLES, spec.seed, 1, prepared.data.augment))
    weights = probe_weights(prepared.request.parameters, spec.seed)
    with opened_session(prepared, weights, dropout=0.0) as session:
        _, plain = session.gradients(batch)
    with opened_session(prepared, weights, dropout=max(RATE, spec.recipe.dropout)) as session:
        found = mask_statistics(session, batch, plain, masks)
    loss, parameters = found["loss"], [name for name in found if name.startswith("parameter/")]
    columns = [loss, np.abs(loss - np.median(loss)), *found["pairs"].T]
    columns += [found[name][:, statistic] for name in parameters for statistic in Statistic]
    return np.stack(columns, axis=1), len(parameters) * len(Statistic)


def p_values(values: Array, orders: int) -> Iterator[float]:
    """Yield, for each pair of disjoint sets of masks, the smallest p-value of Welch's t-tests between the sets."""
    from scipy import stats

    rng = np.random.default_rng(0)
    for _ in range(orders):
        shuffled = values[rng.permutation(len(values))]
        sets = [shuffled[start : start + MASKS] for start in range(0, len(values) - MASKS + 1, MASKS)]
        for one, other in zip(sets[::2], sets[1::2], strict=False):
            yield float(stats.ttest_ind(one, other, equal_var=False).pvalue.min())


if __name__ == "__main__":
    main()
