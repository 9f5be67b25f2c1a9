"""Small installations that `fraud pipeline` built: once a session for all workers, and copied for each test."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fraud_assets.installation import Installation
from fraud_core.settings import Settings
from tests.commands import Finished, fraud
from tests.few_trees import few_trees
from tests.once import made_once
from tests.simulated import COLUMNS
from tests.stores import copy_installation, store_settings

# Seven months of 120 cardholders; in the last one all prices are three times as high, and the gate rejects it.
SOURCE = (
    """
name = "small"
timezone = "America/New_York"
cadence = "monthly"
first = "2024-01"
last = "2024-07"
label_delay_days = 3
history_days = 7

[simulator]
seed = 5
cardholders = 120
merchants = 100
fraud_rate = 0.03
shift_from = 2024-07-01
amount_factor = 3.0

[split]
holdout_days = 30
validation_days = 25
training_days = 60
"""
    + COLUMNS
)
LAST_ACCEPTED = "2024-06"
ENVIRONMENT = {
    "FRAUD_THREADS": "1",
    "FRAUD_DRIFT_DETECTOR": "scipy",
    "FRAUD_BOOTSTRAP_DRAWS": "100",
    "FRAUD_MIN_HOLDOUT_FRAUDS": "10",
    "FRAUD_PROMOTION_MARGIN": "0.5",
    "FRAUD_PROMOTION_DECLINE": "0.5",
    "FRAUD_DVC_REMOTE": "off",
    "FRAUD_MLFLOW_URL": "off",
}


@dataclass(frozen=True)
class Place:
    """A folder with a source and a home."""

    folder: Path
    environment: tuple[tuple[str, str], ...] = ()  # beside ENVIRONMENT

    @property
    def home(self) -> Path:
        """All state."""
        return self.folder / "home"

    @property
    def source(self) -> Path:
        """The TOML."""
        return self.folder / "small.toml"

    def fraud(self, command: str, *arguments: str, **environment: str) -> Finished:
        """Run a command of `fraud` on this installation, in this process."""
        with self._variables(environment):
            return fraud(command, "--home", str(self.home), "--source-config", str(self.source), *arguments)

    def installation(self, **environment: str) -> Installation:
        """The installation, as the commands see it."""
        with self._variables(environment):
            return Installation.load(Settings(home=self.home, source=self.source, _env_file=None))

    @contextmanager
    def _variables(self, given: dict[str, str]) -> Iterator[None]:
        """Only these of all settings, for a while."""
        store = {f"FRAUD_{name.upper()}": value for name, value in store_settings(self.folder).items()}
        before = dict(os.environ)
        for name in [name for name in os.environ if name.startswith(("FRAUD_", "DAGSTER_"))]:
            del os.environ[name]
        os.environ.update(ENVIRONMENT | store | dict(self.environment) | given)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def stored(self, prefix: str = "") -> dict[str, bytes]:
        """Every object of the store, by key, but its indexes, which say nothing that others do not say."""
        store = self.installation().artifacts.store
        return {key: store.get(key) for key in store.list(prefix) if not key.startswith("index/")}

    def copied(self, folder: Path) -> "Place":
        """The same installation in another folder."""
        copy_installation(self.folder, folder)
        return Place(folder, self.environment)


def _finished(place: Place, *arguments: str) -> None:
    with few_trees():
        run = place.fraud("pipeline", *arguments)
    assert run.status == 0, run.err
    (place.folder / "out").write_text(run.out)
    (place.folder / "err").write_text(run.err)


@pytest.fixture(scope="session")
def built_trained(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Six accepted months and their champion. Read it, do not write."""

    def make(folder: Path) -> None:
        place = Place(folder)
        place.source.write_text(SOURCE)
        _finished(place, "--until", LAST_ACCEPTED)

    return Place(made_once(tmp_path_factory, "six-months", make))


@pytest.fixture(scope="session")
def built_rejecting(tmp_path_factory: pytest.TempPathFactory, built_trained: Place) -> Place:
    """The same with fewer analysts, so a second champion, and a seventh month, which the gate rejected. Do not write."""
    environment = (("FRAUD_REVIEW_CAPACITY", "20"),)

    def make(folder: Path) -> None:
        built_trained.copied(folder)
        _finished(Place(folder, environment))

    return Place(made_once(tmp_path_factory, "seven-months", make), environment)


@pytest.fixture
def empty(tmp_path: Path) -> Place:
    """A source and nothing else."""
    (tmp_path / "small.toml").write_text(SOURCE)
    return Place(tmp_path)


@pytest.fixture
def trained(built_trained: Place, tmp_path: Path) -> Place:
    """A copy of `built_trained`."""
    return built_trained.copied(tmp_path)


@pytest.fixture
def rejecting(built_rejecting: Place, tmp_path: Path) -> Place:
    """A copy of `built_rejecting`."""
    return built_rejecting.copied(tmp_path)
