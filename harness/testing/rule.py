"""`Rule`, a requirement on objects provided by plugins, and `Finding`, the result of checking a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from msgspec import Struct

from harness.errors import HarnessError
from harness.plugins.failures import described_with_place, place, unwritten

T = TypeVar("T")


class Finding(Struct, frozen=True, kw_only=True):
    """The result of checking one rule for one object provided by a plugin."""

    rule: str
    """Name of the rule, such as ``dataset-loads``."""
    subject: str
    """Kind and name of the object, such as ``dataset my-reviews``."""
    passed: bool | None
    """True if the object follows the rule, False if it violates the rule, or None if the rule cannot be checked on this
    machine."""
    seen: str = ""
    """Description of the violation or the reason why the rule was not checked. The string is empty if the object
    follows the rule.
    """
    fix: str = ""
    """Suggestion for fixing the violation. The string is empty if there is no suggestion or if `seen` already contains
    a suggestion."""

    def __str__(self) -> str:
        """Return the finding as text, with the suggested fix on a second line."""
        state = {True: "ok", False: "BROKEN", None: "not checked"}[self.passed]
        text = f"{state:<11} {self.rule} ({self.subject})"
        text += f": {self.seen}" if self.seen else ""
        return text + (f"\n            fix: {self.fix}" if self.passed is False and self.fix else "")


class Broken(Exception):  # noqa: N818  # a finding, not an error
    """Exception that a rule's check raises if the rule is broken. The message describes the violation."""


class NotChecked(Exception):  # noqa: N818  # a finding, not an error
    """Exception that a rule's check raises if the rule cannot be checked. The message gives the reason."""


def _described(error: Exception, fix: str) -> tuple[str, str]:
    """Describe an exception that a rule's check did not expect, and suggest a fix.

    The suggestion of a rule applies only to violations of that rule. For an error that the core raised deliberately,
    the suggestion would be misleading, and the error message already states what to do.
    """
    if missing_methods := unwritten(error):
        return described_with_place(error), f"write {missing_methods}"
    if isinstance(error, HarnessError):
        return described_with_place(error), ""
    return described_with_place(error), "fix this line or the values that it uses" if place(error) else fix


@dataclass(frozen=True)
class Rule(Generic[T]):
    """A requirement on objects of one kind.

    `check` is called with the object. `check` raises `Broken` if the object violates the rule, and `NotChecked` if the
    rule cannot be checked. Any other exception is an error in the plugin's code and also counts as a violation.
    """

    name: str
    says: str
    """Requirement as a sentence."""
    fix: str
    """Suggestion for fixing a violation."""
    check: Callable[[T], None]

    def apply(self, subject: str, target: T) -> Finding:
        """Check the rule for an object, and return a finding. `subject` is the kind and name of the object."""
        try:
            self.check(target)
        except NotChecked as reason:
            return Finding(rule=self.name, subject=subject, passed=None, seen=str(reason))
        except Broken as violation:
            return Finding(rule=self.name, subject=subject, passed=False, seen=str(violation), fix=self.fix)
        except Exception as error:
            description, fix = _described(error, self.fix)
            return Finding(rule=self.name, subject=subject, passed=False, seen=description, fix=fix)
        return Finding(rule=self.name, subject=subject, passed=True)
