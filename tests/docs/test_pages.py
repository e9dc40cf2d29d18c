"""Tests that the commands, options, settings, paths and links on all pages exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import harness
from harness.cli.options import CommandWithExecutor, expanded
from harness.cli.root import cli
from harness.plugins import discover
from harness.records import Protocol, Recipe

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "examples").glob("*/*.md"))]
FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = ("", "sh", "bash")
PLACEHOLDER = re.compile(r"\.\.\.|…|\bCOMMAND\b|_<")
"""Placeholders in inline code."""


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


NEED_RAY = ("cluster.md", "many-runs.md")
"""Pages with options of the executor ``ray``."""
each_page = pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.plugins("ray")] if page.name in NEED_RAY else []) for page in PAGES],
    ids=page_id,
)


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each ``harness`` command in code blocks and in inline code, without ``harness`` itself."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line.removeprefix("$ ")
        for language, content in FENCE.findall(text)
        if language in SHELL
        for line in content.replace("\\\n", " ").splitlines()
    ]
    lines += [" ".join(span.split()) for span in inline_code(text)]
    for line in lines:
        if PLACEHOLDER.search(line):
            continue
        try:
            words = shlex.split(line.partition(" #")[0])
        except ValueError:  # a line of output
            continue
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        if len(words) > 1 and Path(words[0]).name == "harness" and re.fullmatch(r"[a-z-]+", words[1]):
            yield words[1:] + ["VALUE"] * (words[-1] in OPTIONS_WITH_VALUE)  # inline code such as `harness run --set`


def inline_code(text: str) -> list[str]:
    return re.findall(r"(?<!`)`([^`]+)`(?!`)", FENCE.sub("", text))


def check(words: list[str]) -> None:
    """Raise `click.UsageError` for an unknown command, option or choice."""
    command: click.Command = cli
    context = click.Context(command)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        subcommand = command.get_command(context, words[0])
        if subcommand is None:
            raise click.UsageError(f"unknown command {words[0]!r}")
        command, words = subcommand, words[1:]
        context = click.Context(command)
    if isinstance(command, CommandWithExecutor):
        words = [*expanded(words)]
    values, unknown, _ = command.make_parser(context).parse_args(words)
    if unknown:
        raise click.UsageError(f"unexpected arguments {unknown}")
    for parameter in command.params:
        value = values.get(parameter.name or "")
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            parameter.type.convert(value, parameter, context)


def all_commands(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from all_commands(command.get_command(context, name) or click.Command(name))


PARAMETERS = [parameter for command in all_commands(cli) for parameter in command.params]
OPTIONS = {option for parameter in PARAMETERS for option in (*parameter.opts, *parameter.secondary_opts)}
OPTIONS |= {
    f"--{name}-{option.replace('_', '-')}"  # such as --ray-address
    for name, provided in discover().executors.items()
    for option in provided.value.options
}
OPTIONS_WITH_VALUE = {
    option
    for parameter in PARAMETERS
    if isinstance(parameter, click.Option) and not parameter.is_flag and not isinstance(parameter.type, click.Choice)
    for option in (*parameter.opts, *parameter.secondary_opts)
}
CODE = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "harness").rglob("*.py")))


def test_commands_are_collected() -> None:
    assert sum(1 for page in PAGES for _ in commands(page)) > 150


@each_page
def test_commands_have_known_options_and_choices(page: Path) -> None:
    for words in commands(page):
        try:
            check(list(words))
        except click.UsageError as error:
            pytest.fail(f"harness {shlex.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("command", ["rnu", "run --taks nlp", "run --protocol slow", "data fetsh mnist", "show a b"])
def test_check_of_a_wrong_command_fails(command: str) -> None:
    with pytest.raises(click.UsageError):
        check(command.split())


@each_page
def test_options_in_inline_code_exist(page: Path) -> None:
    shown = [re.match(r"--[a-z][a-z-]*", span) for span in inline_code(page.read_text(encoding="utf-8"))]
    other_programs = {"--kind", "--help", "--num-cpus", "--exclusive", "--noise", "--draws", "--pairs", "--no-run"}
    assert not {option[0] for option in shown if option} - OPTIONS - other_programs


@each_page
def test_settings_exist(page: Path) -> None:
    fields = {"recipe": Recipe.__struct_fields__, "protocol": Protocol.__struct_fields__}
    for section, name in re.findall(r"\b(recipe|protocol)\.(\w+)=", page.read_text(encoding="utf-8")):
        assert name in fields[section], f"{section}.{name}"


@each_page
def test_environment_variables_exist(page: Path) -> None:
    for name in re.findall(r"\bHARNESS_[A-Z_]+\b", page.read_text(encoding="utf-8")):
        assert name in CODE, name


@each_page
def test_paths_and_modules_of_the_repository_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for span in inline_code(text):
        if re.fullmatch(r"(benchmarks|docs|examples|harness|plugins|tests)/[\w./-]+", span):
            assert (ROOT / span).exists(), span
    for name in re.findall(r"python -m benchmarks\.(\w+)", text):
        assert (ROOT / "benchmarks" / f"{name}.py").is_file(), name
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for name in re.findall(r"`make ([a-z-]+)`", text):
        assert name in targets, name


@each_page
def test_code_blocks_are_rendered(page: Path) -> None:
    """MkDocs renders a block as text if its first line has more than a language and a title."""
    for header, _ in FENCE.findall(page.read_text(encoding="utf-8")):
        assert re.fullmatch(r'(\w+( title="[\w.]+")?)?', header), header


# ---- links ------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return the anchors that MkDocs generates for the headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", LINKED, ids=page_id)
def test_links_and_anchors_exist(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        if ":" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


@pytest.mark.parametrize("page", DOCS, ids=page_id)
def test_page_is_part_of_the_site(page: Path) -> None:
    """A page must be in the navigation and link only to pages of the site."""
    listed = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert str(page.relative_to(ROOT / "docs")) in listed
    for link in links(page):
        target = link.partition("#")[0]
        if ":" not in target:
            assert (page.parent / target).resolve().is_relative_to(ROOT / "docs"), link


# ---- Python API -------------------------------------------------------------------------------------------


def test_api_page_has_every_class_and_function() -> None:
    """The errors are documented together, as the module `harness.errors`."""
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    documented = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)", page, re.MULTILINE)}
    mentioned = set(re.findall(r"`harness\.(\w+)`", page))
    errors = {name for name in harness.__all__ if name.endswith("Error")}
    assert set(harness.__all__) - {"__version__"} - errors == (documented | mentioned) - {"errors", "testing"}
