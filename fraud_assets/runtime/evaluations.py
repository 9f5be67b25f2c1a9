"""Evaluations of a partition's check outside of the check itself: by a person's decision, or because labels have matured."""

from collections.abc import Mapping
from typing import Any

import dagster as dg


def log_evaluation(
    context: dg.OpExecutionContext,
    check: dg.AssetCheckKey,
    partition: str,
    *,
    passed: bool,
    severity: dg.AssetCheckSeverity,
    description: str,
    metadata: Mapping[str, Any],
    blocking: bool = False,
) -> None:
    """Log an op's evaluation, which becomes the check's record of this partition. Dagster keeps one for each run.

    (Without a run it keeps a single one for ever, and refuses every later one.)
    """
    event: Any = dg.AssetCheckEvaluation(  # taken here as elsewhere, though the type of `log_event` does not say so
        asset_key=check.asset_key,
        check_name=check.name,
        passed=passed,
        severity=severity,
        description=description,
        metadata=metadata,
        target_materialization_data=_target(context.instance, check.asset_key, partition),
        blocking=blocking,
        partition=partition,
    )
    context.log_event(event)


def _target(instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str) -> Any:
    """The materialization that the check speaks of, as far as this instance knows it."""
    from dagster._core.definitions.asset_checks.asset_check_evaluation import (  # noqa: PLC0415 - Dagster exports it nowhere else
        AssetCheckEvaluationTargetMaterializationData,
    )

    only = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[partition])
    records = instance.fetch_materializations(only, limit=1).records
    if not records:
        return None
    return AssetCheckEvaluationTargetMaterializationData(
        storage_id=records[0].storage_id, run_id=records[0].run_id, timestamp=records[0].timestamp
    )
