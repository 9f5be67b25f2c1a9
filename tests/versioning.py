"""What runs do that version data, as processes of their own: `python -m tests.versioning raw 2024-01-01 ...`."""

import sys
from collections.abc import Sequence

from fraud_assets.delivery.dvc import recording
from fraud_assets.installation import Installation
from fraud_core.settings import Settings


def note_and_commit(installation: Installation, asset: str, partitions: Sequence[str]) -> None:
    """Note what an asset's partitions hold, and commit."""
    for partition in partitions:
        pointer = installation.artifacts.pointer(asset, partition)
        assert pointer is not None
        recording.note(installation, pointer, f"run of {partition}")
    recording.commit(installation, 100)


if __name__ == "__main__":
    note_and_commit(Installation.load(Settings(_env_file=None)), sys.argv[1], sys.argv[2:])
