"""Where the shared data files are: beside the repository. A test that needs one skips where it is missing, except in CI."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_file(name: str) -> Path:
    """Path of a shared file; skips the asking test where it is missing, and fails it where CI=true."""
    path = SHARED / name
    if not path.is_file():
        reason = f"{name} is not in {SHARED.parent.name}/{SHARED.name} beside the repository"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
