"""Tests of the order of names."""

from __future__ import annotations

import pytest

from harness.data.names import in_order


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["10", "2", "1", "2", "12"], ["1", "2", "10", "12"]),
        (["-1", "-10", "5"], ["-10", "-1", "5"]),
        (["10.0", "9.0", "", "100"], ["", "9.0", "10.0", "100"]),
        (["7", "07", "10"], ["07", "7", "10"]),
        (["10", "2", "b"], ["10", "2", "b"]),
        (["10.5", "9.5"], ["10.5", "9.5"]),
        (["²", "10", "9"], ["10", "9", "²"]),
        ([], []),
    ],
)
def test_in_order_sorts_whole_numbers_by_value_and_other_names_alphabetically(
    names: list[str], ordered: list[str]
) -> None:
    assert in_order(names) == tuple(ordered)
