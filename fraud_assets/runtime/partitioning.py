"""Dagster partitions of a source."""

from math import ceil

import dagster as dg

from fraud_core.sources import partitions
from fraud_core.sources.partitions import Cadence
from fraud_core.sources.source import Source

SHORTEST_DAYS = {Cadence.DAILY: 1, Cadence.WEEKLY: 7, Cadence.MONTHLY: 28, Cadence.YEARLY: 365}


def partitions_def(source: Source) -> dg.PartitionsDefinition[str]:
    """Windows of time from first to last; for an open source, keys that are added as the data appears."""
    if source.is_open:
        return dg.DynamicPartitionsDefinition(name=f"{source.name}_partitions")
    start, _ = partitions.window(source.first, source.cadence, source.zone)
    _, end = partitions.window(source.last, source.cadence, source.zone)
    return dg.TimeWindowPartitionsDefinition(
        start=start.astimezone(source.zone),
        end=end.astimezone(source.zone),
        fmt=source.cadence.key_format,
        cron_schedule=source.cadence.cron,
        timezone=source.timezone,
        end_offset=len(source.keys),  # Dagster lists a window only when it is over; a source says itself what it has
    )


def look_back(source: Source) -> dg.PartitionMapping:
    """A transformed partition depends on its raw partition and on those its windows reach into."""
    if source.is_open:
        return dg.IdentityPartitionMapping()
    count = ceil(source.lookback_days / SHORTEST_DAYS[source.cadence])
    return dg.TimeWindowPartitionMapping(start_offset=-count, allow_nonexistent_upstream_partitions=True)


PARTITION_TAG = "dagster/partition"


def own_partition(context: dg.AssetExecutionContext) -> str | None:
    """The partition of the asking run, if it has one: the gate refuses the run unless it is accepted."""
    tag = context.run.tags.get(PARTITION_TAG)
    return str(tag) if tag else None
