"""The long proofs. `make proof` runs them at full size and writes docs/proofs/*.json; `make rehearse` runs them reduced."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Record = Callable[[str, dict[str, Any]], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="full size; the figures are written to docs/proofs/")


def pipeline(source: Path, home: Path, *options: str, store: str = "") -> dict[str, Any]:
    """Run `fraud pipeline` on a source's TOML from scratch; the JSON object of its last line."""
    command = [sys.executable, "-m", "fraud_cli.main", "pipeline", "--source-config", str(source), "--home", str(home), *options]
    environment = os.environ | {"FRAUD_STORE": store, "FRAUD_HOME": str(home)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the proof runs at full size."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def record(full: bool) -> Record:
    """Write a proof's figures with the commit and the machine they were measured on; only at full size."""

    def write(name: str, figures: dict[str, Any]) -> None:
        print(json.dumps(figures))
        if not full:
            return
        document = {
            "commit": _git("rev-parse", "HEAD"),
            "changed_since": bool(_git("status", "--porcelain", "--", ".", ":!docs/proofs")),
            "machine": _machine(),
        }
        path = ROOT / "docs" / "proofs" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document | figures, indent=1) + "\n", encoding="utf-8")

    return write


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
