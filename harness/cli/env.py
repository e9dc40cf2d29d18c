"""The ``harness env`` commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import options
from harness.cli.output import echo, say, show

if TYPE_CHECKING:
    from harness.plugins.environments import NamedEnvironment


@click.group(cls=options.SuggestingGroup, short_help="Create environments for runs with other package versions.")
def env() -> None:
    """Create, list and remove named environments, in which `harness run --env NAME` executes runs.

    Environments are stored in the directory HARNESS_ENVS or, if this variable is not set, in the user's data directory.

    \b
    Examples:
      harness env create tf220 --with tensorflow==2.20.0
      harness run --task nlp --backend tensorflow --env current,tf220
      harness env list
    """


_with = click.option(
    "--with",
    "requirements",
    multiple=True,
    metavar="REQUIREMENT",
    help="Requirement to install, such as tensorflow==2.20.0. Can be repeated.",
)
_file = click.option(
    "--requirements",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Requirements file to install.",
)
_STRATEGIES = click.Choice(["only-if-needed", "eager"])
_STRATEGY_HELP = (
    "Packages whose versions may differ from those in the current environment, in addition to the requirements: "
    "packages whose current versions conflict with the requirements (only-if-needed), or all packages, which are then "
    "installed in their newest suitable versions (eager)."
)


@env.command(short_help="Create an environment.")
@click.argument("name")
@_with
@_file
@click.option(
    "--python",
    "interpreter",
    default="",
    metavar="PATH",
    show_default=False,
    help=options.with_default("Python interpreter of the environment.", "the interpreter that runs this command"),
)
@click.option("--installer", type=click.Choice(["pip", "uv"]), default="pip", help="Program that installs packages.")
@click.option(
    "--inherit",
    is_flag=True,
    help="Install only the requirements, and import all other packages from the current environment.",
)
@click.option("--upgrade-strategy", "upgrade", type=_STRATEGIES, default="only-if-needed", help=_STRATEGY_HELP)
def create(
    name: str,
    requirements: tuple[str, ...],
    file: Path | None,
    interpreter: str,
    installer: Any,
    inherit: bool,
    upgrade: Any,
) -> None:
    """Create the environment NAME with the given requirements, harness and the installed plugins.

    Harness and the plugins are installed from the same sources as in the current environment. Their dependencies and
    those of the requirements have the same versions as in the current environment, unless these versions conflict with
    the requirements. Packages with different versions are listed at the end. The exact versions of all packages are
    saved in a lock file, whose digest is part of the record of each run. If the installation fails or is interrupted,
    no environment is created.

    \b
    Examples:
      harness env create tf220 --with tensorflow==2.20.0
      harness env create old --requirements requirements.txt --python /usr/bin/python3.12
      harness env create numpy1 --with 'numpy<2' --inherit
    """
    from harness.errors import UsageError
    from harness.execute import environments

    wanted = _requirements(requirements, file)
    if not wanted and not interpreter:
        raise UsageError("nothing to install; add --with REQUIREMENT, --requirements FILE or --python PATH")
    made = environments.create(
        name,
        wanted,
        interpreter=interpreter,
        installer=installer,
        inherit=inherit,
        upgrade=upgrade,
        say=lambda text: say(f"{name}: {text}"),
    )
    _created(made)


@env.command(short_help="Recreate an environment with the current version of harness.")
@click.argument("name")
@_with
@_file
@click.option(
    "--upgrade-strategy",
    "upgrade",
    type=_STRATEGIES,
    show_default=False,
    help=options.with_default(_STRATEGY_HELP, "the strategy used to create the environment"),
)
def update(name: str, requirements: tuple[str, ...], file: Path | None, upgrade: Any) -> None:
    """Recreate the environment NAME from its requirements and the additional requirements given here.

    The current versions of harness and the plugins are installed. If the installation fails, the old environment is
    kept.

    \b
    Examples:
      harness env update tf220
      harness env update tf220 --with keras==3.11.0
    """
    from harness.execute import environments

    made = environments.update(
        name, _requirements(requirements, file), upgrade=upgrade, say=lambda text: say(f"{name}: {text}")
    )
    _created(made)


@env.command("list", short_help="List the environments.")
def list_() -> None:
    """List the environments. For each environment, show the Python version, the digest of the lock file and the
    requirements.

    \b
    Examples:
      harness env list
    """
    from tabulate import tabulate

    from harness.errors import UsageError
    from harness.plugins import environments
    from harness.records.locations import environments_dir

    rows = []
    for name in environments.names():
        try:
            found = environments.load(name)
        except UsageError as error:
            say(f"Warning: {error}")
            continue
        about = found.description
        rows.append([name, about.python, found.lock_digest[:8], ", ".join(about.requirements)])
    if rows:
        headers = ["name", "python", "lock", "requirements"]
        echo(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True))
    else:
        echo(f"no environments in {environments_dir()}; create one with `harness env create`")


@env.command("show", short_help="Show the lock file of an environment.")
@click.argument("name")
@options.format_
def show_(name: str, format_: str) -> None:
    """Show the interpreter of the environment NAME, the digest of its lock file, and the lock file itself.

    \b
    Examples:
      harness env show tf220
    """
    from harness.plugins import environments

    found = environments.load(name)
    values = {
        "name": name,
        "directory": str(found.directory),
        "interpreter": found.interpreter,
        "python": found.description.python,
        "requirements": list(found.description.requirements),
        "lock_digest": found.lock_digest,
        "lock": found.lock,
    }

    def render(values: dict[str, Any]) -> str:
        lines = [f"{key}: {value}" for key, value in values.items() if key not in ("requirements", "lock")]
        return "\n".join(
            [*lines, f"requirements: {', '.join(values['requirements'])}", "", values["lock"].rstrip("\n")]
        )

    show(values, format_, render)


@env.command(short_help="Remove an environment.")
@click.argument("name")
def remove(name: str) -> None:
    """Remove the environment NAME. The records of runs in this environment are kept.

    \b
    Examples:
      harness env remove tf220
    """
    from harness.execute import environments

    environments.remove(name)
    echo(f"removed environment {name}")


def _requirements(given: tuple[str, ...], file: Path | None) -> list[str]:
    from harness.records.reading import read_named

    if file is None:
        return list(given)
    lines = read_named(file, 2**20).decode(errors="replace").replace("\\\n", " ").splitlines()
    return [*given, *(line.strip() for line in lines if line.strip() and not line.strip().startswith("#"))]


def _created(made: NamedEnvironment) -> None:
    from tabulate import tabulate

    from harness.plugins.environments import CURRENT, differing_packages

    count = sum(bool(line) and not line.startswith("#") for line in made.lock.splitlines())
    echo(f"environment {made.name}: {made.description.python}, {count} packages, lock {made.lock_digest[:8]}")
    differing = [[package, *versions] for package, versions in differing_packages(["", made.name])]
    if differing:
        headers = ["package", CURRENT, made.name]
        echo(tabulate(differing, headers=headers, tablefmt="simple", disable_numparse=True))
