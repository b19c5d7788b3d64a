"""Folders for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.grounds import Grounds


@pytest.fixture
def grounds(tmp_path: Path) -> Grounds:
    return Grounds(tmp_path).make()
