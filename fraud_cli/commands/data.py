"""`fraud data checkout`: what a model was trained on, brought back; and trained on again, to see whether it gives the same."""

import sys
from pathlib import Path

from fraud_assets.delivery.dvc import checkout
from fraud_core.settings import Settings


def check_out(settings: Settings, version: str, folder: Path | None, *, retrain: bool) -> int:
    """Bring a data version back into a folder; 1 where training on it again gives another version."""
    target = folder or settings.home / "checkouts" / version
    brought = checkout.checkout(settings, version, target.resolve())
    lineage = brought.training.manifest.lineage
    print(
        f"{brought.files} files ({brought.size / 1e6:,.1f} MB) behind {version} are in {brought.folder}, each with the "
        f"hash that was signed: {len(lineage.partitions)} partitions that it was trained on, {len(lineage.rejected)} that the "
        f"gate rejected, the preprocessor and the model, at data revision {brought.revision[:12]}."
    )
    if not retrain:
        return 0
    again = checkout.retrain(settings, brought, lambda sentence: print(sentence, file=sys.stderr))
    print(f"Trained on again, it gives {again}, {'the same' if again == version else f'another version than {version}'}.")
    return 0 if again == version else 1
