"""The command ``harness serve``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli import options
from harness.cli.output import echo


@click.command(short_help="Serve a trained model over HTTP.")
@options.plugins
@click.argument("run")
@click.option(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="IP address to listen on. Addresses other than loopback require a token.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, metavar="N", help="Port, or 0 for any free port.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help=options.with_default("File with the token that requests must contain.", "HARNESS_SERVE_TOKEN, if it is set"),
)
@options.computed_by("the backend of the run, or a backend that executes the exported model")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    help=options.with_default("Number of CPU threads for the model.", "that of the run"),
)
@click.option(
    "--batch-size", type=click.IntRange(1, 1024), default=32, metavar="N", help="Maximum number of examples in a batch."
)
@click.option(
    "--max-waiting",
    type=click.IntRange(1),
    default=1024,
    metavar="N",
    help="Maximum number of waiting examples; the service responds to further requests with status 503.",
)
@click.option(
    "--max-body-mb",
    type=options.FiniteRange(0, 1024, min_open=True),
    default=16,
    metavar="MB",
    help="Maximum body size.",
)
@click.option(
    "--answer-timeout",
    type=options.FiniteRange(0, 86400, min_open=True),
    default=30,
    metavar="SECONDS",
    help="Maximum time to answer a request, in seconds.",
)
@options.results
def serve(
    run: str,
    host: str,
    port: int,
    token_file: str | None,
    backend: str | None,
    device: str | None,
    threads: int | None,
    batch_size: int,
    max_waiting: int,
    max_body_mb: float,
    answer_timeout: float,
    results: str | None,
) -> None:
    """Serve the trained model of a run (`harness run --save-weights`) over HTTP, with the run's preprocessing.

    POST /predict returns predictions for texts, rows of a table, images or recordings, which can be sent as JSON or as
    files. Open the address in a browser to try the model. /docs describes the API, and /metrics returns metrics for
    Prometheus. After SIGTERM or Ctrl-C, the service answers the requests that have already arrived, and then stops.

    RUN is the id of a run, a unique part of the id, the path of the run's directory, or a folder written by `harness
    export`. The run from which the folder was exported must be in the results directory.

    \b
    Examples:
      harness run --task nlp --backend torch --save-weights
      harness serve bert-tiny-torch-s0
      harness serve model/
      harness serve bert-tiny-torch-s0 --host 0.0.0.0 --token-file token.txt
    """
    from importlib.util import find_spec

    from harness.errors import UsageError
    from harness.plan.exporter import accepting_exports
    from harness.records.store import Store, results_dir

    needed = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client")
    if absent := [name for name in needed if find_spec(name) is None]:
        raise UsageError(
            f"serving requires {', '.join(absent)}, which is not installed; run: pip install 'ml-harness[serve]'"
        )
    from harness.deploy.serving import server
    from harness.deploy.serving.limits import Limits

    token = server.token_from(None if token_file is None else Path(token_file))
    server.check_address(host, token)
    source = accepting_exports(Store(results_dir(results)).find_trained)(run)
    body_bytes = round(max_body_mb * 2**20)
    limits = Limits(
        batch_size=batch_size,
        waiting_examples=max_waiting,
        body_bytes=body_bytes,
        pending_bytes=max(256 * 2**20, 2 * body_bytes),
        answer_s=answer_timeout,
        batch_s=max(Limits().batch_s, 2 * answer_timeout),
    )
    service = server.service_of(
        source, options.catalog(), limits, backend=backend, device=device or "auto", threads=threads
    )
    with server.listen(host, port) as bound:
        echo(f"{service.description.run}: loading the model", err=True)
        server.run(
            service,
            bound,
            token=token,
            hosts=server.allowed_hosts(host),
            on_ready=lambda: echo(f"Serving on {server.address(bound)} (Ctrl-C stops the service)", err=True),
        )
    echo("Stopped", err=True)
