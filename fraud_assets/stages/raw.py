"""`raw` and its `quarantine`: a partition's transactions under canonical names, and the rows that were refused, with reasons."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from fraud_assets.installation import Installation
from fraud_assets.reports.markdown import markdown_table
from fraud_assets.runtime.partitioning import partitions_def
from fraud_assets.stages import labels
from fraud_core.intake.landing import Landing, land
from fraud_core.intake.raw import build_raw, refused_rows, refused_share


def build(installation: Installation) -> list[dg.AssetsDefinition | dg.AssetChecksDefinition]:
    """The assets, and the check on the share of refused rows."""
    keys = partitions_def(installation.source)

    @dg.multi_asset(
        outs={
            "raw": dg.AssetOut(
                io_manager_key="artifacts",
                description="Transactions under canonical names: parsed by declared formats, bounded, without duplicates.",
                kinds={"polars", "parquet"},
            ),
            "quarantine": dg.AssetOut(
                io_manager_key="artifacts",
                description="Refused rows, each with its line, column, reason and a masked value.",
                kinds={"polars", "parquet"},
            ),
        },
        partitions_def=keys,
        group_name="data",
    )
    def raw(context: dg.AssetExecutionContext, landing: dict[str, Any]) -> Iterator[dg.Output[Any]]:
        landed, store = Landing.model_validate(landing), installation.artifacts.store
        whole = landed.without_damaged(context.partition_key, store)
        if whole != landed:  # the source's files put right what was damaged in the store, under the same names
            context.log.warning("Landed rows of this partition were damaged in the store; their files are read again.")
            land(installation.source, store, installation.card_key, whole)
        made = build_raw(installation.source, landed, context.partition_key, store, installation.card_key)
        if not made.relabels.is_empty():
            heard = labels.hear(installation, made.relabels)
            context.log.info(f"{heard} labels became known by copies of payments that were there already.")
        reasons = made.quarantine.frame.group_by("column", "reason").len().sort("len", descending=True).head(10)
        yield dg.Output(made.rows, output_name="raw")
        yield dg.Output(
            made.quarantine,
            output_name="quarantine",
            metadata={"reasons": dg.MetadataValue.md(markdown_table(reasons.rows(named=True)))},
        )

    @dg.asset_check(asset="raw", partitions_def=keys, blocking=True)
    def quarantined_share(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        """At most the tolerated share of rows was refused ([quality] of the source's TOML)."""
        pointer = installation.artifacts.pointer("raw", context.partition_key)
        assert pointer is not None
        kept, refused = int(pointer.facts["rows"]), refused_rows(pointer)
        share, tolerated = refused_share(pointer), installation.source.quality.quarantined_share
        rows = installation.artifacts.scan("quarantine", context.partition_key)
        counts = rows.group_by("column", "reason").agg(pl.len().alias("rows")).sort("rows", descending=True).head(10).collect()
        return dg.AssetCheckResult(
            passed=share <= tolerated,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"{refused} of {kept + refused} rows were refused ({share:.2%}); {tolerated:.2%} are tolerated.",
            metadata={
                "share": share,
                "tolerated": tolerated,
                "rows": kept,
                "refused": refused,
                "reasons": dg.MetadataValue.md(markdown_table(counts.rows(named=True))),
            },
        )

    return [raw, quarantined_share]
