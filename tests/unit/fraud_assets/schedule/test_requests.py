"""What sensors cost the store: as many requests for many partitions as for few, where nothing has changed."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fraud_assets.schedule.proposals import Proposal, next_fraud_rates, next_training
from fraud_assets.schedule.sensors import next_partition
from fraud_core import gate
from fraud_core.sources import partitions
from tests.counting_store import CountingStore
from tests.unit.fraud_assets.conftest import made_rows

MOST = 10  # requests of a sensor
Ask = Callable[..., Proposal]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as made:
        yield made


def filled(new_bench: Any, months: int) -> tuple[Any, CountingStore]:
    bench, key = new_bench(), "2022-01"
    bench.installation.rules(record=True)
    for _ in range(months):
        bench.put(key, made_rows(key, bench.installation.source, rows=5))
        key = partitions.next_key(key, bench.installation.source.cadence)
    store = bench.installation.artifacts.store = CountingStore(bench.installation.artifacts.store)
    return bench.installation, store


def test_a_tick_of_the_sensors_asks_the_store_no_more_often_for_many_partitions_than_for_few(
    new_bench: Any, instance: dg.DagsterInstance
) -> None:
    costs: dict[int, list[int]] = {}
    for months in (2, 14):
        installation, store = filled(new_bench, months)
        now, cursor = datetime.now(UTC), None
        for _ in range(2):  # the first tick reads everything in its own place
            costs[months] = []
            for ask in (next_partition, next_training, next_fraud_rates):
                step = ask(installation, instance, now, *([cursor] if ask is next_fraud_rates else []))
                cursor = step.cursor or cursor
                costs[months].append(store.take())
    assert costs[2] == costs[14]
    assert max(costs[14]) <= MOST


def test_what_has_changed_is_seen_at_the_next_tick(new_bench: Any, instance: dg.DagsterInstance) -> None:
    installation, _ = filled(new_bench, 14)
    artifacts, now = installation.artifacts, datetime.now(UTC)

    def accepted() -> str:
        return next_training(installation, instance, now).why

    assert "accepts 14 partitions" in accepted()
    content = installation.transformed()["2022-05"].content
    decide = {"who": "ann", "reason": "the wrong file", "now": now, "heads": installation.heads}
    gate.refuse(artifacts.store, artifacts.signing_key, "2022-05", content, **decide)
    assert "accepts 13 partitions" in accepted()
    gate.accept(artifacts.store, artifacts.signing_key, "2022-05", content, **decide)
    assert "accepts 14 partitions" in accepted()
