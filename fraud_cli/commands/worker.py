"""`fraud worker`: makes raw and transformed partitions that Dagster hands out, until it is stopped."""

import os
import platform
import sys

from fraud_assets.runtime.workers import QUEUE, celery_app
from fraud_cli.instance import environment, open_instance
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings

# What this machine would note for deliveries would wait here for ever: Dagster's own machine notes and delivers.
NOTHING_TO_DELIVER = {"FRAUD_DVC_REMOTE": "off", "FRAUD_MLFLOW_URL": "off"}


def work(settings: Settings, slots: int, name: str) -> int:
    """Serve until SIGTERM, which lets running partitions finish.

    Args:
        settings: with a broker.
        slots: runs at a time, each in a process.
        name: what this worker is called, apart from its machine.

    Raises:
        SettingsError: no broker is set.
        StoreError: Dagster's database cannot be reached.
    """
    if settings.broker is None:
        raise SettingsError("FRAUD_BROKER names the Redis that hands out partitions; without it there is nothing to wait for.")
    os.environ.update(environment(settings) | NOTHING_TO_DELIVER)
    open_instance(settings).dispose()  # says what stands in the way before anything is taken
    print(f"worker {name}@{platform.node()}: {slots} at a time", file=sys.stderr, flush=True)
    options = ["--queues", QUEUE, "--concurrency", str(slots), "--hostname", f"{name}@%h", "--loglevel", "WARNING"]
    celery_app(settings.broker.get_secret_value()).worker_main(["worker", *options])
    return 0
