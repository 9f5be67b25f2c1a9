"""Raw and transformed partitions on workers: handed out, waited for. What they do not make is made here afterwards, in order."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
from dagster._core.launcher import WorkerStatus  # Dagster exports it nowhere else

from fraud_assets.delivery.dvc import recording
from fraud_assets.installation import Installation
from fraud_assets.runtime.spreading import RAW_JOB, TRANSFORMED_JOB
from fraud_assets.schedule.state import read_states
from fraud_cli.instance import environment
from fraud_core.errors import FraudError

QUEUE_DAEMON = "QUEUED_RUN_COORDINATOR"
SILENCE_SECONDS = 120  # a daemon that said nothing for so long does not run
TRIES = 3  # a run that ended without making its partition, as its worker was lost before it began, is handed out again
LOOK_SECONDS = 0.5
SPREAD_TAG = "fraud/spread_id"

Tell = Callable[[str], None]


class HandOutError(FraudError):
    """Dagster did not take the runs."""


def spread(installation: Installation, instance: dg.DagsterInstance, keys: Sequence[str], tell: Tell) -> None:
    """Have workers make what is not made of these partitions, and wait; says so where nobody is there to do it.

    Raises:
        HandOutError: Dagster did not take the runs.
    """
    from fraud_assets.runtime.workers import answering

    broker = installation.settings.broker
    assert broker is not None
    workers = answering(broker.get_secret_value())
    if not workers or not _daemon_lives(instance):
        tell(f"no {'Dagster daemon' if workers else 'worker'} answers, so partitions are made here")
        return
    tell(f"{len(workers)} workers answer: {', '.join(workers)}")
    _make(installation, instance, RAW_JOB, lambda: without_raw(installation, keys), tell)
    _make(installation, instance, TRANSFORMED_JOB, lambda: without_transformed(installation, keys), tell)


def without_raw(installation: Installation, keys: Sequence[str]) -> list[str]:
    """Partitions whose raw is not made from what has landed."""
    return [state.key for state in read_states(installation, keys) if not state.has_raw]


def without_transformed(installation: Installation, keys: Sequence[str]) -> list[str]:
    """Partitions whose transformed is not made from raw, and can be."""
    preceding = {key: installation.source.preceding(key) for key in keys}
    states = {
        state.key: state for state in read_states(installation, {*keys, *(one for each in preceding.values() for one in each)})
    }
    return [
        key
        for key in keys
        if states[key].is_tolerable and not states[key].is_current and all(states[one].has_raw for one in (*preceding[key], key))
    ]


def _make(
    installation: Installation, instance: dg.DagsterInstance, job: str, wanted: Callable[[], list[str]], tell: Tell
) -> None:
    for attempt in range(TRIES):
        keys = wanted()
        if not keys:
            return
        tell(f"{job}: {len(keys)} partitions go to the workers{' again' if attempt else ''}")
        identity = f"{time.time_ns()}"
        _hand_out(installation, job, keys, identity)
        for run in _ended(instance, identity):
            key = run.tags["dagster/partition"]
            for asset in ("raw", "quarantine") if job == RAW_JOB else ("transformed",):
                pointer = installation.artifacts.pointer(asset, key)
                if run.status == dg.DagsterRunStatus.SUCCESS and pointer is not None:  # versions of the data are kept here
                    recording.note(installation, pointer, run.run_id)


def _hand_out(installation: Installation, job: str, keys: Sequence[str], identity: str) -> None:
    """A backfill, as anybody may start it."""
    dagster = str(Path(sys.executable).with_name("dagster"))
    command = [dagster, "job", "backfill", "-m", "fraud_assets.definitions", "--job", job, "--partitions", ",".join(keys)]
    tags = f'{{"{SPREAD_TAG}": "{identity}"}}'
    given = os.environ | environment(installation.settings)
    ended = subprocess.run([*command, "--tags", tags, "--noprompt"], env=given, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise HandOutError(f"Dagster did not take the runs of {job}: {ended.stderr.strip().splitlines()[-1:]}")


def _ended(instance: dg.DagsterInstance, identity: str) -> Sequence[dg.DagsterRun]:
    """The runs that were handed out under this identity, once none of them is under way."""
    while True:
        runs = instance.get_runs(dg.RunsFilter(tags={SPREAD_TAG: identity}))
        if all(run.is_finished for run in runs):
            return runs
        for run in runs:  # Dagster asks after runs that have begun
            if run.status == dg.DagsterRunStatus.STARTING and _is_lost(instance, run):
                instance.report_run_failed(run, "Its worker was lost before the run began.")
        time.sleep(LOOK_SECONDS)


def _is_lost(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    return instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.FAILED


def _daemon_lives(instance: dg.DagsterInstance) -> bool:
    heartbeat = instance.get_daemon_heartbeats().get(QUEUE_DAEMON)
    return heartbeat is not None and time.time() - heartbeat.timestamp < SILENCE_SECONDS
