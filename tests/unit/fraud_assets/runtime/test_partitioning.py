"""Partitions: the source's keys and Dagster's are one list."""

from typing import Any

import dagster as dg
import pytest

from fraud_assets.runtime.partitioning import look_back, partitions_def
from fraud_core.sources.source import Source

WINDOWS = [
    ("daily", "2024-02-20", "2024-04-10"),
    ("weekly", "2024-01-01", "2024-12-30"),
    ("monthly", "2023-11", "2025-04"),
    ("yearly", "2019", "2026"),
]
ZONES = ["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]


def source(cadence: str, first: str, **given: Any) -> Source:
    columns = {"timestamp": {"column": "t"}, "amount": "a", "label": {"column": "l"}}
    values = {"name": "cards", "paths": ["x.csv"], "cadence": cadence, "first": first, "label_delay_days": 7, "columns": columns}
    return Source.model_validate(values | given)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(("cadence", "first", "last"), [*WINDOWS, ("monthly", "2024-11", "2999-12")])
def test_dagster_has_the_sources_keys_and_windows(cadence: str, first: str, last: str, zone: str) -> None:
    declared = source(cadence, first, last=last, timezone=zone)
    keys = partitions_def(declared)
    assert isinstance(keys, dg.TimeWindowPartitionsDefinition)
    assert keys.get_partition_keys() == declared.keys
    first_window = keys.time_window_for_partition_key(first)
    assert first_window.start.astimezone(declared.zone).strftime(declared.cadence.key_format) == first


def test_an_open_source_has_no_keys_before_data_lands() -> None:
    declared = source("monthly", "2024-01")
    keys = partitions_def(declared)
    assert isinstance(keys, dg.DynamicPartitionsDefinition)
    assert keys.name == "cards_partitions"
    with dg.DagsterInstance.ephemeral() as instance:
        assert keys.get_partition_keys(dynamic_partitions_store=instance) == []


@pytest.mark.parametrize("history_days", [0, 1, 30, 90, 400])
@pytest.mark.parametrize(("cadence", "first", "last"), WINDOWS)
def test_dagster_shows_every_raw_partition_that_the_windows_reach_into(
    cadence: str, first: str, last: str, history_days: int
) -> None:
    declared = source(cadence, first, last=last, history_days=history_days)
    mapping, keys = look_back(declared), partitions_def(declared)
    for key in (declared.keys[0], declared.keys[len(declared.keys) // 2], declared.keys[-1]):
        upstream = mapping.get_upstream_mapped_partitions_result_for_partitions(
            keys.subset_with_partition_keys([key]), keys, keys
        )
        shown = set(upstream.partitions_subset.get_partition_keys())
        assert {*declared.preceding(key), key} <= shown <= set(declared.keys)
        assert max(shown) == key


def test_an_open_source_shows_the_raw_partition_itself() -> None:
    assert isinstance(look_back(source("monthly", "2024-01")), dg.IdentityPartitionMapping)
