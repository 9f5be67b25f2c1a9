"""`fraud served`: payments that were scored online, as a source of their own."""

from pathlib import Path

from fraud_assets.installation import Installation
from fraud_assets.stages.scored_payments import export_served, folder_of
from fraud_core.settings import Settings


def export_payments(settings: Settings, to: Path | None) -> int:
    """Write what was recorded since the last export, and say where."""
    installation = Installation.load(settings)
    folder = folder_of(installation) if to is None else to
    done = export_served(installation, folder)
    print(f"{done.payments} payments in {len(done.files)} new files under {folder}.")
    return 0
