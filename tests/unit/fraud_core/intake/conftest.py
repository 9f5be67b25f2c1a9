"""The installation that the tests of intake work with."""

from pathlib import Path

import pytest

from fraud_core.storage.directory import DirectoryStore
from tests.unit.fraud_core.intake.shop import Intake


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    """An empty folder and an empty store."""
    folder = tmp_path / "files"
    folder.mkdir()
    return Intake(folder, DirectoryStore(tmp_path / "store"))
