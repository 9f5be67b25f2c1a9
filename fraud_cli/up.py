"""`fraud up`: a champion if there is none, then every page and API there is, until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fraud_assets.project import Project
from fraud_assets.tracking.server import folder, server
from fraud_cli.instance import environment, open_instance
from fraud_core.bundle import read_latest
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings

GRACE_SECONDS = 15


@dataclass(frozen=True)
class Service:
    """A process of the system: what it is called, what it runs, where people find it (None: nowhere), and its own variables."""

    name: str
    command: tuple[str, ...]
    port: int | None = None
    url: str | None = None
    variables: tuple[tuple[str, str], ...] = ()


def services(settings: Settings) -> list[Service]:
    """Everything that runs."""
    here = Path(sys.executable).parent
    module = ("-m", "fraud_assets.definitions")
    port = settings.dagster_port
    return [
        Service(
            "Dagster UI",
            (str(here / "dagster-webserver"), *module, "--host", "127.0.0.1", "--port", str(port)),
            port,
            f"http://127.0.0.1:{port}",
        ),
        Service("Dagster daemon", (str(here / "dagster-daemon"), "run", *module)),
        Service(
            "Scoring API",
            (str(here / "fraud"), "serve", "--host", "127.0.0.1", "--port", str(settings.api_port)),
            settings.api_port,
            f"http://127.0.0.1:{settings.api_port}/openapi.json",
        ),
        Service(
            "Exporter",
            (str(here / "fraud"), "exporter", "--host", "127.0.0.1", "--port", str(settings.exporter_port)),
            settings.exporter_port,
            f"http://127.0.0.1:{settings.exporter_port}/metrics",
        ),
        Service(
            "Analyst desk",
            (str(here / "fraud"), "ui", "--host", "127.0.0.1", "--port", str(settings.ui_port)),
            settings.ui_port,
            f"http://127.0.0.1:{settings.ui_port}",
        ),
        *_mlflow(settings, here),
    ]


def _mlflow(settings: Settings, here: Path) -> list[Service]:
    """MLflow's pages over its embedded store, or over a database; a tracking server has pages of its own."""
    place = server(settings)
    if place is None or place.artifacts is None:
        return []
    folder(settings).mkdir(parents=True, exist_ok=True)
    port = settings.mlflow_port
    command = (str(here / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    return [Service("MLflow", command, port, place.pages, tuple(place.for_pages.items()))]


def up(settings: Settings) -> int:
    """Run until Ctrl-C, SIGTERM, or until a process ends by itself; then stop everything that was started."""
    wanted = services(settings)
    for service in wanted:
        if service.port is not None and _is_taken(service.port):
            raise SettingsError(
                f"Port {service.port} for the {service.name} is taken. Stop what runs there, "
                "or set another in .env (FRAUD_DAGSTER_PORT, FRAUD_API_PORT, FRAUD_UI_PORT, FRAUD_MLFLOW_PORT, "
                "FRAUD_EXPORTER_PORT)."
            )
    stop = _StopSignal()
    env = os.environ | environment(settings)
    if _needs_champion(settings):
        print("There is no champion yet: running the pipeline once.", file=sys.stderr)
        command = [sys.executable, "-m", "fraud_cli.main", "pipeline"]
        if _run(subprocess.Popen(command, env=env, stdout=sys.stderr, start_new_session=True), stop) != 0:
            return 130 if stop.asked else 1
    running: list[tuple[Service, subprocess.Popen[bytes]]] = []
    logs = settings.home / "logs"
    logs.mkdir(exist_ok=True)
    try:
        for service in wanted:
            log = (logs / f"{service.name.lower().replace(' ', '-')}.log").open("ab")
            own = env | dict(service.variables)
            running.append((service, subprocess.Popen(service.command, env=own, stdout=log, stderr=log, start_new_session=True)))
        if not _all_ready(running, stop):
            return 1
        _print_where(settings, wanted)
        while not stop.asked:
            for service, process in running:
                if process.poll() is not None:
                    print(
                        f"{service.name} ended by itself (status {process.returncode}); see {logs}. Stopping the rest.",
                        file=sys.stderr,
                    )
                    return 1
            time.sleep(0.3)
        return 0
    finally:
        print("stopping", file=sys.stderr)
        _stop([process for _, process in running])


class _StopSignal:
    """Remembers that Ctrl-C or SIGTERM was received."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True


def _needs_champion(settings: Settings) -> bool:
    artifacts = Project.load(settings).artifacts
    artifacts.check_writable()
    open_instance(settings).dispose()  # makes the tables, or says what stands in the way
    return read_latest(artifacts.store, artifacts.signing_key) is None


def _run(process: subprocess.Popen[bytes], stop: _StopSignal) -> int:
    while process.poll() is None:
        if stop.asked:
            _stop([process])
        time.sleep(0.2)
    return process.returncode


def _all_ready(running: list[tuple[Service, "subprocess.Popen[bytes]"]], stop: _StopSignal) -> bool:
    """Wait until every port answers; False when asked to stop or when a process ended."""
    for service, process in running:
        while service.port is not None and not _is_taken(service.port):
            if stop.asked or process.poll() is not None:
                if not stop.asked:
                    print(f"{service.name} did not start; see its log in the home folder's logs/.", file=sys.stderr)
                return stop.asked
            time.sleep(0.2)
    return True


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


def _print_where(settings: Settings, wanted: list[Service]) -> None:
    print("\nRunning. Ctrl-C stops everything.\n")
    for service in wanted:
        if service.url is not None:
            print(f"  {service.name:16} {service.url}")
    print(f"  {'State':16} {settings.home}")
    print(f"  {'Logs':16} {settings.home / 'logs'}")
    print("\n  `fraud models` lists the versions; `fraud --help` the rest.\n", flush=True)
