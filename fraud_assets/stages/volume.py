"""`row_count` and `fraud_rate` on transformed: findings that block nothing. The second is repeated as labels mature."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import dagster as dg
import polars as pl

from fraud_assets.installation import Installation
from fraud_assets.runtime.evaluations import log_evaluation
from fraud_assets.runtime.partitioning import partitions_def
from fraud_core import gate
from fraud_core.errors import IntegrityError
from fraud_core.sources import partitions
from fraud_core.storage.artifacts import Pointer
from fraud_core.training_data.volume import CheckResult, Count, judge_fraud_rate, judge_rows, mature_until

ASSET = dg.AssetKey("transformed")
FRAUD_RATE = dg.AssetCheckKey(ASSET, "fraud_rate")


class RepeatConfig(dg.Config):
    """The partitions whose labels have matured."""

    partitions: list[str]


def build(installation: Installation) -> list[dg.AssetChecksDefinition]:
    """The checks."""
    keys = partitions_def(installation.source)

    @dg.asset_check(asset=ASSET, partitions_def=keys)
    def row_count(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        """Are there about as many rows a day as there should be ([quality] of the source's TOML) or as there were before?"""
        opinion = row_count_of(installation, context.partition_key)
        return _result(opinion, {"rows_per_day": opinion.value})

    @dg.asset_check(asset=ASSET, partitions_def=keys)
    def fraud_rate(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        """Is the share of fraud, among rows whose labels are mature, as in the accepted partitions before?"""
        opinion, count = fraud_rates_of(installation, [context.partition_key])[context.partition_key]
        return _result(opinion, _rate_metadata(opinion, count))

    return [row_count, fraud_rate]


def build_jobs(installation: Installation) -> list[dg.JobDefinition]:
    """The job that repeats `fraud_rate`, in one run for all partitions whose labels have matured."""

    @dg.op
    def judge_again(context: dg.OpExecutionContext, config: RepeatConfig) -> None:
        for key, (opinion, count) in fraud_rates_of(installation, config.partitions).items():
            log_evaluation(
                context,
                FRAUD_RATE,
                key,
                passed=opinion.usual,
                severity=dg.AssetCheckSeverity.WARN,
                description=opinion.message,
                metadata=_shown(opinion, _rate_metadata(opinion, count)),
            )

    @dg.job(description="The check `fraud_rate` once more, for partitions whose labels have matured.")
    def repeat_fraud_rates() -> None:
        judge_again()

    return [repeat_fraud_rates]


def row_count_of(installation: Installation, key: str) -> CheckResult:
    """The partition's rows a day, judged."""
    present = installation.transformed()
    earlier = [_rows(present[other]) / _days(installation, other) for other in accepted_before(installation, key, present)]
    return judge_rows(_rows(present[key]), _days(installation, key), installation.source.quality.rows_per_day, earlier)


def fraud_rates_of(installation: Installation, keys: Sequence[str]) -> dict[str, tuple[CheckResult, Count]]:
    """Each partition's fraud rate, judged, and the rows and frauds behind it. A partition's rows are counted once."""
    present = installation.transformed()
    until = mature_instant(installation, present)
    counts: dict[str, Count] = {}

    def counted(key: str) -> Count:
        if key not in counts:
            counts[key] = _count(installation, key, until)
        return counts[key]

    judged: dict[str, tuple[CheckResult, Count]] = {}
    for key in keys:
        earlier = [counted(other) for other in accepted_before(installation, key, present)]
        judged[key] = judge_fraud_rate(counted(key), earlier), counted(key)
    return judged


def mature_instant(installation: Installation, present: Mapping[str, Pointer]) -> datetime:
    """The instant before which labels are mature: so long before the end of the data as outcomes take to be known.

    Where no partition has a row, none is: 1970.
    """
    last = max((int(pointer.facts["last_us"]) for pointer in present.values() if pointer.rows), default=0)
    return mature_until(installation.source, last)


def accepted_before(installation: Installation, key: str, present: dict[str, Pointer]) -> list[str]:
    """The last accepted partitions before this one, as many as tell what natural variation is; newest first."""

    def verdict_of(other: str) -> gate.Verdict | None:
        try:
            return gate.read_verdict(installation.artifacts.store, installation.artifacts.signing_key, other)
        except IntegrityError:
            return None  # not trusted, so nothing is compared with it

    contents = {other: pointer.content for other, pointer in present.items()}
    accepted = gate.accepted_before(key, contents, verdict_of)
    return [verdict.partition for verdict in islice(accepted, gate.NATURAL_PARTITIONS)]


def _result(opinion: CheckResult, metadata: dict[str, Any]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=opinion.usual,
        severity=dg.AssetCheckSeverity.WARN,
        description=opinion.message,
        metadata=_shown(opinion, metadata),
    )


def _rate_metadata(opinion: CheckResult, count: Count) -> dict[str, Any]:
    return {"fraud_rate": opinion.value, "mature_rows": count.rows, "frauds": count.frauds}


def _shown(opinion: CheckResult, metadata: dict[str, Any]) -> dict[str, Any]:
    bounds = {"usual_low": opinion.low, "usual_high": opinion.high}
    return metadata | {name: value for name, value in bounds.items() if value is not None}


def _rows(pointer: Pointer) -> int:
    return pointer.rows or 0


def _days(installation: Installation, key: str) -> float:
    start, end = partitions.window(key, installation.source.cadence, installation.source.zone)
    return (end - start) / timedelta(days=1)


def _count(installation: Installation, key: str, until: datetime) -> Count:
    rows = installation.artifacts.scan("transformed", key).filter(pl.col("timestamp") < until)
    counted, frauds = rows.select(pl.len(), pl.col("label").sum()).collect().row(0)
    return Count(int(counted), int(frauds))
