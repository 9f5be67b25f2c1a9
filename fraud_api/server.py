"""Runs the application on uvicorn: in one process or several, and stops without losing a request."""

import asyncio
import gc
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Collection
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from uvicorn.supervisors import Multiprocess

from fraud_api.app import create_app
from fraud_api.http.access_log import Draining, requests_log
from fraud_api.http.security import must_show_key
from fraud_api.metrics.workers import FOLDER_VARIABLE, WorkersCollector, join_registry
from fraud_core.access.addresses import is_loopback
from fraud_core.access.browsers import own_hosts
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings
from fraud_core.signing.keys import card_key, signing_key
from fraud_core.storage.database import open_database
from fraud_core.storage.schema import upgrade_at_start

logger = logging.getLogger(__name__)

LAST_REQUEST_SECONDS = 0.2
WORKER_SECONDS = 60  # on a busy machine a worker's imports alone may take longer than the 5 s after which uvicorn begins anew


def serve(settings: Settings, host: str | None = None, port: int | None = None, workers: int | None = None) -> None:
    """Serve the scoring API until SIGTERM or Ctrl-C.

    Args:
        settings: all of it; host, port and workers override what it says.
        port: 0 takes a free one; the log names it.

    Raises:
        SettingsError: the address cannot be bound, or would be open to everyone and nobody said that this is meant.
        SchemaError: a newer release upgraded the database.
    """
    host = settings.api_host if host is None else host
    port = settings.api_port if port is None else port
    workers = settings.api_workers if workers is None else workers
    configure_logging(settings)
    asks_for_keys = must_show_key(settings, host)
    hosts = own_hosts(settings.allowed_hosts) if is_loopback(host) else None
    signing_key(settings)  # made here, by one process, if there is none yet
    card_key(settings)
    upgrade_at_start(open_database(settings))
    config = uvicorn.Config(
        partial(worker_app, settings, asks_for_keys=asks_for_keys, hosts=hosts),
        factory=True,
        host=host,
        port=port,
        workers=workers,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=settings.api_stop_seconds,
        timeout_worker_healthcheck=WORKER_SECONDS,
        backlog=2_048,
    )
    try:
        socket = config.bind_socket()
    except SystemExit as error:
        raise SettingsError(f"{host}:{port} cannot be bound: it is taken, or not an address of this machine.") from error
    bound = socket.getsockname()[1]
    logger.info(
        "scoring API on http://%s:%d, %d process(es), %s", host, bound, workers, "with keys" if asks_for_keys else "without keys"
    )
    try:
        if workers == 1:
            uvicorn.Server(config).run(sockets=[socket])
        else:
            folder = _share_metrics(settings, bound)
            if settings.metrics_port:
                registry = CollectorRegistry()
                registry.register(WorkersCollector(folder))
                join_registry(settings, registry)
            Workers(config, sockets=[socket]).run()
    except KeyboardInterrupt:
        pass  # uvicorn raises it again once everything is finished
    finally:
        socket.close()


class Workers(Multiprocess):
    """uvicorn's supervisor of worker processes, which notices at once that one died while it was asked whether it lives."""

    def keep_subprocess_alive(self) -> None:
        """Replace the workers that died or hang.

        The supervisor's copy of a worker's end of the pipe is closed: while it is open, the pipe of a dead worker has no end,
        and its answer is waited for until `WORKER_SECONDS` are over.
        """
        for process in self.processes:
            process.child_conn.close()
        super().keep_subprocess_alive()


def worker_app(settings: Settings, *, asks_for_keys: bool, hosts: Collection[str] | None = None) -> FastAPI:
    """The application of one process."""
    configure_logging(settings)

    parent = os.getppid()

    def started(draining: Draining) -> None:
        drain_first(draining, settings.api_drain_seconds)
        tune_interpreter()
        if multiprocessing.parent_process() is not None:
            exit_with_parent(parent)

    return create_app(settings, asks_for_keys=asks_for_keys, hosts=hosts, on_start=started)


def exit_with_parent(parent: int) -> None:
    """Stop once the process that started this one is gone, killed without a chance to say so."""
    if os.getppid() == parent:
        asyncio.get_running_loop().call_later(1.0, exit_with_parent, parent)
    else:
        logger.error("the process that started this one is gone; stopping")
        signal.raise_signal(signal.SIGTERM)


def tune_interpreter() -> None:
    """Keep what is not a request from holding requests up."""
    # Another thread gives the interpreter back within a millisecond, not five: loading a model delays no answer longer.
    sys.setswitchinterval(0.001)
    # Modules and model are not looked through for garbage, again and again, for as long as the process lives.
    gc.collect()
    gc.freeze()


def drain_first(draining: Draining, seconds: float) -> None:
    """From SIGTERM on, go on answering for a while, with `Connection: close`, before uvicorn's own stop begins.

    A caller who keeps connections open could otherwise send into one just as it is closed. Then nobody new is let in, and who
    was let in last gets the time to send his request. A second SIGTERM stops at once.
    """
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)
    server = getattr(stop, "__self__", None)  # uvicorn's handler is a method of its server
    assert callable(stop)
    assert isinstance(server, uvicorn.Server)

    def begin(number: int, frame: FrameType | None) -> None:
        if draining.active:
            stop(number, frame)
        else:
            draining.active = True
            loop.call_soon_threadsafe(loop.call_later, seconds, close_doors, number)

    def close_doors(number: int) -> None:
        for listener in server.servers:
            listener.close()
        loop.call_later(LAST_REQUEST_SECONDS, stop, number, None)

    signal.signal(signal.SIGTERM, begin)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(settings: Settings) -> None:
    """Requests to standard output, one line each; everything else to standard error."""
    other = logging.StreamHandler(sys.stderr)
    as_text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    other.setFormatter(_JsonLines() if settings.log_format == "json" else as_text)
    logging.basicConfig(level=logging.INFO, handlers=[other], force=True)
    requests = logging.StreamHandler(sys.stdout)
    requests.setFormatter(logging.Formatter("%(message)s"))
    requests_log.handlers = [requests]
    requests_log.propagate = False


def _share_metrics(settings: Settings, port: int) -> Path:
    """A new folder for the workers' metrics; they find it by a variable."""
    folder = settings.home / "run" / f"metrics-{port}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ[FOLDER_VARIABLE] = str(folder)
    return folder
