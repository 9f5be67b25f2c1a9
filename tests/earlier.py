"""Installations as earlier versions left them, for the tests of upgrades (tests/fixtures/make.py made them)."""

import json
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent / "fixtures"
VERSIONS = tuple(sorted(made.parent.name for made in FIXTURES.glob("*/made.json")))


@dataclass
class EarlierInstallation:
    """What a version left, unpacked into a folder: its home, the TOML beside it, and what was answered then."""

    version: str
    folder: Path

    def __post_init__(self) -> None:
        with tarfile.open(FIXTURES / self.version / "home.tar.xz") as archive:
            archive.extractall(self.folder, filter="data")

    @cached_property
    def made(self) -> dict[str, Any]:
        """How it was made, and the answers that were given."""
        made: dict[str, Any] = json.loads((FIXTURES / self.version / "made.json").read_text())
        return made

    @property
    def dump(self) -> str:
        """The same decisions, labels, users and claims as SQL for PostgreSQL."""
        return (FIXTURES / self.version / "database.sql").read_text()

    @property
    def home(self) -> Path:
        """Holds all state."""
        return self.folder / "home"

    @property
    def settings(self) -> dict[str, Any]:
        """By which it was made."""
        given = {"home": self.home, "source": self.folder / "short.toml", "dvc_remote": "off", "mlflow_url": "off"}
        return given | self.made["settings"]

    @property
    def variables(self) -> dict[str, str]:
        """The same as environment variables."""
        return {f"FRAUD_{name.upper()}": str(value) for name, value in self.settings.items()}
