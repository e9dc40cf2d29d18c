"""Print a random sample of the project's sentences, for review by a reader who does not know the project: ``python -m
benchmarks.sentences``.

Sentences come from docstrings, error and help texts (string literals that read like prose), and the Markdown pages.
Comments are not included, because they are read together with the code. The sample depends only on the seed and the
files, so a review can be repeated. The output is a numbered list with the location of each sentence.
"""

from __future__ import annotations

import argparse
import ast
import random
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("harness", "plugins", "examples", "benchmarks")
PAGES = ("README.md", "CONTRIBUTING.md", "docs", "examples", "benchmarks")
MIN_WORDS = 5
_TYPED = re.compile(
    r"^(?P<indent> *)(?:Returns|Yields|Raises)\n *-{4,}\n(?:(?! *[A-Z][a-z]+\n *-{4,}).*\n?)*", re.MULTILINE
)
"""Numpydoc sections in which each type is followed by an indented description."""


def prose(text: str) -> Iterator[str]:
    """Yield the sentences in `text`, skipping code blocks, tables and headings."""
    text = re.sub(r"```.*?```", "\n\n", text, flags=re.DOTALL)
    text = re.sub(_TYPED, lambda section: re.sub(rf"(?m)^{section['indent']}\S.*$", "", section[0]), text)
    text = re.sub(r"^ *[A-Z][a-z]+\n *-{4,}$|^ *\*{0,2}\w+(?:, \*{0,2}\w+)* : .*$", "", text, flags=re.MULTILINE)  # numpydoc
    next_is_literal = False
    for paragraph in re.split(r"\n\s*\n|\n\s*[-*] |\n\s*\d+\. ", text):
        is_literal, next_is_literal = next_is_literal, paragraph.rstrip().endswith("::")
        if is_literal or paragraph.lstrip().startswith(("|", "#", ">>>", "<!--", "!", ":::")):
            continue
        joined = " ".join(paragraph.split())
        for sentence in re.split(r"(?<=[.!?:])\s+(?=[A-Z`*])", joined):
            words = sentence.split()
            plain = [word for word in words if word.strip("`*.,:;()").isalpha() and word.strip(".,:;()") != "X"]
            if len(words) >= MIN_WORDS and len(plain) >= len(words) / 2:
                yield sentence


def sentences() -> list[tuple[str, str]]:
    """Return (location, sentence) for every sentence in the project, in a stable order."""
    collected = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            collected += [(f"{name}:{line}", text) for line, text in _python(path.read_text(encoding="utf-8"))]
    for page in PAGES:
        root = ROOT / page
        for path in sorted(root.rglob("*.md")) if root.is_dir() else [root]:
            collected += [(str(path.relative_to(ROOT)), text) for text in prose(path.read_text(encoding="utf-8"))]
    return collected


def _python(source: str) -> Iterator[tuple[int, str]]:
    docstrings = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.add(node.value)
            yield from ((node.lineno, text) for text in prose(node.value.value))
    parts_of_fstrings = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in parts_of_fstrings:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values]
            yield from ((node.lineno, text) for text in prose("".join(parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            text = re.sub(r"\A\s*(import|from) \w.*", "", node.value, flags=re.DOTALL)  # code for a child process
            yield from ((node.lineno, sentence) for sentence in prose(text))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sentences", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample [0]")
    parser.add_argument("--count", type=int, default=60, help="number of sentences [60]")
    selected = parser.parse_args()
    everything = sentences()
    sample = random.Random(selected.seed).sample(everything, selected.count)
    print(f"{selected.count} of {len(everything)} sentences, seed {selected.seed}\n")
    for number, (location, text) in enumerate(sample, start=1):
        print(f"{number:3}. [{location}] {text}")


if __name__ == "__main__":
    main()
