"""What costs much to make and is only read: made once a session, by the first worker to come."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(session: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder of this name that all workers of the session see; the first to come makes it, and the others wait."""
    own = session.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, done = shared / name, shared / f"{name}.done"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
