"""`landing`: every source file is read once and its rows are routed to partitions."""

from typing import Any

import dagster as dg

from fraud_assets.installation import Installation
from fraud_assets.reports.markdown import markdown_table
from fraud_core.intake.landing import UNDATED, Landing, land, partition_keys
from fraud_core.intake.refusals import count_refusals
from fraud_core.storage.artifacts import Document


def load_landing(installation: Installation) -> Landing | None:
    """What has landed so far."""
    body = installation.artifacts.document("landing")
    return None if body is None else Landing.model_validate(body)


def _counts(landed: Landing) -> list[dict[str, Any]]:
    """File by file: what it has is what was kept and what was refused, of which some has no usable time."""
    return [
        {
            "file": name,
            "lines": file.rows if file.lines is None else file.lines,
            "rows": sum(segment.rows for segment in file.segments),
            "quarantined": sum(segment.rows for segment in file.refused if segment.partition != UNDATED),
            "undated": sum(segment.rows for segment in file.refused if segment.partition == UNDATED),
        }
        for name, file in sorted(landed.files.items())
    ][:100]


def build(installation: Installation) -> list[dg.AssetsDefinition]:
    """The asset."""

    @dg.asset(io_manager_key="artifacts", group_name="data", kinds={"polars"})
    def landing(context: dg.AssetExecutionContext) -> Document:
        """The source's files, each read once by its content; rows lie as segments, one a file and partition.

        For the simulator there is nothing to read: it makes any partition by itself.
        """
        seen: dict[str, int] = {}

        def progress(file: str, rows: int) -> None:
            if rows - seen.get(file, 0) >= 500_000:
                context.log.info(f"{file}: {rows:,} rows")
                installation.tell(f"{file}: {rows:,} rows read")
                seen[file] = rows

        artifacts = installation.artifacts
        landed = land(installation.source, artifacts.store, installation.card_key, load_landing(installation), progress)
        if installation.source.is_open:
            context.instance.add_dynamic_partitions(
                f"{installation.source.name}_partitions", partition_keys(installation.source, landed)
            )
        facts: dict[str, int | float | str] = {
            "files": len(landed.files),
            "lines": sum(file.lines or file.rows for file in landed.files.values()),
            "rows_read": sum(file.rows for file in landed.files.values()),
            "repaired": sum(file.repaired for file in landed.files.values()),
            "rounded": sum(file.rounded for file in landed.files.values()),
            "refused": landed.quarantined,
            "undated": sum(segment.rows for segment in landed.refused(UNDATED)),
            "partitions": len(landed.partitions()),
        }
        context.add_output_metadata(
            {
                "counts": dg.MetadataValue.md(markdown_table(_counts(landed))),
                "reasons": dg.MetadataValue.md(markdown_table(count_refusals(landed, artifacts.store).head(10).rows(named=True))),
            }
        )
        return Document(body=landed.model_dump(mode="json"), content=landed.content(), facts=facts)

    return [landing]
