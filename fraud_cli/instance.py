"""The Dagster instance under FRAUD_HOME, and the runs that a killed process left behind."""

import fcntl
import os
from pathlib import Path

import dagster as dg

from fraud_core.settings import Settings

PID_TAG = "fraud/pid"
INSTANCE = """\
# Made by `fraud`: SQLite with one consolidated event log, in this folder. Nothing is sent anywhere.
event_log_storage:
  module: dagster._core.storage.event_log
  class: ConsolidatedSqliteEventLogStorage
  config:
    base_dir: {base}
run_monitoring:
  enabled: true
nux:
  enabled: false
telemetry:
  enabled: false
"""


def environment(settings: Settings) -> dict[str, str]:
    """The environment in which Dagster's processes find this installation; makes the instance's folder."""
    home = settings.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    text = INSTANCE.format(base=home / "events")
    if not config.exists() or config.read_text() != text:
        draft = config.with_suffix(f".{os.getpid()}")
        draft.write_text(text)
        draft.replace(config)
    return {
        "DAGSTER_HOME": str(home),
        "FRAUD_HOME": str(settings.home),
        "FRAUD_SOURCE": str(settings.source.resolve()),
        "FRAUD_STORE": settings.store,
    }


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """The instance; runs of processes that no longer live are marked as failed."""
    home = Path(environment(settings)["DAGSTER_HOME"])
    with (home / ".making").open("a") as lock:  # two that make the tables of a new instance at once would trip over each other
        fcntl.flock(lock, fcntl.LOCK_EX)
        instance = dg.DagsterInstance.from_config(str(home))
        instance.get_runs_count()  # the storages make their tables on first use
        instance.all_asset_keys()
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    for run in instance.get_runs(unfinished):
        pid = run.tags.get(PID_TAG)
        if pid is not None and not _lives(int(pid)):
            instance.report_run_failed(
                run, "The process that ran this was killed. Start it again: it goes on from what is finished."
            )
    return instance


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
