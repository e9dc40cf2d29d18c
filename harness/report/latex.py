r"""The table as a LaTeX document, with one booktabs table for each block and the best values in bold.

The document compiles without changes. To include a table in a paper, copy its ``table`` environment and load the
packages ``booktabs`` and ``graphicx``. Characters that are missing from pdflatex's T1 fonts are written as their code
points, such as ``[U+4E2D]``.
"""

from __future__ import annotations

import re

from harness.analysis.formatting import one_line
from harness.analysis.table import Cell, Column, Table
from harness.report.best import best
from harness.report.layout import Block, blocks, legend

_HEAD = r"""% This document compiles without changes. To use a table elsewhere, load booktabs and graphicx.
\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{textcomp}
\usepackage{booktabs}
\usepackage{graphicx}
\usepackage[a4paper,landscape,margin=2cm]{geometry}
\begin{document}
"""
_TAIL = "\\end{document}\n"
_LITERAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "–": r"\textendash{}",
    "…": r"\dots{}",
    "µ": r"$\mu$",
    "²": r"$^2$",
}


def render(table: Table) -> str:
    """Return the table as a LaTeX document."""
    shown = blocks(table)
    notes = [
        *legend(shown),
        "Bold: the best value, and all values that do not differ significantly from it (95% level).",
    ]
    parts = [_block(block) for block in shown]
    if shown:
        parts.append("\\noindent\\small\n" + "\\\\\n".join(escape(line) for line in notes) + "\n")
    return _HEAD + "\n".join(parts) + _TAIL


def _block(block: Block) -> str:
    winners = {column.name: best(block.rows, column) for column in block.columns}
    lines = [" & ".join(escape(column.header) for column in block.columns)]
    lines += [
        " & ".join(_cell(row.cells[column.name], column, index in winners[column.name]) for column in block.columns)
        for index, row in enumerate(block.rows)
    ]
    align = "".join("l" if column.kind == "text" else "r" for column in block.columns)
    remarks = [f"flagged: {text}" for text in block.flags] + [f"failed: {text}" for text in block.failures]
    notes = "".join(f"\\\\[2pt]\n\\small {escape(text)}" for text in remarks)
    return (
        "\\begin{table}[!ht]\n\\centering\n"
        f"\\caption{{{escape(block.heading)}}}\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{{align}}}\n\\toprule\n{lines[0]} \\\\\n\\midrule\n"
        + "".join(f"{line} \\\\\n" for line in lines[1:])
        + f"\\bottomrule\n\\end{{tabular}}}}{notes}\n\\end{{table}}\n"
    )


def _cell(cell: Cell, column: Column, is_best: bool) -> str:
    if column.kind != "number":
        return escape(cell.shown)
    if not cell.shown:
        return r"\textendash{}"
    value = f"\\textbf{{{cell.shown}}}" if is_best else cell.shown
    return value + "!" * cell.flagged + (f" $\\pm$ {cell.shown_ci95}" if cell.shown_ci95 else "")


def escape(text: str) -> str:
    """Return `text` on one line, with all LaTeX markup escaped."""
    line = "".join(map(_literal, one_line(text, limit=10_000)))
    return re.sub("-(?=-)", "-{}", line)  # LaTeX would turn two hyphens into a dash


def _literal(character: str) -> str:
    if character in _LITERAL:
        return _LITERAL[character]
    if character.isascii() or (character.isalpha() and character <= "ÿ"):
        return character
    return " " if character.isspace() else f"[U+{ord(character):04X}]"
