"""The map of the pipeline, in the order in which data flows."""

import dagster as dg

from fraud_assets.delivery import delivery
from fraud_assets.installation import Installation
from fraud_assets.operations import overruling, rollback
from fraud_assets.reports import catalog
from fraud_assets.runtime import io_manager, spreading
from fraud_assets.runtime.partitioning import partitions_def
from fraud_assets.schedule import sensors
from fraud_assets.stages import champion, history, labels, landing, model, preprocessor, raw, scored_payments, transformed, volume
from fraud_core.settings import Settings
from fraud_core.system.private import keep_private

STAGES = (landing, raw, transformed, volume, labels, preprocessor, model, champion, history, scored_payments)

LAND = dg.AssetSelection.assets("landing")
PARTITION = dg.AssetSelection.assets("raw", "quarantine", "transformed")
JUDGE = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("transformed"), "drift"))
CHECK = JUDGE | dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("transformed"), "row_count"), volume.FRAUD_RATE)
LABELS = dg.AssetSelection.assets("labels")
HISTORY = dg.AssetSelection.assets("history").without_checks()
SERVED = dg.AssetSelection.assets("served")
SKEW = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("history"), "no_skew"))
DAILY = "Export what was scored online, and check that its features were those of the pipeline."
LOAD = "Bring the scorer's history up to what raw and the labels hold."
TRAINING = dg.AssetSelection.assets("preprocessor", "model", "champion")


def build(installation: Installation) -> dg.Definitions:
    """All definitions of one installation."""
    parts = [part for stage in STAGES for part in stage.build(installation)]
    # A job of checks alone does not see by itself that it is partitioned.
    by_partition = dg.PartitionedConfig(partitions_def(installation.source), run_config_for_partition_key_fn=lambda _: {})
    return dg.Definitions(
        assets=dg.map_asset_specs(
            lambda spec: catalog.describe(spec, installation),
            [part for part in parts if not isinstance(part, dg.AssetChecksDefinition)],
        ),
        asset_checks=[part for part in parts if isinstance(part, dg.AssetChecksDefinition)],
        jobs=[
            dg.define_asset_job("land", LAND, description="Read new source files."),
            dg.define_asset_job(
                "materialize_partition", PARTITION, description="One partition: raw, transformed, and the gate's verdict."
            ),
            dg.define_asset_job("export_labels", LABELS, description="Copy labels that came in to where trainings read them."),
            dg.define_asset_job(
                "train", TRAINING, description="Train on the accepted partitions, and promote if it beats the champion."
            ),
            dg.define_asset_job(
                "run_partition", PARTITION | TRAINING, description="One partition from raw to champion, in one run."
            ),
            dg.define_asset_job(
                "judge_partition", JUDGE, config=by_partition, description="The gate's verdict on one partition, anew."
            ),
            dg.define_asset_job(
                "check_partition", CHECK, config=by_partition, description="All checks of a partition that is made already."
            ),
            *spreading.build_jobs(),
            *volume.build_jobs(installation),
            *overruling.build_jobs(installation),
            *rollback.build_jobs(installation),
            *delivery.build_jobs(installation),
            *([dg.define_asset_job(history.JOB, HISTORY, description=LOAD)] if history.is_kept(installation) else []),
            dg.define_asset_job(history.DAILY_JOB, SERVED | SKEW if history.is_kept(installation) else SERVED, description=DAILY),
        ],
        sensors=sensors.build(installation),
        # One process a run: stages follow each other anyway, and a process a step would spend its time on imports.
        executor=dg.in_process_executor,
        resources={"artifacts": io_manager.build(installation)},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions of the installation that the environment's settings describe."""
    settings = Settings()
    keep_private(settings)  # in a process that Dagster starts; the command line says what it repaired
    return build(Installation.load(settings))
