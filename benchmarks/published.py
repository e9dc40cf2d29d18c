"""Comparison with published results.

``python -m benchmarks.published run [DATASET ...] [--backend NAME] [--minilm FOLDER]`` executes the runs that are
missing from the results directory. ``python -m benchmarks.published table`` compares the recorded runs with the
published results and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tabulate import tabulate

from harness import RunRecord, RunSpec, Success
from harness.analysis.formatting import rounded
from harness.cli.progress import carry_out
from harness.data.checkpoint import locate
from harness.measure import stats
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records import Protocol
from harness.records.store import Store

RESULTS = Path(__file__).parent.parent / "results" / "reference"
GROUPS = ("uci", "published")
"""Results directories below `RESULTS`."""
TIMEOUT_S = 2 * 3600.0
SHORT = ("protocol.throughput_budget_s=0.2", "protocol.latency_batches=11")
"""Options that shorten the speed measurements for the UCI datasets. These datasets have many splits and therefore
require many runs."""
BACKENDS = ("torch", "tensorflow")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A published test score. The model should reach this score with the recipe that the dataset declares."""

    task: str
    dataset: str
    model: str
    figure: float
    """Published mean, or lower bound of the expected score."""
    standard_error: float | None = None
    """Standard error of the published mean over splits. None if `figure` is a bound."""
    note: str = ""
    seeds: tuple[int, ...] = (0,)
    lower_is_better: bool = False

    @property
    def group(self) -> str:
        """Name of the results directory for the runs."""
        return "uci" if self.task == "regression" else "published"

    def selection(self, backends: Sequence[str], checkpoint: str | None) -> Selection:
        splits = self.task == "regression"
        return Selection(
            tasks=(self.task,),
            datasets=(self.dataset,),
            models=() if self.note == PRETRAINED else (self.model,),
            backends=tuple(backends),
            splits="all" if splits else (),
            seeds=self.seeds,
            precisions=("bf16",) if self.note == PRETRAINED else ("fp32",),
            threads=1,
            overrides=SHORT if splits else (),
            pretrained=checkpoint if self.note == PRETRAINED else None,
        )

    def reached(self, value: float) -> bool:
        """Return True unless `value` is more than two standard errors worse than the published mean."""
        margin = 2 * (self.standard_error or 0.0)
        return value <= self.figure + margin if self.lower_is_better else value >= self.figure - margin


PRETRAINED = "fine-tuned from all-MiniLM-L6-v2, bf16"


def _uci(dataset: str, figure: float, standard_error: float) -> Claim:
    """Return a claim about the RMSE of a network with one hidden layer of 50 units, over the published splits. The
    values come from the first author's repetition of the grid search in Gal and Ghahramani 2016 (arXiv:1506.02142).
    These values were published with the code of the paper.
    """
    return Claim(
        task="regression",
        dataset=dataset,
        model="mlp-50",
        figure=figure,
        standard_error=standard_error,
        lower_is_better=True,
    )


CLAIMS = (
    _uci("uci-concrete", 4.82, 0.16),
    _uci("uci-energy", 0.54, 0.06),
    _uci("uci-kin8nm", 0.08, 0.00),
    _uci("uci-power", 4.01, 0.04),
    _uci("uci-protein", 4.27, 0.02),
    _uci("uci-wine", 0.62, 0.01),
    _uci("uci-yacht", 0.67, 0.05),
    Claim(task="nlp", dataset="trec", model="lstm-small", figure=0.88, note="from scratch", seeds=(0, 1, 2)),
    Claim(task="nlp", dataset="sst2", model="lstm", figure=0.80, note="from scratch"),
    Claim(task="speech", dataset="fsdd", model="wav2vec2-tiny", figure=0.97, note="from scratch"),
    Claim(task="vision", dataset="mnist", model="resnet-20", figure=0.993),
    Claim(task="vision", dataset="fashion-mnist", model="resnet-20", figure=0.92),
    Claim(task="nlp", dataset="sst2", model="bert", figure=0.88, note=PRETRAINED),
)


