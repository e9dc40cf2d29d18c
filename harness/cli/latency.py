"""``harness latency``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.cli import options
from harness.cli.output import print_json

if TYPE_CHECKING:
    from harness.checks.latency.result import LatencyResult


@click.command(short_help="Latency of a run's model, by MLPerf's LoadGen.")
@options.plugins
@click.argument("run")
@click.option(
    "--scenario",
    type=click.Choice(["single-stream", "multi-stream", "server", "offline"]),
    default="single-stream",
    help="One sample after the other, eight at once, random arrivals, all at once [single-stream].",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=10.0,
    help="Minimum duration; MLPerf's submissions take 600 [10].",
)
@click.option(
    "--target-qps",
    type=click.FloatRange(min=0, min_open=True),
    metavar="Q",
    help="server: queries a second [half of what the model manages].",
)
@click.option(
    "--latency-bound-ms",
    type=click.FloatRange(min=0, min_open=True),
    metavar="L",
    help="server: 99% of the queries are to take no longer [100].",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="server, offline: samples that are computed at once [server 1, offline as the run].",
)
@options.format_
@options.timeout("End the measurement if it takes longer")
@options.results
def latency(
    run: str,
    scenario: Any,
    seconds: float,
    target_qps: float | None,
    latency_bound_ms: float | None,
    batch_size: int | None,
    format_: str,
    timeout: float,
    results: str | None,
) -> None:
    """Measure the latency of a run's model in one of the four scenarios of MLPerf Inference, by MLPerf's LoadGen where
    it is installed (pip install mlcommons-loadgen); single-stream and offline also without it.

    RUN is its id, a unique part of the id, or the path of its directory. The trained weights are used where
    the run saved them (`harness run --save-weights`), else the initial ones. The result is kept next to the
    record, with all raw samples. The exit status is 1 where LoadGen calls the result invalid.

    \b
    Examples:
      harness run --task vision --backend torch --save-weights
      harness latency resnet-20-torch-s0
      harness latency resnet-20-torch-s0 --scenario server --target-qps 200 --latency-bound-ms 15
    """
    from harness.checks.latency.measure import measure, settings
    from harness.records.store import Store, results_dir

    stored = Store(results_dir(results)).find(run)
    chosen = settings(
        stored,
        scenario,
        seconds=seconds,
        batch_size=batch_size,
        target_qps=target_qps,
        latency_bound_ms=latency_bound_ms,
    )
    click.echo(f"{stored.record.run_id}: {scenario}, {seconds:g} s or more", err=True)
    result, folder = measure(stored, chosen, options.catalog(), timeout_s=timeout)
    if format_ == "json":
        print_json(result)
    else:
        click.echo(render(result))
        click.echo(f"kept in {folder}", err=True)
    if result.measured.valid is False:
        raise click.exceptions.Exit(1)


def render(result: LatencyResult) -> str:
    from tabulate import tabulate

    from harness.measure.stats import MINIMUM_SAMPLES

    measured, chosen = result.measured, result.settings
    needed = {f"p{percent:g}": least for percent, least in MINIMUM_SAMPLES.items()}
    verdict = {True: "valid", False: "INVALID", None: "not judged"}[measured.valid]
    rows = [
        ("engine", f"{measured.engine}: {verdict}"),
        *(("", reason) for reason in measured.reasons),
        ("queries", f"{measured.queries:,} in {measured.seconds:.2f} s, {measured.samples:,} samples"),
        ("throughput", f"{result.samples_per_s:.5g} samples/s"),
    ]
    if measured.target_qps is not None:
        bound = chosen.latency_bound_ms
        rows.append(("target", f"{measured.target_qps:.5g} queries/s, 99% within {bound or 100:g} ms"))
    rows += [
        (name, f"too few queries ({needed[name]} needed)" if value is None else f"{value:.4g} ms")
        for name, value in result.percentiles_ms.items()
    ]
    rows += [
        ("computed at once", f"{chosen.batch_size} on {result.device}, {result.weights} weights"),
        *(("flag", flag) for flag in result.flags),
    ]
    lines = tabulate(rows, tablefmt="plain", disable_numparse=True).splitlines()
    return "\n".join([f"{result.run_id} · {chosen.scenario}", "", *(line.rstrip() for line in lines)])
