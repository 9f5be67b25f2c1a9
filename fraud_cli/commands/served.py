"""`fraud served`: payments that were scored online, as a source of their own."""

from pathlib import Path

from fraud_assets.installation import Project
from fraud_assets.stages.scored_payments import export_served, folder_of
from fraud_core.settings import Settings


def export_payments(settings: Settings, to: Path | None) -> int:
    """Write what was recorded since the last export, and say where."""
    project = Project.load(settings)
    folder = folder_of(project) if to is None else to
    done = export_served(project, folder)
    print(f"{done.payments} payments in {len(done.files)} new files under {folder}.")
    return 0
