"""Distributed partitions: raw and transformed may be made on other machines. The gate judges them afterwards, in order."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition  # Dagster exports it nowhere

RAW_JOB, TRANSFORMED_JOB = "make_raw", "make_transformed"
JOBS = (RAW_JOB, TRANSFORMED_JOB)
# A run that never began, as its worker was lost on the way to it, begins again; without workers nobody looks at this tag.
TAGS = {"fraud/spread": "yes", "dagster/max_retries": "3"}


def build_jobs() -> list[UnresolvedAssetJobDefinition]:
    """The jobs whose runs workers take; without workers they run where all others do."""
    return [
        dg.define_asset_job(
            RAW_JOB,
            dg.AssetSelection.assets("raw", "quarantine"),
            tags=TAGS,
            description="Raw partitions alone, in any order and on any machine.",
        ),
        dg.define_asset_job(
            TRANSFORMED_JOB,
            dg.AssetSelection.assets("transformed").without_checks(),
            tags=TAGS,
            description="Transformed partitions alone, in any order, once raw is there; `fraud pipeline` then judges them.",
        ),
    ]


def is_spread(run: dg.DagsterRun) -> bool:
    """Whether workers take this run."""
    return run.tags.get("fraud/spread") == "yes"
