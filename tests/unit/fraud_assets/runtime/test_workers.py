"""Which runs go to workers, and how it is seen that a worker was lost."""

from typing import Any
from unittest.mock import Mock

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from fraud_assets.runtime.spreading import TAGS
from fraud_assets.runtime.workers import WorkerRunLauncher

STARTED = {"status": "STARTED", "result": {"hostname": "fraud@there"}}
SPREAD = dg.DagsterRun("make_raw", tags=TAGS | {DAGSTER_CELERY_TASK_ID_TAG: "task"})


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> WorkerRunLauncher:
    """A launcher of which nothing is asked yet."""
    made = WorkerRunLauncher(default_queue="dagster", broker="memory://", backend="cache+memory://")
    monkeypatch.setattr(made, "celery", Mock())
    return made


def health(launcher: Any, *told: dict[str, Any], known: Any = None) -> WorkerStatus:
    """What is said of a run whose task's state is told so, and of which its worker knows this."""
    launcher.celery.backend.get_task_meta.side_effect = told
    launcher.celery.control.inspect.return_value.query_task.return_value = known
    return launcher.check_run_worker_health(SPREAD).status


def test_a_run_is_well_while_it_waits_and_while_its_worker_knows_of_it(launcher: Any) -> None:
    assert health(launcher, {"status": "PENDING", "result": None}) == WorkerStatus.RUNNING
    assert health(launcher, STARTED, known={"fraud@there": {"task": ["active", {}]}}) == WorkerStatus.RUNNING


@pytest.mark.parametrize("known", [None, {}, {"fraud@there": {}}])
def test_a_run_is_lost_when_its_worker_is_silent_or_came_back_without_it(launcher: Any, known: Any) -> None:
    assert health(launcher, STARTED, STARTED, known=known) == WorkerStatus.FAILED


def test_a_run_that_ended_while_its_worker_was_asked_is_not_lost(launcher: Any) -> None:
    assert health(launcher, STARTED, {"status": "SUCCESS", "result": 0}, known={"fraud@there": {}}) == WorkerStatus.RUNNING


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "REVOKED"])
def test_a_run_whose_task_is_over_and_that_did_not_end_is_lost(launcher: Any, status: str) -> None:
    assert health(launcher, {"status": status, "result": None}) == WorkerStatus.FAILED


def test_a_run_that_is_being_handed_over_is_well(launcher: Any) -> None:
    assert launcher.check_run_worker_health(dg.DagsterRun("make_raw", tags=TAGS)).status == WorkerStatus.RUNNING


def test_trainings_and_verdicts_never_go_to_a_worker(launcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Mock()
    monkeypatch.setattr(launcher, "_here", here)
    for job in ("train", "check_partition", "materialize_partition", "deliver"):
        launcher.launch_run(Mock(dagster_run=dg.DagsterRun(job)))
    assert here.launch_run.call_count == 4
    assert not launcher.celery.mock_calls
