"""Output that several commands share."""

from __future__ import annotations

import click


def print_json(value: object) -> None:
    """Print a record, or a list of them, as indented JSON."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())


def counted(count: int, noun: str) -> str:
    """Return ``1 run``, ``2 runs``."""
    return f"{count} {noun}{'s' * (count != 1)}"
