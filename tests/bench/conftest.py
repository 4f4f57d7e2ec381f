"""What ``pytest tests/bench`` runs: the methods, on the networks that ``--models`` names."""

from __future__ import annotations

import pytest

collect_ignore = ["test_cp_vs_tensorly.py"]  # a comparison of minutes for each case: only where it is named


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--models", default="charnet", help="networks of tasks, such as charnet,vgg11_narrow")
