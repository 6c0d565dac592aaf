"""Rewrites the expected recipes of the text cases: `pytest tests/import --update-import`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-import", action="store_true", help="write what is printed into the cases")
