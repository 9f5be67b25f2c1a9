"""The Dagster instance under FRAUD_HOME, and the runs that a killed process left behind."""

import fcntl
import os
import platform
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.instance.ref import InstanceRef

from fraud_cli.everywhere import everywhere
from fraud_core.errors import StoreError
from fraud_core.settings import Settings
from fraud_core.storage.database import postgresql_url
from fraud_core.system.paths import plain
from fraud_core.system.processes import lives

PID_TAG = "fraud/pid"
MACHINE_TAG = "fraud/machine"
DATABASE = "FRAUD_DAGSTER_DATABASE"
BROKER = "FRAUD_BROKER"
HEAD = "# Made by `fraud`. Nothing is sent anywhere.\n"
ALWAYS: dict[str, Any] = {
    "run_coordinator": {"module": "fraud_assets.access.attribution", "class": "AttributingRunCoordinator"},
    "nux": {"enabled": False},
    "telemetry": {"enabled": False},
}

# The URL may hold a password, and is written nowhere.
POSTGRES = {"storage": {"postgres": {"postgres_url": {"env": DATABASE}}}}

# Runs are processes of this machine.
HERE: dict[str, Any] = {"run_monitoring": {"enabled": True}}
# Those that may be spread go to workers. They wait in the broker's queue, not in Dagster's: a free worker finds one at once.
# A run whose worker is lost is seen at the next look, and begins anew on another; one that was lost before it began is seen after
# `start_timeout_seconds`, and is tried again by its tag `dagster/max_retries`.
LAUNCHER = {"module": "fraud_assets.runtime.workers", "class": "WorkerRunLauncher"}
WORKERS: dict[str, Any] = {
    "run_launcher": {**LAUNCHER, "config": {"broker": {"env": BROKER}, "backend": {"env": BROKER}}},
    "run_monitoring": {
        "enabled": True,
        "poll_interval_seconds": 10,
        "start_timeout_seconds": 3600,
        "max_resume_run_attempts": 3,
    },
    "run_retries": {"enabled": True, "max_retries": 0, "retry_on_asset_or_op_failure": False},
    "concurrency": {"runs": {"max_concurrent_runs": 100}},
}


def _sqlite(home: Path) -> dict[str, Any]:
    """One consolidated event log: Dagster's own default cannot be asked for all check evaluations since the last look."""
    kind = {"module": "dagster._core.storage.event_log", "class": "ConsolidatedSqliteEventLogStorage"}
    return {"event_log_storage": {**kind, "config": {"base_dir": str(home / "events")}}}


def environment(settings: Settings) -> dict[str, str]:
    """The environment in which Dagster's processes find this installation; makes the instance's folder.

    Raises:
        SettingsError: the URL of Dagster's database is not one of PostgreSQL.
    """
    url = _database(settings)
    folder = settings.home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    home = plain(folder)
    config = home / "dagster.yaml"
    broker = settings.broker
    document = (_sqlite(home) if url is None else POSTGRES) | (HERE if broker is None else WORKERS) | ALWAYS
    text = HEAD + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    if not config.exists() or config.read_text(encoding="utf-8") != text:
        draft = config.with_suffix(f".{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.replace(config)
    return {
        **everywhere(os.environ),
        "DAGSTER_HOME": str(home),
        "FRAUD_HOME": str(settings.home),
        "FRAUD_SOURCE": str(settings.source.resolve()),
        "FRAUD_STORE": settings.store,
        **({} if url is None else {DATABASE: url}),
        **({} if broker is None else {BROKER: broker.get_secret_value()}),
    }


def own_process() -> dict[str, str]:
    """Tags of a run that this process carries out."""
    return {PID_TAG: str(os.getpid()), MACHINE_TAG: platform.node()}


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """The instance; runs of processes of this machine that no longer live are marked as failed.

    Raises:
        SettingsError: the URL of Dagster's database is not one of PostgreSQL.
        StoreError: the database cannot be reached, or refuses.
    """
    home = Path(environment(settings)["DAGSTER_HOME"])
    url = _database(settings)
    # The file names variables that this process need not have.
    given: dict[str, Any] = {} if url is None else {"storage": {"postgres": {"postgres_url": url}}}
    if settings.broker is not None:
        broker = settings.broker.get_secret_value()
        given["run_launcher"] = {**LAUNCHER, "config": {"broker": broker, "backend": broker}}
    with (home / ".making").open("a") as lock:  # two that make the tables of a new instance at once would trip over each other
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            instance = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=given))
            instance.get_runs_count()  # the storages make their tables on first use
            instance.all_asset_keys()
            instance.all_instigator_state()  # of schedules and sensors; the web server and the daemon start at the same moment
        except Exception as error:  # whichever of the libraries on the way to the server it comes from
            if url is None:
                raise
            kind = type(error.__cause__ or error).__name__
            raise StoreError(
                f"Dagster's database cannot be used ({kind}); see that PostgreSQL runs and that {DATABASE} is right."
            ) from error
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    for run in instance.get_runs(unfinished):
        pid = run.tags.get(PID_TAG)
        if pid is not None and run.tags.get(MACHINE_TAG) == platform.node() and not lives(int(pid)):
            instance.report_run_failed(
                run, "The process that ran this was killed. Start it again: it goes on from what is finished."
            )
    return instance


def _database(settings: Settings) -> str | None:
    """URL of Dagster's own database; None: SQLite."""
    if settings.dagster_database is None:
        return None
    url = postgresql_url(settings.dagster_database, DATABASE)
    # Dagster's statements are written for this driver, which SQLAlchemy does not take by itself any more.
    return url.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
