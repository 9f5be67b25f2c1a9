"""Reference partitions of the gate: the last accepted ones, and those that do not move on with them."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta

import polars as pl

from fraud_core.features import catalogue
from fraud_core.gate.verdict import NATURAL_PARTITIONS, FormerSelf, LongReference, Past, Verdict
from fraud_core.sources.source import Drift

CONFIRMED = 2  # so many confirmed states are at hand: a Christmas that was accepted must not make January a stranger
SEASON = timedelta(days=364)  # the same weekday of a year ago ...
SEASON_AROUND = timedelta(days=3)  # ... and so many days around it: a week of days, one week, one month
Load = Callable[[Verdict], pl.DataFrame]


def select_past(
    partition: str,
    earlier: Sequence[Verdict],
    others: Sequence[Verdict],
    former: tuple[FormerSelf, pl.DataFrame] | None,
    load: Load,
    settings: Drift,
) -> Past:
    """What a partition is judged against.

    Args:
        partition: the one to be judged.
        earlier: accepted verdicts that hold for their partitions' present content, before it, oldest first.
        others: accepted verdicts of other partitions, before or after it, whatever they hold now; at least the first ones.
        former: what the partition held when it was last accepted.
        load: reads the sample of a verdict.
        settings: the source's.
    """
    comparable = [verdict for verdict in others if verdict.feature_version == catalogue.VERSION]
    first = comparable[: settings.reference_partitions]
    return Past(
        verdicts=tuple(earlier[-NATURAL_PARTITIONS:]),
        references=tuple(earlier[-settings.reference_partitions :]),
        samples=tuple(load(verdict) for verdict in earlier[-settings.reference_partitions :]),
        steps=tuple(_steps(partition, earlier, load, settings)),
        long=tuple(_long(partition, earlier, load)),
        rest=LongReference("rest", tuple(first), tuple(load(verdict) for verdict in first)) if first else None,
        former=former if former is not None and former[0].feature_version == catalogue.VERSION else None,
        has_begun=any(verdict.kind == "judged" for verdict in comparable),
    )


def _steps(partition: str, earlier: Sequence[Verdict], load: Load, settings: Drift) -> list[LongReference]:
    """What a person accepted last, while it is among the last partitions, which are a mixture of before and after; and the steps
    of a season ago: a Christmas that comes back as it was. What was like its own past a season ago is none: the world may have
    gone on since, and what brings its old state back is a stranger.
    """
    confirmed = [verdict for verdict in earlier[-settings.reference_partitions :] if verdict.overruled_by is not None]
    season = [verdict for verdict in _season(partition, earlier) if verdict.is_step]
    groups = [("confirmed", confirmed[-1:]), ("season", season)]
    return [LongReference(kind, tuple(group), tuple(load(verdict) for verdict in group)) for kind, group in groups if group]  # type: ignore[arg-type]


def _season(partition: str, earlier: Sequence[Verdict]) -> list[Verdict]:
    day = _begin(partition) - SEASON
    return [verdict for verdict in earlier if abs(_begin(verdict.partition) - day) <= SEASON_AROUND]


def _long(partition: str, earlier: Sequence[Verdict], load: Load) -> list[LongReference]:
    """What a person confirmed last, the bootstrap counting as the first; and what was accepted a season ago."""
    confirmed = [("confirmed", [verdict]) for verdict in earlier if verdict.overruled_by is not None]
    bootstrap = [verdict for verdict in earlier if verdict.kind == "bootstrap"]
    groups = ([("bootstrap", bootstrap)] if bootstrap else []) + confirmed
    season = _season(partition, earlier)
    chosen = [*groups[-CONFIRMED:], *([("season", season)] if season else [])]
    return [LongReference(kind, tuple(group), tuple(load(verdict) for verdict in group)) for kind, group in chosen]  # type: ignore[arg-type]


def _begin(key: str) -> date:
    """First day of a partition of any cadence: 2024-02-05, 2024-02, 2024."""
    parts = [int(part) for part in key.split("-")]
    return date(*[*parts, 1, 1][:3])
