"""Pages of the site for tests in a browser."""

from __future__ import annotations

from pathlib import Path

from sample_store import report_of


def build(results: Path, output: Path) -> Path:
    """Write the site of a results directory and return its path."""
    from harness.records.files import write_directory
    from harness.report.site.build import files

    write_directory(output, files(report_of(results)))
    return output


def pages_of(site: Path) -> list[Path]:
    """Return one page of each kind, including a failed run and a regression."""
    runs = site / "runs"
    kinds = ("nlp-cldr-langid-bert-tiny-torch-s0-*", "regression-*-linear-torch-*", "regression-*-mlp-tensorflow-*")
    return [
        site / "index.html",
        site / "runs.html",
        site / "tasks" / "nlp.html",
        site / "tasks" / "regression.html",
        *(next(runs.glob(kind)) for kind in kinds),
    ]
