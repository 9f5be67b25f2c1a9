"""`history`: what the scorer remembers of cards and merchants, brought up to what raw and the labels hold."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from fraud_assets.project import Project
from fraud_core.catch_up import CatchUp
from fraud_core.stores.database import open_database
from fraud_core.stores.decisions import DecisionLog
from fraud_core.stores.history import open_history
from fraud_core.stores.labels import LabelLog
from fraud_core.transform import source_features

JOB = "load_history"
PATIENCE = 10_000  # milliseconds: whoever loads waits for those who score, not the other way round


def is_kept(project: Project) -> bool:
    """Whether this source has a history at all."""
    return any(feature.is_history for feature in source_features(project.source))


def build(project: Project) -> list[dg.AssetsDefinition]:
    """The asset; none where the source has no history."""
    if not is_kept(project):
        return []

    @dg.asset(deps=["raw"], group_name="serving")
    def history(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        """What cards and merchants did, where the scorer looks it up: raw within reach of its newest payment, and all labels.

        Loading can be cut short and repeated: each payment counts once. A store that is gone fails this asset and nothing else.
        """
        begun = time.monotonic()
        with catching_up(project) as catch_up:
            done = catch_up.run()
        return dg.MaterializeResult(
            metadata={
                "loaded": ", ".join(done.partitions) or "none",
                "payments new": done.new,
                "payments within reach": done.payments,
                "newest payment": "none" if done.newest is None else done.newest.isoformat(),
                "labels heard": done.labels,
                "labels about unknown payments": done.unplaced,
                "seconds": round(time.monotonic() - begun, 1),
            }
        )

    return [history]


@contextmanager
def catching_up(project: Project) -> Iterator[CatchUp]:
    """The stores of the installation; let go of at the end."""
    settings = project.settings
    store = open_history(
        settings.model_copy(update={"history_timeout": max(settings.history_timeout, PATIENCE)}), project.source.reach
    )
    engine = open_database(settings)
    try:
        decisions = DecisionLog(engine, settings.decision_retention_days)
        yield CatchUp(project.source, project.artifacts, LabelLog(engine), decisions, store)
    finally:
        store.close()
        engine.dispose()
