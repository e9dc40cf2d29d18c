"""Bounds on the change in a metric, such as ``--fail-on train_samples_per_s:-5%``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct

from harness.analysis.compare.judge import Compared, Comparison
from harness.errors import UsageError


class Gate(Struct, frozen=True, kw_only=True):
    """A bound on the change in one metric."""

    text: str
    """The bound as written by the user."""
    metric: str
    bound: float
    """Lower bound on the change if negative, upper bound if positive; a fraction of the base if `relative`."""
    relative: bool

    def broken_by(self, comparison: Comparison) -> bool:
        """Return True if the whole confidence interval for the change is beyond the bound."""
        if comparison.low is None or comparison.high is None:
            return False
        return comparison.high < self.bound if self.bound < 0 else comparison.low > self.bound


def parse(texts: Iterable[str]) -> list[Gate]:
    """Parse bounds written as ``METRIC:-5%``, ``METRIC:+10%`` or ``METRIC:-0.01``.

    Raises `harness.UsageError` for any other string.
    """
    gates = []
    for text in texts:
        metric, colon, bound = text.rpartition(":")
        relative = bound.endswith("%")
        try:
            value = float(bound.removesuffix("%"))
        except ValueError:
            value = math.nan
        if not (metric and colon and math.isfinite(value) and value):
            raise UsageError(
                f"cannot read the bound {text!r}; write METRIC:-5% (relative to the base) or METRIC:-0.01 (a "
                "difference), with + instead of - if lower values are better"
            )
        gates.append(Gate(text=text, metric=metric, bound=value / 100 if relative else value, relative=relative))
    return gates


def broken(gates: Sequence[Gate], compared: Sequence[Compared]) -> list[tuple[Gate, Compared, Comparison]]:
    """Return each broken bound with its comparison. Raises `harness.UsageError` for a bound with the wrong unit."""
    breaches = []
    for gate in gates:
        for pair in compared:
            for comparison in pair.comparisons:
                if comparison.metric != gate.metric:
                    continue
                if comparison.relative != gate.relative:
                    kind, unit = (
                        ("relative", "a percentage, such as -5%")
                        if comparison.relative
                        else ("differences", "a number, such as -0.01")
                    )
                    raise UsageError(f"{gate.text}: changes in {gate.metric} are {kind}; write the bound as {unit}")
                if gate.broken_by(comparison):
                    breaches.append((gate, pair, comparison))
    return breaches
