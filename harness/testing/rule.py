"""`Rule`: something that must hold of what a plugin brings; `Finding`: what was seen when it was looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from msgspec import Struct

from harness.plugins.failures import described_with_place, place, unwritten

T = TypeVar("T")


class Finding(Struct, frozen=True, kw_only=True):
    """One rule, looked at for one thing that a plugin brings."""

    rule: str
    subject: str
    """Kind and name: ``dataset my-reviews``."""
    passed: bool | None
    """None: it could not be looked at here; `seen` says why."""
    seen: str = ""
    fix: str = ""

    def __str__(self) -> str:
        state = {True: "ok", False: "BROKEN", None: "not checked"}[self.passed]
        told = f"{state:<11} {self.rule} ({self.subject})"
        told += f": {self.seen}" if self.seen else ""
        return told + (f"\n            fix: {self.fix}" if self.passed is False else "")


class Broken(Exception):  # noqa: N818  # a finding, not an error
    """What a rule's check raises with what it saw."""


class NotChecked(Exception):  # noqa: N818
    """What a rule's check raises with why it cannot look."""


def _told(error: Exception, fix: str) -> tuple[str, str]:
    """What an exception of the thing's own says, with its place in the author's code; and what to do."""
    if missing_methods := unwritten(error):
        return described_with_place(error), f"write {missing_methods}"
    return described_with_place(error), "correct that line, or what it is given" if place(error) else fix


@dataclass(frozen=True)
class Rule(Generic[T]):
    """`check` is called with the thing and raises `Broken` or `NotChecked`; whatever else it raises breaks the rule
    too, as the thing's own failure."""

    name: str
    says: str
    fix: str
    check: Callable[[T], None]

    def look(self, subject: str, thing: T) -> Finding:
        try:
            self.check(thing)
        except NotChecked as reason:
            return Finding(rule=self.name, subject=subject, passed=None, seen=str(reason))
        except Broken as seen:
            return Finding(rule=self.name, subject=subject, passed=False, seen=str(seen), fix=self.fix)
        except Exception as error:
            told, fix = _told(error, self.fix)
            return Finding(rule=self.name, subject=subject, passed=False, seen=told, fix=fix)
        return Finding(rule=self.name, subject=subject, passed=True)
