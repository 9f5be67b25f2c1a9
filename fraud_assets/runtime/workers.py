"""Celery workers: which runs go to them, and how it is seen that one was lost.

A whole run goes to a worker, as nothing then has to sit beside it and wait. dagster-celery sees that a task failed, but not that
the machine under it went: the task's last word stays "started" for ever. So the launcher asks the worker itself.
"""

from typing import Any

import dagster as dg
from celery import Celery
from dagster._core.launcher import (  # Dagster exports these nowhere else
    CheckRunHealthResult,
    DefaultRunLauncher,
    LaunchRunContext,
    ResumeRunContext,
    WorkerStatus,
)
from dagster._grpc.types import ResumeRunArgs
from dagster._serdes import pack_value
from dagster_celery.config import DEFAULT_CONFIG, TASK_RESUME_JOB_NAME
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.make_app import make_app
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

from fraud_assets.runtime.spreading import is_spread

QUEUE = "dagster"
PATIENCE_SECONDS = 5.0  # a worker that has not answered by then is lost
CONFIG: dict[str, Any] = {
    "result_extended": True,  # a result says which worker it is of
    "worker_disable_prefetch": True,  # a run that waits goes to whoever is free next
    "worker_max_tasks_per_child": 50,  # what Polars and Arrow hold on to is given back
    "broker_connection_retry_on_startup": True,
}


class WorkerRunLauncher(CeleryRunLauncher):
    """Hands runs that may be spread to Celery workers, and starts all others on this machine.

    A run whose worker is lost is resumed: the same run begins anew on another worker. What it wrote before stays harmless, since
    files are named by their content and pointed at last.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__(**config | {"config_source": CONFIG | (config.get("config_source") or {})})
        self._here = DefaultRunLauncher()

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Learn which instance this belongs to."""
        super().register_instance(instance)
        self._here.register_instance(instance)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run, there or here."""
        if is_spread(context.dagster_run):
            super().launch_run(context)
        else:
            self._here.launch_run(context)

    def resume_run(self, context: ResumeRunContext) -> None:
        """Begin a run anew on another worker."""
        # Not by dagster-celery's own method: in 0.29 it calls its task by the wrong argument, so that nothing is ever resumed.
        run = context.dagster_run
        assert run.job_code_origin is not None
        args = ResumeRunArgs(run.job_code_origin, run.run_id, self._instance.get_ref(), set_exit_code_on_failure=True)
        task = create_resume_job_task(self.celery).si(resume_job_args_packed=pack_value(args))
        self._launch_celery_task_run(run, task, TASK_RESUME_JOB_NAME)

    def terminate(self, run_id: str) -> bool:
        """End a run that somebody takes back."""
        run = self._instance.get_run_by_id(run_id)
        if run is None:
            return False
        if not is_spread(run):
            return bool(self._here.terminate(run_id))  # type: ignore[no-untyped-call]
        if DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            return False
        self._instance.report_run_canceling(run)
        self.celery.control.revoke(run.tags[DAGSTER_CELERY_TASK_ID_TAG], terminate=True)
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether somebody still works on a run. Of this machine's runs Dagster does not know."""
        if not is_spread(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        task = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task is None:  # it was handed over this moment
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        told = self.celery.backend.get_task_meta(task)
        if told["status"] == "PENDING":
            return CheckRunHealthResult(WorkerStatus.RUNNING, "It waits for a worker.")
        if told["status"] != "STARTED":
            return CheckRunHealthResult(WorkerStatus.FAILED, f"Its task ended ({told['status']}), and the run did not.")
        worker = told["result"]["hostname"]
        if self._works_on(worker, task) or self.celery.backend.get_task_meta(task)["status"] != "STARTED":
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"Worker {worker} is gone, or knows nothing of it.")

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """What is known of a run's worker."""
        if not is_spread(run) or DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            return None
        return super().get_run_worker_debug_info(run, include_container_logs)

    def _works_on(self, worker: str, task: str) -> bool:
        asked = self.celery.control.inspect(destination=[worker], timeout=PATIENCE_SECONDS).query_task(task)
        return bool(asked and asked.get(worker))


def celery_app(broker: str) -> Celery:
    """The application that a worker serves: it runs what the launcher hands over.

    Args:
        broker: URL of the Redis, which also keeps what became of the tasks.
    """
    options = {"broker": broker, "backend": broker, "config_source": DEFAULT_CONFIG | CONFIG, "task_default_queue": QUEUE}
    app: Celery = make_app(options)  # type: ignore[no-untyped-call]
    create_execute_job_task(app)
    create_resume_job_task(app)
    return app


def answering(broker: str) -> list[str]:
    """Names of the workers that answer, in order; none where the broker cannot be reached.

    Args:
        broker: URL of the Redis.
    """
    from kombu.exceptions import OperationalError  # noqa: PLC0415 - kombu is there where Celery is

    try:
        answers = celery_app(broker).control.ping(timeout=2.0)
    except OperationalError:
        return []
    return sorted(name for answer in answers for name in answer)
