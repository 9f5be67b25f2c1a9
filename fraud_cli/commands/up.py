"""`fraud up`: a champion if there is none, then every page and API there is, until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Annotated, Literal

from typer import Option

from fraud_cli.stack.service import Service
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings

GRACE_SECONDS = 15
PATIENCE_SECONDS = 300  # a slow machine takes a minute for the slowest
SAY_SECONDS = 20


def up(
    settings: Settings,
    stack: Annotated[
        Literal["embedded", "full"],
        Option(help="full: with an S3 server, Redis, MLflow, Prometheus and Alertmanager beside it."),
    ] = "embedded",
) -> int:
    """Make a champion if there is none, and run everything there is a page or an API for, until Ctrl-C.

    SIGTERM stops it, too, and so does a process that ends by itself; then everything that was started is stopped.
    """
    from fraud_cli.instance import environment
    from fraud_core.storage.database import open_database
    from fraud_core.storage.schema import upgrade

    servers: list[Service] = []
    hint = ""
    if stack == "full":
        from fraud_cli.stack.full import FullStack

        full = FullStack(settings)
        servers = full.services
        _see_ports_free(servers)
        settings, variables = full.prepare()
        os.environ.update(variables)  # this process uses the store, too
        hint = f"  `. {full.environment_file}` lets `fraud` in another terminal use this stack.\n"
    product = services(settings)
    _see_ports_free(product)
    stop = _stop_signal()
    env = os.environ | environment(settings)
    running = _Running(settings.home / "logs", env, stop)
    try:
        if not running.start(servers):
            return running.status
        upgrade(open_database(settings))  # once, before several processes want it
        if _needs_champion(settings):
            print("There is no champion yet: running the pipeline once.", file=sys.stderr)
            command = [sys.executable, "-m", "fraud_cli.main", "pipeline"]
            if _run(subprocess.Popen(command, env=env, stdout=sys.stderr, start_new_session=True), stop) != 0:
                return 130 if stop.is_set() else 1
        if not running.start(product):
            return running.status
        _print_where(settings, [*servers, *product], hint)
        while not stop.is_set():
            if running.ended_by_itself():
                return 1
            time.sleep(0.3)
        return 0
    finally:
        print("stopping", file=sys.stderr)
        running.stop()


def services(settings: Settings) -> list[Service]:
    """Everything that runs."""
    here = Path(sys.executable).parent
    module = ("-m", "fraud_assets.definitions")

    def own(name: str, command: tuple[str, ...], setting: str, path: str = "") -> Service:
        """One of this product's own servers, at the port that a setting names."""
        port = getattr(settings, setting)
        address = ("--host", "127.0.0.1", "--port", str(port))
        url = f"http://127.0.0.1:{port}{path}"
        return Service(name, (str(here / "fraud"), *command, *address), port, url, setting=f"FRAUD_{setting.upper()}")

    return [
        own("Dagster UI", ("webserver", "--", *module), "dagster_port"),
        Service("Dagster daemon", (str(here / "dagster-daemon"), "run", *module)),
        own("Scoring API", ("serve",), "api_port", "/openapi.json"),
        own("Exporter", ("exporter",), "exporter_port", "/metrics"),
        own("Analyst desk", ("ui",), "ui_port"),
        *_mlflow(settings, here),
    ]


