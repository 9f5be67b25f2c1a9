"""Multiprocess metrics: each worker writes files of its own, and whoever is asked reads them all.

Workers die and are replaced. What a dead one counted is moved into one file for all the dead, its gauges are forgotten, and its
files are removed: else there would be more of them with every restart, and without its counts the sums would fall.
"""

import fcntl
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from fraud_core.errors import SettingsError
from fraud_core.settings import Settings
from fraud_core.system.processes import lives

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# 0 says that there is nothing to say: before the first model, or of one that is served no more.
ZERO_IS_NOTHING = frozenset(
    {
        "fraud_model_info",
        "fraud_model_checked_timestamp_seconds",
        "fraud_model_promoted_timestamp_seconds",
        "fraud_reference_flagged_share",
        "fraud_reference_share",
    }
)
_DEAD = "dead"


def shared_folder() -> Path | None:
    """Where the workers' files are; None in a server of one process."""
    name = os.environ.get(FOLDER_VARIABLE)
    return Path(name) if name else None


class WorkersCollector(Collector):
    """The metrics of all workers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Bury the dead, then read what there is."""
        with _alone(self._folder):
            archive_dead_worker(self._folder)
            found = list(MultiProcessCollector(None, str(self._folder)).collect())  # type: ignore[no-untyped-call]
        yield from present(found)


def join_registry(settings: Settings, registry: CollectorRegistry) -> Callable[[], None]:
    """Serve these metrics at a port of their own, which the settings name; returns what ends that.

    Raises:
        SettingsError: the address cannot be bound.
    """
    try:
        server, thread = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        raise SettingsError(
            f"The metrics cannot be served at {settings.metrics_host}:{settings.metrics_port} ({error.strerror}); "
            "set FRAUD_METRICS_PORT and FRAUD_METRICS_HOST."
        ) from error

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close


def present(metrics: Iterable[Metric]) -> Iterator[Metric]:
    """The metrics without what stands at zero because there is nothing to say."""
    for metric in metrics:
        if metric.name in ZERO_IS_NOTHING:
            metric.samples = [sample for sample in metric.samples if sample.value]
        yield metric


def archive_dead_worker(folder: Path) -> None:
    """Take in the counts of workers that are dead, and remove their files."""
    dead: dict[str, list[Path]] = defaultdict(list)
    for path in folder.glob("*.db"):
        kind, _, rest = path.stem.partition("_")
        pid = rest.rpartition("_")[2]
        if pid != _DEAD and not lives(int(pid)):
            dead[kind].append(path)
    for kind, paths in dead.items():
        kept = folder / f"{kind}_{_DEAD}.db"
        counts: dict[str, float] = defaultdict(float)
        if kind != "gauge":
            for path in [*paths, *([kept] if kept.exists() else [])]:
                for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
                    counts[key] += value
        # Removed first: a process killed here loses counts, which Prometheus takes for a restart, and counts nothing twice.
        for path in paths:
            path.unlink()
        if counts:
            _write(kept, counts)


def _write(path: Path, counts: dict[str, float]) -> None:
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    file = MmapedDict(str(draft))  # type: ignore[no-untyped-call]
    for key, value in counts.items():
        file.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]
    draft.replace(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
