from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_records import comparison, failure, record
from sample_store import HOSTILE

from harness.analysis.comparison_table import build_table
from harness.report.latex import escape, render


def compiler_lacks() -> str:
    if shutil.which("pdflatex") is None:
        return "pdflatex is not installed"
    for package in ("booktabs.sty", "graphicx.sty"):
        if not subprocess.run(["kpsewhich", package], capture_output=True, check=False).stdout:
            return f"pdflatex has no {package} (Debian: apt install texlive-latex-recommended)"
    return ""


pdflatex = pytest.mark.skipif(bool(compiler_lacks()), reason=compiler_lacks())


def test_render_has_bold_best_values_and_units_in_headers() -> None:
    text = render(build_table(comparison()))
    assert r"train (samples/s)" in text
    assert re.search(r"\\textbf\{1898\}! \$\\pm\$ 10 ", text)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == len(re.findall(r"\\caption", text))
    assert "failed: tensorflow, seed 2: oom: killed: out of memory" in text


def test_escape_replaces_markup() -> None:
    assert escape(r"50% of $x_1$ & {a}~#^\ ") == (
        r"50\% of \$x\_1\$ \& \{a\}\textasciitilde{}\#\textasciicircum{}\textbackslash{}"
    )
    assert escape("日本 · é") == r"[U+65E5][U+672C] $\cdot$ é"


@given(st.text(max_size=60))
def test_escape_leaves_no_special_character(text: str) -> None:
    """After removing the commands that `escape` writes, no special character is left."""
    rest = re.sub(r"\\[a-z]+\{\}|\\[{}$&%#_]|\$\\(cdot|times|pm|mu)\$|\$\^2\$|-\{\}", "", escape(text))
    assert not set(rest) & set("\\{}$&%#_^~")


@pdflatex
def test_document_compiles(tmp_path: Path) -> None:
    compile_document(render(build_table(comparison())), tmp_path)


@pdflatex
def test_document_with_hostile_names_compiles(tmp_path: Path) -> None:
    names = [
        HOSTILE,
        r"\input{/etc/passwd} \write18{ls}",
        "日本語 😀 ñ ß",
        "% $ & # _ { } ~ ^ \\",
        "??` !` ,, << >> --",
    ]
    records = [record(failure("error", name), model=name, dataset=name) for name in names]
    compile_document(render(build_table([*records, *(record(model=name, dataset=name) for name in names)])), tmp_path)


def compile_document(text: str, folder: Path) -> None:
    (folder / "table.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "table.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "table.pdf").stat().st_size > 5000
