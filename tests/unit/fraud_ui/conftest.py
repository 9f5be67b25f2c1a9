"""A served model, and where its payments' past would come from."""

from pathlib import Path

import pytest

from fraud_core.features.encoder import Encoder
from fraud_core.features.windows import Reach
from fraud_core.history.lookup import HistoryLookup
from fraud_core.history.open import open_history
from fraud_core.models.follower import LoadedModel, ModelFollower
from fraud_core.settings import Settings
from fraud_core.signing.keys import card_key, signing_key
from fraud_core.storage.directory import DirectoryStore
from tests.conftest import Installation


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory, learned: tuple[bytes, Encoder]) -> Installation:
    """An installation with a champion, which no test changes."""
    settings = Settings(home=tmp_path_factory.mktemp("kept") / "home", _env_file=None)
    installation = Installation(settings, DirectoryStore(Path(settings.store_url)), signing_key(settings), *learned)
    installation.promote(1)
    return installation


@pytest.fixture(scope="session")
def served(kept: Installation) -> LoadedModel:
    """Its champion at work."""
    served = ModelFollower(kept.store, kept.key).poll().served
    assert served is not None
    return served


@pytest.fixture(scope="session")
def lookup(kept: Installation) -> HistoryLookup:
    """An empty history."""
    return HistoryLookup(open_history(kept.settings, Reach.of_days(30, 7)), card_key(kept.settings))
