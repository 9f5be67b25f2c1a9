"""Dagster's own daemon at work: what runs by itself, and a backfill, against a drifted partition."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from fraud_cli.instance import environment
from tests.home import DRIFTED, Home
from tests.receiver import Receiver

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent
MODULE = ("-m", "fraud_assets.definitions")
PATIENCE = 240.0


@pytest.fixture
def webhook() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def test_by_itself_and_by_backfill_a_drifted_partition_is_taken_told_and_trains_nothing(
    new_home: Callable[..., Home], webhook: Receiver, tmp_path: Path
) -> None:
    home = new_home(webhook_url=webhook.url)
    before = home.latest()
    variables = os.environ | home.environment | environment(home.installation.settings)
    with (tmp_path / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [BIN / "dagster-daemon", "run", *MODULE], env=variables, stdout=log, stderr=log, start_new_session=True
        )
        try:
            eventually(lambda: bool(webhook.taken))
            command = ["job", "backfill", *MODULE, "--job", "run_partition", "--partitions", DRIFTED, "--noprompt"]
            subprocess.run([BIN / "dagster", *command], env=variables, stdout=log, stderr=log, check=True)
            with dg.DagsterInstance.from_config(variables["DAGSTER_HOME"]) as instance:
                eventually(lambda: bool(backfilled(instance)))
                eventually(lambda: all(run.is_finished for run in backfilled(instance)))
                statuses = [run.status for run in backfilled(instance)]
                trained = instance.get_runs_count(dg.RunsFilter(job_name="train"))
        finally:
            os.killpg(daemon.pid, signal.SIGINT)
            daemon.wait(timeout=60)
    assert statuses == [dg.DagsterRunStatus.FAILURE]
    assert trained == 0
    assert {(message["check"], message["partition"]) for message in webhook.taken} == {("drift", DRIFTED)}
    assert home.latest() == before


def backfilled(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return [run for run in instance.get_runs() if "dagster/backfill" in run.tags]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.3)
