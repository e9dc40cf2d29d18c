from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--framework", default="torch", help="torch or tensorflow, one per process")
    parser.addoption("--pairs", type=int, default=12, help="number of rounds")
    parser.addoption("--threads", type=int, default=None, help="number of threads used by the framework")
    parser.addoption("--clock", choices=["wall", "cpu"], default="wall", help="measure wall time or CPU time")
