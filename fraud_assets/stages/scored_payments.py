"""`served`: the payments that were scored online, on their way back into raw."""

from pathlib import Path

import dagster as dg

from fraud_assets.installation import Installation
from fraud_assets.stages import history
from fraud_core.history.export import Exported, export


def build(installation: Installation) -> list[dg.AssetsDefinition]:
    """The asset."""

    @dg.asset(group_name="serving", kinds={"parquet"})
    def served(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        """Payments that were scored online, declined ones too, in files that are only ever added: a source of their own."""
        done = export_served(installation)
        return dg.MaterializeResult(
            metadata={
                "payments new": done.payments,
                "files new": len(done.files),
                "folder": dg.MetadataValue.path(str(folder_of(installation))),
            }
        )

    return [served]


def export_served(installation: Installation, folder: Path | None = None) -> Exported:
    """Write what was recorded since the last export.

    Raises:
        StoreError: the history store cannot be used.
    """
    with history.opened(installation) as store:
        return export(store, folder_of(installation) if folder is None else folder, installation.source.declared)


def folder_of(installation: Installation) -> Path:
    """Where the files lie, if nobody says otherwise."""
    return installation.settings.home / "served"
