"""The command ``harness latency``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.cli import options
from harness.cli.output import echo, say, show

if TYPE_CHECKING:
    from harness.checks.latency.result import LatencyResult


@click.command(short_help="Measure latency in the scenarios of MLPerf Inference.")
@options.plugins
@click.argument("run")
@click.option(
    "--scenario",
    type=click.Choice(["single-stream", "multi-stream", "server", "offline"]),
    default="single-stream",
    help="MLPerf scenario: single-stream (consecutive queries with one sample), multi-stream (consecutive queries "
    "with eight samples), server (queries at random times) or offline (a single query with all samples).",
)
@click.option(
    "--seconds",
    type=options.FiniteRange(min=0.1),
    default=10,
    metavar="SECONDS",
    help="Minimum duration, in seconds. MLPerf submissions use 600.",
)
@click.option(
    "--target-qps",
    type=options.FiniteRange(min=0, min_open=True),
    metavar="Q",
    help=options.with_default("Queries per second in the server scenario.", "half of the measured throughput"),
)
@click.option(
    "--latency-bound-ms",
    type=options.FiniteRange(min=0, min_open=True),
    metavar="L",
    help=options.with_default(
        "Latency bound in the server scenario, in milliseconds. At least 99% of the queries must be answered within "
        "this time.",
        "100",
    ),
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help=options.with_default(
        "Batch size in the server and offline scenarios.", "1 (server) or the batch size of the run (offline)"
    ),
)
@click.option(
    "--target",
    metavar="URL",
    help=options.with_default(
        "URL of the service to measure in the server scenario, such as http://127.0.0.1:8000. Start the service "
        "with harness serve RUN.",
        "none; the model is measured without a service",
    ),
)
@click.option(
    "--query-timeout",
    type=options.FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help=options.with_default(
        "Time limit for each query to the service, in seconds. The measurement is stopped without a result if more "
        "than 10% of the queries exceed this limit, or if more than half fail.",
        "10 or, if this is more, twice the latency bound",
    ),
)
@click.option(
    "--find-qps",
    is_flag=True,
    help="Search for the highest rate in the server scenario at which 99% of the queries are answered within "
    "--latency-bound-ms. The search performs at most ten measurements.",
)
@options.format_
@options.timeout("Maximum duration of the measurement, in seconds.")
@options.wait
@options.results
def latency(
    run: str,
    scenario: Any,
    seconds: float,
    target_qps: float | None,
    latency_bound_ms: float | None,
    batch_size: int | None,
    target: str | None,
    query_timeout: float | None,
    find_qps: bool,
    format_: str,
    timeout: float,
    wait: bool,
    results: str | None,
) -> None:
    """Measure the latency of a run's model in one of the four MLPerf Inference scenarios. MLPerf's LoadGen is used if
    it is installed (pip install mlcommons-loadgen). The single-stream and offline scenarios also work without LoadGen.

    RUN is the id of a run, a unique part of the id, or the path of the run's directory. The trained weights are used if
    the run saved them (`harness run --save-weights`), and the initial weights otherwise. The result, including all raw
    samples, is saved next to the record. The exit status is 1 if the result is invalid or, with --find-qps, if no rate
    satisfies the latency bound.

    \b
    Examples:
      harness run --task vision --backend torch --save-weights
      harness latency resnet-20-torch-s0
      harness latency resnet-20-torch-s0 --scenario server --target-qps 200
      harness latency resnet-20-torch-s0 --scenario server --find-qps --latency-bound-ms 50
      harness latency resnet-20-torch-s0 --scenario server --target http://127.0.0.1:8000 --target-qps 200
    """
    from harness.checks.latency.measure import measure, settings
    from harness.execute.device_lock import measuring_on
    from harness.records.store import Store, results_dir

    stored = Store(results_dir(results)).find_trained(run)
    chosen = settings(
        stored,
        scenario,
        seconds=seconds,
        batch_size=batch_size,
        target_qps=target_qps,
        latency_bound_ms=latency_bound_ms,
        target=target,
        query_timeout_s=query_timeout,
        find_qps=find_qps,
    )
    echo(f"{stored.record.run_id}: measuring {scenario} for at least {seconds:g} s", err=True)
    with measuring_on([stored.record.spec.device], wait=wait, say=say):
        result, folder = measure(stored, chosen, options.catalog(), timeout_s=timeout, find_qps=find_qps)
    show(result, format_, render)
    if format_ == "text":
        echo(f"Saved to {folder}/", err=True)
    # LoadGen's early stopping requires a margin, which the highest rate does not have.
    failed = result.measured.valid is False if result.search is None else result.search.qps is None
    if failed:
        raise click.exceptions.Exit(1)


def render(result: LatencyResult) -> str:
    from tabulate import tabulate

    from harness.measure.stats import MINIMUM_SAMPLES

    measured, chosen = result.measured, result.settings
    needed = {f"p{percent:g}": minimum for percent, minimum in MINIMUM_SAMPLES.items()}
    verdict = {True: "valid", False: "INVALID", None: "not checked"}[measured.valid]
    rows = [
        ("engine", f"{measured.engine}: {verdict}"),
        *(("", reason) for reason in measured.reasons),
        ("queries", f"{measured.queries:,} in {measured.seconds:.2f} s, {measured.samples:,} samples"),
    ]
    if result.samples_per_s is not None:
        rows.append(("throughput", f"{result.samples_per_s:.5g} samples/s"))
    if result.mean_ms is not None:
        rows.append(("mean", f"{result.mean_ms:.4g} ms"))
        if chosen.scenario != "server":  # In the server scenario, the latency includes the time in the queue.
            rate = 1e3 * chosen.samples_per_query / result.mean_ms
            rows.append((f"{chosen.samples_per_query} / mean", f"{rate:.5g} samples/s, excluding time between queries"))
    if measured.target_qps is not None:
        bound = chosen.latency_bound_ms
        rows.append(("target", f"{measured.target_qps:.5g} queries/s, 99% within {bound or 100:g} ms"))
    rows += [
        (name, f"too few queries ({needed[name]} needed)" if value is None else f"{value:.4g} ms")
        for name, value in result.percentiles_ms.items()
    ]
    rows += [*_served_rows(result), *_search_rows(result)]
    rows += [
        ("batch size", f"{chosen.batch_size} on {result.device}, {result.weights} weights"),
        *(("flag", flag) for flag in result.flags),
    ]
    lines = tabulate(rows, tablefmt="plain", disable_numparse=True).splitlines()
    title = f"{result.run_id} · {chosen.scenario}" + (f" · {chosen.target}" if chosen.target else "")
    return "\n".join([title, "", *(line.rstrip() for line in lines)])


def _served_rows(result: LatencyResult) -> list[tuple[str, str]]:
    """Return the rows about a service."""
    served = result.served
    if served is None:
        return []
    failures = ", ".join(f"{count:,} {reason}" for reason, count in served.failures.items())
    agreement = (
        f"{served.same_labels:.2%} have the same label as in the run"
        if served.same_labels is not None
        else f"relative difference {served.error or 0:.1e}"
    )
    shown = {name: "–" if value is None else f"{value:.4g}" for name, value in served.in_process_ms.items()}
    other = "not measured, because the service and the run use different backends"
    return [
        ("backend", served.backend),
        ("in process", ", ".join(f"{name} {value} ms" for name, value in shown.items()) or other),
        ("in the service", ", ".join(f"{name} {value:.3g} ms" for name, value in served.parts_ms.items())),
        ("failed", failures or "0"),
        ("answers", f"{served.examples:,} test examples, {agreement}"),
        (served.metric, f"{_number(served.score)} (run: {_number(served.run_score)})"),
        ("peak memory", ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in served.memory_bytes.items())),
    ]


def _search_rows(result: LatencyResult) -> list[tuple[str, str]]:
    """Return the rows about the search for the highest query rate."""
    search = result.search
    if search is None:
        return []
    low, high = _number(search.low_qps), _number(search.high_qps)
    rows = [("highest rate", f"{_number(search.qps)} queries/s (95%: {low} to {high}), {len(search.probes)} probes")]
    for probe in search.probes:
        verdict = "held" if probe.holds else f"not held{f': {probe.problem}' if probe.problem else ''}"
        late = f"{probe.late:,} of {probe.queries:,} late"
        rows.append(("", f"{probe.target_qps:.5g} queries/s: p99 {_number(probe.p99_ms)} ms, {late}, {verdict}"))
    return rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}"
