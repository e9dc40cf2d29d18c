"""Print a random sample of the project's sentences, for review by a reader who does not know the project: ``python -m
benchmarks.sentences [--control sklearn --key key.json]``.

Sentences come from docstrings, error and help texts (string literals that read like prose), and the Markdown pages.
Comments are not included, because they are read together with the code. The sample depends only on the seed and the
files, so a review can be repeated. The output is a numbered list with the location of each sentence.

With ``--control PACKAGE``, the sample is mixed with the same number of sentences from the code of an installed package.
The locations are omitted, so that the reader does not know which sentences belong to the project. ``--key`` saves the
origins of the sentences in a JSON file.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
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
    numpydoc = r"^ *[A-Z][a-z]+\n *-{4,}$|^ *\*{0,2}\w+(?:, \*{0,2}\w+)* : .*$"
    text = re.sub(numpydoc, "", text, flags=re.MULTILINE)
    next_is_literal = False
    for paragraph in re.split(r"\n\s*\n|\n\s*[-*] |\n\s*\d+\. ", text):
        is_literal, next_is_literal = next_is_literal, paragraph.rstrip().endswith("::")
        if is_literal or paragraph.lstrip().startswith(("|", "#", ">>>", "<!--", "!", ":::")):
            continue
        joined = re.sub(r"``[^`]+``|`[^`]+`", lambda code: code[0].replace(" ", "\0"), " ".join(paragraph.split()))
        for part in re.split(r"(?<=[.!?:])\s+(?=[A-Z`*])", joined):
            sentence = part.replace("\0", " ")
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


def package_sentences(name: str) -> list[tuple[str, str]]:
    """Return (location, sentence) for every sentence in the code of an installed package, excluding its tests."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"the package {name!r} is not installed")
    root = Path(found.submodule_search_locations[0])
    paths = [path for path in sorted(root.rglob("*.py")) if "tests" not in path.relative_to(root).parts]
    return [
        (f"{name}/{path.relative_to(root)}:{line}", text)
        for path in paths
        for line, text in _python(path.read_text(encoding="utf-8"))
    ]


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
    parser.add_argument("--control", metavar="PACKAGE", help="mix the sample with sentences from this package")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="with --control: file for the origins of the sentences"
    )
    selected = parser.parse_args()
    draw, everything = random.Random(selected.seed), sentences()
    sample = draw.sample(everything, selected.count)
    if selected.control is None:
        print(f"{selected.count} of {len(everything)} sentences, seed {selected.seed}\n")
        for number, (location, text) in enumerate(sample, start=1):
            print(f"{number:3}. [{location}] {text}")
        return
    sample += draw.sample(package_sentences(selected.control), selected.count)
    draw.shuffle(sample)
    for number, (_, text) in enumerate(sample, start=1):
        print(f"{number:3}. {text}")
    if selected.key is not None:
        origins = {number: location for number, (location, _) in enumerate(sample, start=1)}
        selected.key.write_text(json.dumps(origins, indent=1) + "\n")


if __name__ == "__main__":
    main()
