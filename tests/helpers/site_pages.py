"""Pages of a site for tests in a browser."""

from __future__ import annotations

from pathlib import Path

from sample_store import report_of


def build(results: Path, output: Path) -> Path:
    """The site of a results directory."""
    from harness.records.files import write_directory
    from harness.report.site.build import files

    write_directory(output, files(report_of(results)))
    return output


def pages_of(site: Path) -> list[Path]:
    """One page of each kind, a failed run and a regression among them."""
    runs = site / "runs"
    kinds = ("nlp-bert-tiny-torch-s0-*", "regression-linear-torch-*", "regression-mlp-tensorflow-*")
    return [
        site / "index.html",
        site / "runs.html",
        site / "tasks" / "nlp.html",
        site / "tasks" / "regression.html",
        *(next(runs.glob(kind)) for kind in kinds),
    ]
