"""`transformed`: features and label; and `drift`, the gate's verdict on each partition."""

import dagster as dg

from fraud_assets.delivery import delivery
from fraud_assets.installation import Installation
from fraud_assets.operations.judging import judge_partition
from fraud_assets.reports.metadata import sentence, verdict_metadata
from fraud_assets.runtime.partitioning import look_back, partitions_def
from fraud_core import gate
from fraud_core.storage.artifacts import Table
from fraud_core.training_data.transform import build_transformed


def build(installation: Installation) -> list[dg.AssetsDefinition | dg.AssetChecksDefinition]:
    """The asset and its checks."""
    source = installation.source
    keys = partitions_def(source)

    @dg.asset(
        deps=[dg.AssetDep("raw", partition_mapping=look_back(source))],
        partitions_def=keys,
        io_manager_key="artifacts",
        group_name="data",
        kinds={"polars", "parquet"},
    )
    def transformed(context: dg.AssetExecutionContext) -> Table:
        """Model-ready features and the label, one row a transaction; no personal column."""
        return build_transformed(source, installation.artifacts, context.partition_key)

    @dg.asset_check(asset=transformed, partitions_def=keys, blocking=True)
    def drift(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        """Does this partition look like the accepted ones before it? A rejected one trains no model, however that is started."""
        try:
            judgement = judge_partition(installation, context.partition_key)
            verdict = gate.record(installation.artifacts.store, installation.artifacts.signing_key, judgement, installation.heads)
            delivery.note_verdict(installation, verdict, context.log.warning)
        except Exception as error:
            context.log.exception("the drift check could not judge")
            return dg.AssetCheckResult(
                passed=False,
                severity=dg.AssetCheckSeverity.ERROR,
                description=f"The partition could not be judged, so it trains no model: {error}",
                metadata={"error": type(error).__name__},
            )
        return dg.AssetCheckResult(
            passed=verdict.is_accepted,
            severity=dg.AssetCheckSeverity.ERROR,
            description=sentence(verdict),
            metadata=verdict_metadata(verdict, judgement, installation.source.declared),
        )

    return [transformed, drift]
