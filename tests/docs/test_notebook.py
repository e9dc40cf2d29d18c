"""Test of the notebook in examples/, which is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook" / "own_data.ipynb"


def outputs(notebook: Any) -> list[list[dict[str, Any]]]:
    """Return the outputs of each code cell as dictionaries of MIME types."""
    return [
        [output.get("data") or {"stream": output.get("text")} for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
@pytest.mark.plugins("tabular", "baselines")
def test_notebook_is_executed_with_the_stored_results(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, 4)
    stored = outputs(notebook)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    executed = outputs(notebook)
    frame, (progress, table), scores, balanced, confusion, error = executed
    assert "\x1b" not in str(executed)
    # The output area is updated in place, so it contains only the results.
    assert progress["text/plain"].count("\n") == 1
    assert "<pre>[1/2] tabular · logreg · baseline · seed 0: accuracy" in progress["text/html"]
    assert table["text/html"].startswith("<table><caption>tabular")
    assert [frame, scores, balanced, confusion, error] == [stored[0], *stored[2:]]
