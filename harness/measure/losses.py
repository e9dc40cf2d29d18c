"""Validation of the losses returned by a session."""

from __future__ import annotations

from typing import Any

from harness.errors import PluginError
from harness.interfaces import Session


def fetched_loss(session: Session, handle: Any) -> float:
    """Return the loss of a training step, given the result of `Session.train_step`.

    Raises `harness.PluginError` if the session does not return a number.
    """
    if handle is None:
        raise PluginError("Session.train_step returned None; it must return a handle to the mean loss of the batch")
    fetched = session.fetch(handle)
    try:
        return float(fetched)
    except (TypeError, ValueError):
        shape = getattr(fetched, "shape", None)
        found = type(fetched).__name__ if shape is None else f"an array of shape {shape}"
        raise PluginError(
            f"Session.fetch returned {found} for the result of Session.train_step; it must return the mean loss of the "
            "batch as a number"
        ) from None
