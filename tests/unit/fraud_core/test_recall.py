"""How far back the store is told to remember."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from fraud_core.history.windows import Reach
from fraud_core.keys import card_key
from fraud_core.payment import EXAMPLE, Transaction
from fraud_core.recall import Recall
from fraud_core.settings import Settings
from fraud_core.stores.history import open_history

PAYMENT = Transaction.model_validate(EXAMPLE)
ZONE = ZoneInfo("UTC")
WIDE = Reach.of_days(90, 180)


@pytest.fixture
def recall(tmp_path: Path) -> Recall:
    settings = Settings(_env_file=None, home=tmp_path)
    return Recall(open_history(settings, WIDE), card_key(settings))


def test_the_store_remembers_for_the_widest_model_and_widely_before_there_is_one(recall: Recall) -> None:
    assert recall.store.reach == WIDE
    told = []
    for days in ((30, 7), (30, 60), (30, 7)):
        recall.past([PAYMENT], Reach.of_days(*days), ZONE)
        told.append(recall.store.reach)
    assert told == [Reach.of_days(30, 7), Reach.of_days(30, 60), Reach.of_days(30, 60)]
    recall.past([PAYMENT], Reach.of_days(7, 7, newest_events=20_000), ZONE)
    assert recall.store.reach == Reach.of_days(30, 60, newest_events=20_000)
