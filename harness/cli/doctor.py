"""The command ``harness doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import echo, print_json, show

if TYPE_CHECKING:
    from harness.checks.diagnosis import Diagnosis


@click.command(short_help="Report available backends and devices, and missing packages.")
@options.plugins
@click.option(
    "--roofline",
    is_flag=True,
    help="Measure the peak compute and bandwidth of each device, and save them for later runs.",
)
@options.names("--backend", "With --roofline: backend to measure.", default="all available backends")
@options.names("--precision", "With --roofline: precision to measure.", default="all supported precisions")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help=options.with_default("With --roofline: number of CPU threads.", "number of available cores"),
)
@options.format_
@options.results
def doctor(
    roofline: bool,
    backend: tuple[str, ...],
    precision: tuple[str, ...],
    threads: int | None,
    format_: str,
    results: str | None,
) -> None:
    """Report the state of this machine: versions, the devices of each backend, plugins that fail to load, and whether
    the results directory is writable.

    Each backend lists its devices in a separate process. The exit status is 1 if no backend is available or results
    cannot be written.

    With --roofline, measure the peak matrix multiplication rate and the peak copy bandwidth of each device in each
    precision. Each measurement takes about 20 s. The measured rates are saved in the cache. Later reports also show the
    model FLOPs utilization (the fraction of the peak) of runs with the same device and number of threads.

    \b
    Examples:
      harness doctor
      harness doctor --format json
      harness doctor --roofline --backend torch --precision fp32
    """
    from harness.checks.diagnosis import diagnose
    from harness.records.store import results_dir

    if roofline:
        from harness.execute.device_lock import measuring_on

        with measuring_on(["auto"]):
            _print_rooflines(backend, precision, threads, format_)
        return
    if backend or precision or threads:
        raise click.UsageError("--backend, --precision and --threads can only be used with --roofline")
    diagnosis = diagnose(options.catalog(with_failures=True), results_dir(results))
    show(diagnosis, format_, render)
    if diagnosis.results_problem or not any(backend.devices for backend in diagnosis.backends):
        raise click.exceptions.Exit(1)


def _print_rooflines(backends: tuple[str, ...], precisions: tuple[str, ...], threads: int | None, format_: str) -> None:
    from tabulate import tabulate

    from harness.checks import roofline
    from harness.errors import HarnessError
    from harness.execute.devices import probe
    from harness.execute.environment import collect
    from harness.measure.cgroup import available_cores

    catalog, environment, count = options.catalog(with_failures=True), collect(), threads or available_cores()
    for name in backends:
        catalog.backend(name)
    rooflines, problems = [], []
    for name in backends or roofline.usable(catalog):
        for device in probe(name, catalog.backends[name].plugin).devices:
            for precision in device.precisions:
                if precisions and precision not in precisions:
                    continue
                echo(f"measuring {name} on {device.name}, {precision}, {count} threads", err=True)
                try:
                    measured = roofline.measure(
                        name, catalog, device=device, precision=precision, threads=count, environment=environment
                    )
                except HarnessError as error:
                    problems.append(str(error))
                    continue
                if measured is not None:
                    rooflines.append(measured)
    for problem in problems:
        echo(f"Error: {problem}", err=True)
    if format_ == "json":
        print_json(rooflines)
    else:
        rows = [
            [
                p.backend,
                p.device,
                p.precision,
                p.threads,
                f"{p.matrix_flops_per_s / 1e9:.4g}",
                f"{p.copy_bytes_per_s / 1e9:.4g}",
                f"{p.matrix_flops_per_s / p.copy_bytes_per_s:.3g}",
            ]
            for p in rooflines
        ]
        headers = ["backend", "device", "precision", "threads", "matrix, GFLOP/s", "copy, GB/s", "ridge, FLOP/byte"]
        echo(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True))
    if problems or not rooflines:
        raise click.exceptions.Exit(1)


def render(diagnosis: Diagnosis) -> str:
    env = diagnosis.environment
    lines = [
        f"harness {diagnosis.harness}, {env.python}",
        f"{env.os}, {env.kernel}",
        f"{env.cpu}, {env.cores} cores, {env.memory_bytes / 2**30:.1f} GiB",
        *([] if env.cpu_quota is None else [f"CPU quota of the control group: {env.cpu_quota:.3g} cores"]),
        *(f"{gpu.name}, {gpu.memory_bytes / 2**30:.1f} GiB, driver {gpu.driver}" for gpu in env.gpus),
        *([] if env.gpus else ["no NVIDIA GPU found"]),
        "",
        "packages",
        *(f"  {name} {version}" for name, version in env.packages.items()),
        "",
        "backends",
    ]
    for backend in diagnosis.backends:
        lines.append(f"  {backend.name}: {'not available: ' + backend.problem if backend.problem else 'available'}")
        lines += [f"    {d.name}  {d.description}  {', '.join(d.precisions)}" for d in backend.devices]
    if not diagnosis.backends:
        lines.append("  none: no installed plugin provides a backend")
    if diagnosis.plugin_problems:
        lines += ["", "plugins that failed to load"]
        lines += [f"  {name}: {message}" for name, message in diagnosis.plugin_problems.items()]
    lines += ["", f"results directory {diagnosis.results_dir}: {diagnosis.results_problem or 'writable'}"]
    return "\n".join(lines)
