"""Small installations that `fraud pipeline` built: once a session for all workers, and copied for each test."""

import fcntl
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fraud_assets.installation import Installation
from fraud_cli.main import main
from fraud_core.settings import Settings
from tests.simulated import COLUMNS
from tests.stores import copy_installation, store_settings

# Seven months of 300 cardholders; in the last one all prices are three times as high, and the gate rejects it.
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
cardholders = 300
merchants = 200
fraud_rate = 0.02
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
class Finished:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object on the last line of standard output."""
        document = json.loads(self.out.splitlines()[-1])
        assert isinstance(document, dict)
        return document

    @property
    def refusal(self) -> str:
        """The one sentence of a command that was refused."""
        assert self.status == 1
        assert self.out == ""
        assert "Traceback" not in self.err
        last = self.err.splitlines()[-1]
        assert last.startswith("fraud: ")
        return last.removeprefix("fraud: ")


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
        out, err = io.StringIO(), io.StringIO()
        place = ["--home", str(self.home), "--source-config", str(self.source)]
        with (
            self._variables(environment),
            redirect_stdout(out),
            redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            status = main([command, *place, *arguments])
        return Finished(status, out.getvalue(), err.getvalue())

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
        """Every object of the store, by key."""
        store = self.installation().artifacts.store
        return {key: store.get(key) for key in store.list(prefix)}

    def copied(self, folder: Path) -> "Place":
        """The same installation in another folder."""
        copy_installation(self.folder, folder)
        return Place(folder, self.environment)


def _built(shared: Path, name: str, build: Callable[[Path], Place]) -> Place:
    """What the first worker to come builds, and the others wait for."""
    folder = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "environment").exists():
            folder.mkdir()
            (folder / "environment").write_text(json.dumps(build(folder).environment))
    return Place(folder, tuple((key, value) for key, value in json.loads((folder / "environment").read_text())))


def _finished(place: Place, *arguments: str) -> None:
    run = place.fraud("pipeline", *arguments)
    assert run.status == 0, run.err
    (place.folder / "out").write_text(run.out)
    (place.folder / "err").write_text(run.err)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this session see."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def built_trained(shared: Path) -> Place:
    """Six accepted months and their champion. Read it, do not write."""

    def build(folder: Path) -> Place:
        place = Place(folder)
        place.source.write_text(SOURCE)
        _finished(place, "--until", LAST_ACCEPTED)
        return place

    return _built(shared, "trained", build)


@pytest.fixture(scope="session")
def built_rejecting(shared: Path, built_trained: Place) -> Place:
    """The same with fewer analysts, so a second champion, and a seventh month, which the gate rejected. Do not write."""

    def build(folder: Path) -> Place:
        built_trained.copied(folder)
        (folder / "environment").unlink()
        place = Place(folder, (("FRAUD_REVIEW_CAPACITY", "20"),))
        _finished(place)
        return place

    return _built(shared, "rejecting", build)


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
