"""How far back the store is told to remember."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from fraud_core.features.catalogue import STANDARD_PLAN
from fraud_core.features.windows import Reach
from fraud_core.history.lookup import HistoryLookup
from fraud_core.history.open import open_history
from fraud_core.settings import Settings
from fraud_core.signing.keys import card_key
from fraud_core.transactions.transaction import EXAMPLE, Transaction

PAYMENT = Transaction.model_validate(EXAMPLE)
ZONE = ZoneInfo("UTC")
WIDE = Reach.of_days(90, 180)


@pytest.fixture
def lookup(tmp_path: Path) -> HistoryLookup:
    settings = Settings(_env_file=None, home=tmp_path)
    return HistoryLookup(open_history(settings, WIDE), card_key(settings))


def test_the_store_remembers_for_the_widest_model_and_widely_before_there_is_one(lookup: HistoryLookup) -> None:
    assert lookup.store.reach == WIDE
    told = []
    for days in ((30, 7), (30, 60), (30, 7)):
        lookup.past([PAYMENT], STANDARD_PLAN, Reach.of_days(*days), ZONE)
        told.append(lookup.store.reach)
    assert told == [Reach.of_days(30, 7), Reach.of_days(30, 60), Reach.of_days(30, 60)]
    lookup.past([PAYMENT], STANDARD_PLAN, Reach.of_days(7, 7, newest_events=20_000), ZONE)
    assert lookup.store.reach == Reach.of_days(30, 60, newest_events=20_000)