def _mlflow(settings: Settings, here: Path) -> list[Service]:
    """MLflow's pages over its embedded store, or over a database; a tracking server has pages of its own."""
    from fraud_assets.delivery.mlflow.server import folder, server

    place = server(settings)
    if place is None or place.artifacts is None:
        return []
    folder(settings).mkdir(parents=True, exist_ok=True)
    port = settings.mlflow_port
    command = (str(here / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    variables = tuple(place.for_pages.items())
    return [Service("MLflow", command, port, place.pages, variables, setting="FRAUD_MLFLOW_PORT")]


def _see_ports_free(wanted: list[Service]) -> None:
    for service in wanted:
        for port in () if service.port is None else (service.port, *service.more_ports):
            if _is_taken(port):
                raise SettingsError(
                    f"Port {port} for the {service.name} is taken. Stop what runs there, "
                    f"or set another in .env ({service.setting})."
                )


class _Running:
    """The processes that were started, each with a log."""

    def __init__(self, logs: Path, env: Mapping[str, str], stop: Event) -> None:
        self._logs, self._env, self._stop = logs, env, stop
        self._started: list[list[tuple[Service, subprocess.Popen[bytes]]]] = []
        logs.mkdir(parents=True, exist_ok=True)

    @property
    def status(self) -> int:
        """The command's own, when not everything came up."""
        return 0 if self._stop.is_set() else 1

    def start(self, wanted: list[Service]) -> bool:
        """Start them together; False when asked to stop, or when one ended before all could be used."""
        begun: list[tuple[Service, subprocess.Popen[bytes]]] = []
        self._started.append(begun)
        for service in wanted:
            with self._log_of(service).open("ab") as log:
                own = {**self._env, **dict(service.variables)}
                begun.append(
                    (service, subprocess.Popen(service.command, env=own, stdout=log, stderr=log, start_new_session=True))
                )
        return all(self._wait_for(service) for service, _ in begun)

    def _wait_for(self, service: Service) -> bool:
        """Whether a service comes to answer; while it does not, and when nobody waits any longer, it is named."""
        begun = said = time.monotonic()
        while not _answers(service):
            if self._stop.is_set() or self.ended_by_itself():
                return False
            now = time.monotonic()
            where = f"the {service.name}, {self._log_of(service)} says more"
            if now - begun > PATIENCE_SECONDS:
                print(f"Nothing usable after {PATIENCE_SECONDS} s from {where}. Stopping the rest.", file=sys.stderr)
                return False
            if now - said > SAY_SECONDS:
                said = now
                print(f"waiting for {where}", file=sys.stderr)
            time.sleep(0.2)
        return True

    def _log_of(self, service: Service) -> Path:
        return self._logs / f"{service.name.lower().replace(' ', '-')}.log"

    def ended_by_itself(self) -> bool:
        """Whether one has; it is named."""
        for service, process in [one for begun in self._started for one in begun]:
            if process.poll() is not None:
                print(
                    f"{service.name} ended by itself (status {process.returncode}); see {self._logs}. Stopping the rest.",
                    file=sys.stderr,
                )
                return True
        return False

    def stop(self) -> None:
        """Stop everything; what others depend on last."""
        for begun in reversed(self._started):
            _stop([process for _, process in begun])


def _stop_signal() -> Event:
    """Is set once Ctrl-C or SIGTERM was received."""
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _needs_champion(settings: Settings) -> bool:
    from fraud_assets.installation import Installation
    from fraud_cli.instance import open_instance
    from fraud_core.models.registry import read_latest

    artifacts = Installation.load(settings).artifacts
    artifacts.check_writable()
    open_instance(settings).dispose()  # makes the tables, or says what stands in the way
    return read_latest(artifacts.store, artifacts.signing_key) is None


def _run(process: subprocess.Popen[bytes], stop: Event) -> int:
    while process.poll() is None:
        if stop.is_set():
            _stop([process])
        time.sleep(0.2)
    return process.returncode


def _answers(service: Service) -> bool:
    if service.port is not None and not _is_taken(service.port):
        return False
    return service.is_ready is None or service.is_ready()


def _stop(processes: list["subprocess.Popen[bytes]"]) -> None:
    """Interrupt each process group, wait, and kill what is left."""
    for number, patience in ((signal.SIGINT, GRACE_SECONDS), (signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 5)):
        for process in processes:
            _signal_group(process, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and any(_group_lives(process) for process in processes):
            for process in processes:
                process.poll()
            time.sleep(0.1)


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _group_lives(process: "subprocess.Popen[bytes]") -> bool:
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _print_where(settings: Settings, wanted: list[Service], hint: str) -> None:
    print("\nRunning. Ctrl-C stops everything.\n")
    for service in wanted:
        if service.url is not None:
            print(f"  {service.name:16} {service.url}")
    print(f"  {'State':16} {settings.home}")
    print(f"  {'Logs':16} {settings.home / 'logs'}")
    print(f"\n{hint}  `fraud models` lists the versions; `fraud --help` the rest.\n", flush=True)