def run(datasets: Sequence[str], backends: Sequence[str], checkpoint: str | None, results: Path) -> int:
    """Execute the missing runs and return the exit status."""
    catalog = discover()
    runs = [run for group in GROUPS for run in Store(results / group).load().runs]
    done = {_identity(run.record.spec, catalog) for run in runs if isinstance(run.record.outcome, Success)}
    specs: dict[str, list[RunSpec]] = {group: [] for group in GROUPS}
    for claim in CLAIMS:
        if datasets and claim.dataset not in datasets:
            continue
        if claim.note == PRETRAINED and checkpoint is None:
            print(
                f"skipped {claim.dataset}, {claim.note}: pass the folder of the checkpoint with --minilm",
                file=sys.stderr,
            )
            continue
        specs[claim.group] += [
            spec
            for spec in expand(claim.selection(backends, checkpoint).resolved(locate), catalog)
            if _identity(spec, catalog) not in done
        ]
    records: list[RunRecord] = []
    for group, missing in specs.items():
        if not missing:
            continue
        store = Store(results / group)
        store.prepare()
        records += carry_out(missing, catalog, store, quiet=False, timeout_s=TIMEOUT_S)
    return int(not all(isinstance(record.outcome, Success) for record in records))


def _identity(spec: RunSpec, catalog: Catalog) -> str:
    """Return a key built from the settings that affect the scores.

    The protocol for measuring speed is excluded, and missing options are set to their defaults. Runs from older
    versions therefore have the same keys.
    """
    task, (model, _) = catalog.task(spec.task), catalog.model(spec.model)

    def completed(values: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
        options: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(msgspec.convert(values, kind)))
        return options

    return msgspec.structs.replace(
        spec,
        device="auto",
        protocol=Protocol(),
        task_options=completed(spec.task_options, task.Options),
        model_options=completed(spec.model_options, model.Config),
    ).key


def table(results: Path) -> str:
    """Return the comparison in Markdown, with one row for each claim and each backend with runs.

    The table has no speed column, because other programs were running at the same time.
    """
    runs = [run for group in GROUPS for run in Store(results / group).load().runs]
    records = [run.record for run in runs if isinstance(run.record.outcome, Success)]
    rows = []
    for claim in CLAIMS:
        for backend in BACKENDS:
            matching = [record for record in records if _belongs(record, claim, backend)]
            if matching:
                rows.append(_row(claim, backend, matching))
    headers = ["dataset", "model", "backend", "metric", "published or expected", "here", "runs", "reached"]
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)


def _belongs(record: RunRecord, claim: Claim, backend: str) -> bool:
    spec = record.spec
    pretrained = claim.note == PRETRAINED
    return (spec.dataset, spec.model, spec.backend, spec.pretrained is not None) == (
        claim.dataset,
        claim.model,
        backend,
        pretrained,
    )


def _row(claim: Claim, backend: str, records: Sequence[RunRecord]) -> list[str]:
    outcomes = [record.outcome for record in records if isinstance(record.outcome, Success)]
    metric = outcomes[0].scores.primary
    values = [value for outcome in outcomes if (value := outcome.scores.test[metric]) is not None]
    mean = stats.mean(values)
    if claim.standard_error is None:
        figure = f"at least {claim.figure:g}"
    else:
        # A published standard error of 0.00 is smaller than half of its last digit.
        figure = f"{claim.figure:.2f} ± {f'{claim.standard_error:.2f}' if claim.standard_error else '<0.005'}"
    return [
        claim.dataset,
        f"{claim.model}, {claim.note}" if claim.note else claim.model,
        backend,
        metric,
        figure,
        " ± ".join(filter(None, rounded(mean.value, _standard_error(values)))),
        str(len(records)),
        "yes" if claim.reached(mean.value) else "no",
    ]


def _standard_error(values: Sequence[float]) -> float | None:
    from statistics import stdev

    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published", description=__doc__)
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        help="directory that contains the results directories [results/reference]",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="execute the missing runs")
    running.add_argument("datasets", nargs="*", help="only these datasets [all]")
    running.add_argument(
        "--backend", default=",".join(BACKENDS), help="backends, separated by commas [torch,tensorflow]"
    )
    running.add_argument("--minilm", help="folder of the checkpoint sentence-transformers/all-MiniLM-L6-v2")
    commands.add_parser("table", help="print the comparison")
    options = parser.parse_args()
    if options.command == "run":
        return run(options.datasets, options.backend.split(","), options.minilm, options.results)
    print(table(options.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
