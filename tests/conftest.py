"""A small installation that serves: a store with real bundles, trained once a session."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import treelite
from sklearn.ensemble import HistGradientBoostingClassifier

from fraud_core.features import catalogue
from fraud_core.features.encoder import MISSING_CATEGORY, ColumnEncoding, Encoder
from fraud_core.fields.declared import NOTHING, Declared
from fraud_core.models.bundle import Bundle, make_bundle, write_bundle
from fraud_core.models.manifest import Calibration, Lineage, Thresholds
from fraud_core.models.registry import point_at
from fraud_core.settings import Settings
from fraud_core.signing.keys import Key, signing_key
from fraud_core.storage.heads import Heads
from fraud_core.storage.objects import ObjectStore
from fraud_core.storage.open import open_store
from tests.api_server import Servers
from tests.servers.s3_server import S3Server
from tests.stores import IN_S3, store_settings

CATEGORIES = ("gas_transport", "grocery_pos", "misc_net", "personal_care", "shopping_net", "travel")
ZONE = "America/New_York"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--store", choices=["directory", "s3"], default="directory", help="where the tests' installations keep objects"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Under --store=s3, one server for all workers of the session, which find it by the AWS variables."""
    if config.getoption("--store") == "s3" and not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="fraud-tests-s3-")
        config.add_cleanup(folder.cleanup)
        server = S3Server(Path(folder.name))
        config.add_cleanup(server.stop)
        os.environ.update(server.environment | {IN_S3: "yes"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The homes that the tests of the pipeline share are made by their first file; the others come once they are there."""
    pipeline = [item for item in items if item.path.parent.name == "pipeline"]
    first = [item for item in pipeline if item.path == pipeline[0].path]
    waiting = [item for item in pipeline if item.path != pipeline[0].path]
    shared = set(pipeline)
    others = [item for item in items if item not in shared]
    quick = [item for item in others if "unit" in item.path.parts]
    items[:] = [*first, *(item for item in others if "unit" not in item.path.parts), *waiting, *quick]


def transactions(count: int, seed: int = 7) -> dict[str, np.ndarray[Any, Any]]:
    """Random transactions as `features.compute` takes them, with missing values."""
    rng = np.random.default_rng(seed)
    begin = int(datetime(2019, 1, 1, tzinfo=UTC).timestamp())
    latitude, longitude = rng.uniform(25, 48, count), rng.uniform(-122, -70, count)
    category = rng.choice(np.array(CATEGORIES, dtype=object), count)
    category[rng.random(count) < 0.02] = None
    population = rng.integers(100, 2_000_000, count).astype(np.float64)
    population[rng.random(count) < 0.02] = np.nan
    return {
        "timestamp": (begin + rng.integers(0, 2 * 365 * 86_400, count)) * 1_000_000,
        "amount_cents": np.round(100 * rng.lognormal(3.5, 1.2, count)).astype(np.int64),
        "birth_date": np.datetime64("1935-01-01") + rng.integers(0, 25_000, count).astype("timedelta64[D]"),
        "home_latitude": np.round(latitude, 4),
        "home_longitude": np.round(longitude, 4),
        "merchant_latitude": np.round(latitude + rng.uniform(-1, 1, count), 6),
        "merchant_longitude": np.round(longitude + rng.uniform(-1, 1, count), 6),
        "city_population": population,
        "category": category,
    }


def trained(seed: int = 7, rows: int = 4_000, trees: int = 40) -> tuple[bytes, Encoder]:
    """A boosted model of random frauds (large amounts, at night, on the net), and its encoder."""
    rng = np.random.default_rng(seed)
    inputs = transactions(rows, seed)
    columns = catalogue.compute(catalogue.PLAIN, inputs, ZoneInfo(ZONE))
    encoder = Encoder(
        columns=tuple(
            ColumnEncoding(
                feature=feature.name,
                categories={name: float(at) for at, name in enumerate((MISSING_CATEGORY, *CATEGORIES))},
                unseen=3.0,
            )
            if feature.is_category
            else ColumnEncoding(feature=feature.name, missing=float(np.nanmedian(columns[feature.name])))
            for feature in catalogue.PLAIN
        )
    )
    online = np.array([name in {"misc_net", "shopping_net"} for name in inputs["category"]])
    risk = columns["log_amount"] - 5 + columns["night"] + online + rng.normal(scale=0.5, size=rows)
    model = HistGradientBoostingClassifier(max_iter=trees, max_leaf_nodes=16, early_stopping=False, random_state=seed)
    model.fit(encoder.matrix(columns), risk > 0)
    return treelite.sklearn.import_model(model).serialize_bytes(), encoder


@dataclass
class Installation:
    """A home with a store, and bundles to promote. Bundles differ in their calibration alone, so their scores tell them apart."""

    settings: Settings
    store: ObjectStore
    key: Key
    model: bytes
    encoder: Encoder
    changes: int = field(default=0)

    def bundle(self, number: int, declared: Declared = NOTHING) -> Bundle:
        """The bundle of this number, of a source that declares this; it learned from the standard fields."""
        return make_bundle(
            declared=declared,
            source="test",
            timezone=ZONE,
            feature_version=catalogue.VERSION,
            kind="boosting",
            model=self.model,
            encoder=self.encoder,
            calibration=Calibration(slope=1.0, intercept=-number / 8),
            thresholds=Thresholds(review=0.4, decline=0.8),
            lineage=Lineage(
                training_set="test",
                partitions=(("2019-01", "c0ffee", "accepted"),),
                card_key_id="test",
                libraries={"treelite": "4"},
            ),
        )

    def promote(self, number: int, heads: Heads | None = None, declared: Declared = NOTHING) -> str:
        """Write a bundle and make it champion; returns its version."""
        bundle = self.bundle(number, declared)
        self.write(bundle)
        return self.point(bundle.version, heads)

    def write(self, bundle: Bundle) -> None:
        """Write a bundle."""
        write_bundle(self.store, bundle, self.key)

    def manifest_sha256(self, version: str) -> str:
        """Hash of a manifest as it is in the store."""
        return hashlib.sha256(self.store.get(f"models/{version}/manifest.json")).hexdigest()

    def point(self, version: str, heads: Heads | None = None) -> str:
        """Make a version that is there the champion."""
        point_at(
            self.store, version, self.key, how="promotion", who="test", at=datetime.now(UTC), reason="for a test", heads=heads
        )
        return version


def new_installation(folder: Path, learned: tuple[bytes, Encoder], **options: Any) -> Installation:
    """An installation without a champion, in a folder."""
    few: dict[str, Any] = {"home": folder / "home", "poll_seconds": 0.05, "api_drain_seconds": 0.2}
    settings = Settings(**few, **store_settings(folder), **options, _env_file=None)
    return Installation(settings, open_store(settings.store_url, folder / "cache"), signing_key(settings), *learned)


@pytest.fixture(scope="session")
def learned() -> tuple[bytes, Encoder]:
    """A model's bytes and its encoder."""
    return trained()


@pytest.fixture
def installation(tmp_path: Path, learned: tuple[bytes, Encoder]) -> Installation:
    """An installation without a champion."""
    return new_installation(tmp_path, learned)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Starts servers, and ends them with the test."""
    started = Servers(tmp_path)
    yield started
    started.end()


@pytest.fixture(scope="session")
def made_transactions() -> Callable[[int], list[dict[str, Any]]]:
    """Random transactions as callers send them."""

    def make(count: int) -> list[dict[str, Any]]:
        arrays = transactions(count, seed=99)
        sent = []
        for at in range(count):
            row = {
                "transaction_id": f"t{at}",
                "timestamp": str(np.datetime64(int(arrays["timestamp"][at]), "us")) + "Z",
                "amount": f"{arrays['amount_cents'][at] // 100}.{arrays['amount_cents'][at] % 100:02d}",
                "card": f"token-{at % 17}",
                "merchant": "Kirlin and Sons",
                "birth_date": str(arrays["birth_date"][at]),
                "category": arrays["category"][at],
            }
            for name in ("home_latitude", "home_longitude", "merchant_latitude", "merchant_longitude"):
                row[name] = float(arrays[name][at])
            population = arrays["city_population"][at]
            row["city_population"] = None if np.isnan(population) else int(population)
            sent.append({name: value for name, value in row.items() if value is not None})
        return sent

    return make


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what passed where FRAUD_TESTS_PASSED names a file, so that `tests/mended.py` can see that promises were tested."""
    passed = os.environ.get("FRAUD_TESTS_PASSED")
    if passed and report.when == "call" and report.passed and "PYTEST_XDIST_WORKER" not in os.environ:
        with Path(passed).open("a") as noted:
            noted.write(f"{report.nodeid.split('[')[0]}\n")
