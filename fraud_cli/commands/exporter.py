"""`fraud exporter`: the pipeline's metrics, until Ctrl-C."""

import os

import dagster as dg

from fraud_assets.events.exporter import serve
from fraud_assets.installation import Installation
from fraud_cli.instance import open_instance
from fraud_core.settings import Settings


def run_exporter(settings: Settings, host: str | None = None, port: int | None = None) -> int:
    """Serve until the process is stopped, on the instance that DAGSTER_HOME names, else on the one in the home."""
    host, port = host or settings.metrics_host, port or settings.exporter_port
    with dg.DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else open_instance(settings) as instance:
        thread = serve(Installation.load(settings), instance, host, port)
        print(f"metrics of the pipeline on http://{host}:{port}/metrics", flush=True)
        while thread.is_alive():
            thread.join(0.5)  # without an end, Ctrl-C would not be heard
    return 0
