"""`fraud serve`, `ui`, `exporter`, `webserver`, `worker`: what serves until Ctrl-C."""

import os
import platform
import sys
from typing import Annotated

from typer import Argument, Option

from fraud_core.errors import SettingsError
from fraud_core.settings import Settings

# What this machine would note for deliveries would wait here for ever: Dagster's own machine notes and delivers.
NOTHING_TO_DELIVER = {"FRAUD_DVC_REMOTE": "off", "FRAUD_MLFLOW_URL": "off"}


def serve(
    settings: Settings,
    host: Annotated[str | None, Option(help="Address to bind to (default: FRAUD_API_HOST).")] = None,
    port: Annotated[int | None, Option(help="Port (default: FRAUD_API_PORT; 0 takes a free one).")] = None,
    workers: Annotated[int | None, Option(help="Processes (default: FRAUD_API_WORKERS).")] = None,
) -> None:
    """Serve the scoring API until Ctrl-C."""
    from fraud_api import server

    server.serve(settings, host, port, workers)


def ui(
    settings: Settings,
    host: Annotated[str | None, Option(help="Address to bind to (default: FRAUD_UI_HOST).")] = None,
    port: Annotated[int | None, Option(help="Port (default: FRAUD_UI_PORT; 0 takes a free one).")] = None,
) -> None:
    """Serve the analyst's desk until Ctrl-C."""
    from fraud_ui import server

    server.serve(settings, host, port)


def exporter(
    settings: Settings,
    host: Annotated[str | None, Option(help="Address to bind to (default: FRAUD_METRICS_HOST).")] = None,
    port: Annotated[int | None, Option(help="Port (default: FRAUD_EXPORTER_PORT).")] = None,
) -> None:
    """Serve the pipeline's metrics for Prometheus until Ctrl-C."""
    import dagster as dg

    from fraud_assets.events.exporter import serve
    from fraud_assets.installation import Installation
    from fraud_cli.instance import open_instance

    host, port = host or settings.metrics_host, port or settings.exporter_port
    # In a container DAGSTER_HOME names the instance that all share.
    with dg.DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else open_instance(settings) as instance:
        thread = serve(Installation.load(settings), instance, host, port)
        print(f"metrics of the pipeline on http://{host}:{port}/metrics", flush=True)
        while thread.is_alive():
            thread.join(0.5)  # without an end, Ctrl-C would not be heard


def webserver(
    settings: Settings,
    options: Annotated[list[str] | None, Argument(metavar="OPTIONS", help="Those options, after `--`.")] = None,
) -> None:
    """Dagster's web server behind a guard; takes all options of `dagster-webserver`."""
    from fraud_assets.access.webserver import serve
    from fraud_cli.instance import environment, open_instance

    if "DAGSTER_HOME" not in os.environ:
        open_instance(settings).dispose()  # makes the tables, or says what stands in the way
        os.environ.update(environment(settings))
    serve(settings, options or [])


def worker(
    settings: Settings,
    slots: Annotated[int, Option(help="Partitions at a time, each in a process.")] = 1,
    name: Annotated[str, Option(help="Its name, one on each machine.")] = "fraud",
) -> None:
    """Make partitions that Dagster hands out over FRAUD_BROKER, until Ctrl-C; SIGTERM lets running ones finish."""
    if settings.broker is None:
        raise SettingsError("FRAUD_BROKER names the Redis that hands out partitions; without it there is nothing to wait for.")
    from fraud_assets.runtime.workers import QUEUE, celery_app
    from fraud_cli.instance import environment, open_instance

    os.environ.update(environment(settings) | NOTHING_TO_DELIVER)
    open_instance(settings).dispose()  # says what stands in the way before anything is taken
    print(f"worker {name}@{platform.node()}: {slots} at a time", file=sys.stderr, flush=True)
    options = ["--queues", QUEUE, "--concurrency", str(slots), "--hostname", f"{name}@%h", "--loglevel", "WARNING"]
    celery_app(settings.broker.get_secret_value()).worker_main(["worker", *options])
