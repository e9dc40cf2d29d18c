"""Tests that no text contains an avoided phrase. `CONTRIBUTING.md` explains the rules."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

AVOIDED = {
    r"\b(is|are|was|were) told\b": "is reported, is listed, is given",
    r"\b(tells|hears|hear of)\b": "reports, states, receives",
    r"\bso many\b": "the number, `n`",
    r"\b(lies|lay|lie) (in|at|beside|there|where|outside|between|on)\b": "is in, is stored in",
    r"\bwhere (it|they|he) (lies?|lay)\b": "its path, its location",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bcalled so\b": "with that name",
    r"\b(what|that) ships?\b": "built-in",
    r"\bas anybody's\b": "like third-party packages",
    r"\bin turns\b": "alternately, interleaved",
    r"(?<![\w\"'])rooms?(?![\w\"'=])": "package, module",
    r"\bgive it another\b": "rename it",
    r"\bcannot be had\b": "is not available",
    r"\b(is|are|was) no (file|directory|module|plugin|number|name|path|such|mapping|table|hook|metric|share|part)\b": (
        "is not a"
    ),
    r"\bbeyond (all )?doubt\b": "significant",
    r"\bcan (it|this|they) be believed\b": "an audit",
    r"\bnot foreseen\b": "this is a bug",
    r"\b(somebody|anybody|nobody)('s)?\b": "third-party, others, no one",
    r"\btreads?\b": "follow, share",
    r"\bof (its|their|his|one's) own\b": "separate, own",
    r'"""(Of|What|Where|Whether)\b': "start with a verb (functions) or a noun phrase (classes, attributes)",
    r"\bno word is said\b": "ignored",
    r"\bwith distrust\b": "safe",
    r"\bin short\b": "briefly",
    r"\bbesides? (it|them|the|this|that|what)\b": "next to, in addition to",
}
SUFFIXES = (".py", ".md", ".html", ".txt", ".js", ".toml")
PLACES = ("harness", "plugins", "examples", "benchmarks", "docs", "README.md", "CONTRIBUTING.md", "Makefile", "tests")


def texts() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *PLACES], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    return [p for p in paths if p.suffix in SUFFIXES or p.name == "Makefile"]


def violations(text: str) -> list[str]:
    """Return ``line: phrase (use ...)`` for every avoided phrase."""
    matches = []
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, better in AVOIDED.items():
            matches += [f"{number}: {m.group(0)!r} (use {better})" for m in re.finditer(pattern, line, re.IGNORECASE)]
    return matches


def test_no_text_has_an_avoided_phrase() -> None:
    report = [
        f"{path.relative_to(ROOT)}:{violation}"
        for path in texts()
        if path != Path(__file__)
        for violation in violations(path.read_text(encoding="utf-8"))
    ]
    assert not report, "\n".join(report)


def test_no_message_refers_to_a_file_of_the_documentation() -> None:
    """Installed packages do not contain the folder `docs`."""
    found = []
    for path in (
        path for path in texts() if path.suffix == ".py" and path.parts[len(ROOT.parts)] in ("harness", "plugins")
    ):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found += [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
            and "docs/" in node.value
        ]
    assert not found, "name the page instead: " + ", ".join(found)


@pytest.mark.parametrize(
    "sentence",
    [
        "Runs are told as a share of it.",
        "it is no file",
        "installed as anybody's",
        '"""Where the data lie."""',
        "It did not return within 10 s; it hears no more",
    ],
)
def test_an_avoided_phrase_is_found(sentence: str) -> None:
    assert violations(sentence)
