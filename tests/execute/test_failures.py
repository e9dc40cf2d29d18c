"""Tests of failures that describe exceptions."""

from __future__ import annotations

from harness.errors import BadResultError
from harness.execute.failures import from_exception


def caught(error: Exception) -> Exception:
    try:
        raise error
    except Exception as found:
        return found


def test_unexpected_exception_ends_with_its_place_in_the_code() -> None:
    failure = from_exception(caught(KeyError("pixels")))
    assert failure.message.startswith("KeyError: 'pixels' (test_failures.py, line ")
    assert failure.message.endswith(", in caught)")


def test_place_follows_the_first_line_of_a_long_message() -> None:
    failure = from_exception(caught(ValueError("x" * 1000 + "\nmore")))
    assert failure.message.startswith("ValueError: xxx")
    assert "more" not in failure.message
    assert failure.message.endswith(", in caught)")


def test_deliberate_error_has_no_place() -> None:
    assert from_exception(caught(BadResultError("the loss is nan"))).message == "the loss is nan"
