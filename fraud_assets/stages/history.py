"""`history`: what the scorer remembers of cards and merchants, brought up to what raw and the labels hold."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache

import dagster as dg

from fraud_assets.installation import Installation
from fraud_assets.reports.markdown import markdown_table
from fraud_core.decisions.log import DecisionLog
from fraud_core.errors import IntegrityError, StoreError
from fraud_core.features.catalogue import plan_of
from fraud_core.history.catch_up import CatchUp
from fraud_core.history.open import open_history
from fraud_core.history.store import HistoryStore
from fraud_core.labels.log import LabelLog
from fraud_core.models.bundle import read_bundle
from fraud_core.models.scorer import Scorer
from fraud_core.scoring.skew import Skew, recheck
from fraud_core.storage.database import open_database
from fraud_core.training_data.transform import source_features

JOB = "load_history"
DAILY_JOB = "daily_serving"
LOOKED_BACK = timedelta(hours=25)  # a day, and what a late start would miss
MOST_CHECKED = 1_000  # decisions
SHOWN = 20
PATIENCE = 10_000  # milliseconds: whoever loads waits for those who score, not the other way round


def is_kept(installation: Installation) -> bool:
    """Whether this source has a history at all."""
    return any(feature.is_history for feature in source_features(installation.source))


def build(installation: Installation) -> list[dg.AssetsDefinition | dg.AssetChecksDefinition]:
    """The asset and its check; none where the source has no history."""
    if not is_kept(installation):
        return []

    @dg.asset(deps=["raw"], group_name="serving", kinds={"sqlite" if installation.settings.history is None else "redis"})
    def history(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        """What cards and merchants did, where the scorer looks it up: raw within reach of its newest payment, and all labels.

        It reaches to the newest partition that the gate accepts; newer ones are held back until they are accepted, too.
        Loading can be cut short and repeated: each payment counts once. A store that is gone fails this asset and nothing else.
        """
        begun = time.monotonic()
        with catching_up(installation) as catch_up:
            done = catch_up.run()
        return dg.MaterializeResult(
            metadata={
                "loaded": ", ".join(done.partitions) or "none",
                "payments new": done.new,
                "payments total": done.payments,
                "newest payment": "none" if done.newest is None else done.newest.isoformat(),
                "held back, for the gate has not accepted them": ", ".join(done.held_back) or "none",
                "labels heard": done.labels,
                "labels about unknown payments": done.unplaced,
                "seconds": round(time.monotonic() - begun, 1),
            }
        )

    @dg.asset_check(asset=history)
    def no_skew(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        """Are the features of the last day's decisions, as they were logged, those that the pipeline computes, bit for bit?"""
        try:
            return skew_result(recheck_day(installation, datetime.now(UTC)))
        except StoreError as error:
            return dg.AssetCheckResult(
                passed=False, severity=dg.AssetCheckSeverity.ERROR, description=f"Nothing could be checked: {error}"
            )

    return [history, no_skew]


def recheck_day(installation: Installation, now: datetime) -> Skew:
    """Recompute what was logged in the last day.

    Raises:
        StoreError: a store or the database cannot be used.
    """

    @cache
    def scorer_of(version: str) -> Scorer | None:
        try:
            return Scorer(read_bundle(installation.artifacts.store, version, installation.artifacts.signing_key))
        except IntegrityError:
            return None

    with catching_up(installation) as known:
        return recheck(known, scorer_of, now - LOOKED_BACK, MOST_CHECKED)


def skew_result(skew: Skew) -> dg.AssetCheckResult:
    """What was found, as a check shows it."""
    differ = [{"transaction": one.transaction_id, "features": ", ".join(one.features)} for one in skew.mismatches]
    what = f"All {skew.checked} decisions that could be checked had the features that the pipeline computes."
    if differ:
        what = f"{len(differ)} of {skew.checked} decisions had other features than the pipeline computes."
    elif not skew.checked:
        what = "There was no decision to check: none was logged with its features, or nothing of it is kept any more."
    return dg.AssetCheckResult(
        passed=not differ,
        severity=dg.AssetCheckSeverity.ERROR,
        description=what,
        metadata={
            "checked": skew.checked,
            "mismatches": len(differ),
            "payments came late": skew.late_rows,
            "labels came late": skew.late_labels,
            "no longer kept": skew.gone,
            "worst": dg.MetadataValue.md(markdown_table(differ[:SHOWN])),
        },
    )


@contextmanager
def catching_up(installation: Installation) -> Iterator[CatchUp]:
    """The stores of the installation; let go of at the end."""
    settings = installation.settings
    engine = open_database(settings)
    decisions = DecisionLog(engine, settings.decision_retention_days)
    try:
        with opened(installation) as store:
            yield CatchUp(
                installation.source, installation.artifacts, LabelLog(engine), decisions, store, installation.is_accepted
            )
    finally:
        engine.dispose()


@contextmanager
def opened(installation: Installation) -> Iterator[HistoryStore]:
    """The history store of the installation; let go of at the end."""
    settings = installation.settings
    patient = settings.model_copy(update={"history_timeout": max(settings.history_timeout, PATIENCE)})
    store = open_history(patient, installation.source.reach, plan_of(source_features(installation.source)))
    try:
        yield store
    finally:
        store.close()
