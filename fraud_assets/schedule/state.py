"""State of partitions, read from the store for planning."""

from collections.abc import Iterable, Iterator
from functools import partial

from fraud_assets.installation import Installation
from fraud_assets.schedule.planning import PartitionState
from fraud_assets.stages.landing import load_landing


def read_state(installation: Installation, key: str) -> PartitionState:
    """One partition's state.

    Raises:
        IntegrityError: a pointer's signature does not hold.
    """
    raw, transformed = (partial(installation.artifacts.pointer, asset) for asset in ("raw", "transformed"))
    return PartitionState.of(installation.source, load_landing(installation), key, raw, transformed)


def read_states(installation: Installation, keys: Iterable[str]) -> Iterator[PartitionState]:
    """The states of many partitions; every pointer is read once. Raises as `read_state`."""
    raws, transformed = installation.artifacts.pointers("raw"), installation.transformed()
    landing = load_landing(installation)
    for key in keys:
        yield PartitionState.of(installation.source, landing, key, raws.get, transformed.get)
