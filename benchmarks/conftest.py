from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--framework", default="torch", help="torch or tensorflow; one a process")
    parser.addoption("--pairs", type=int, default=12, help="pairs of rounds, bare and harness in turn")
