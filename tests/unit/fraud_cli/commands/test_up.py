"""`fraud up` starts everything, and stops everything that it started."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from fraud_cli.commands import up
from fraud_cli.commands.up import Service, services
from fraud_core.access.addresses import direct_to_loopback
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings

# Stands for `fraud up` with other services: two that serve, of which one has a child and one ignores Ctrl-C.
PROGRAM = """
import sys
from pathlib import Path
from fraud_cli.commands import up
from fraud_core.settings import Settings

folder, port, fails = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "fails"
parent = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
parent += "open(sys.argv[1], 'w').write(str(p.pid)); p.wait()"
server = "import signal, socket, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); s = socket.socket();"
server += "s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); print('ready', flush=True); time.sleep(600)"
dies = "import sys; sys.exit(7)"
wanted = [
    up.Service("Parent", (sys.executable, "-c", dies if fails else parent, str(folder / "grandchild"))),
    up.Service("Server", (sys.executable, "-c", server, str(port)), port, f"http://127.0.0.1:{port}"),
]
up.services = lambda settings: wanted
up._needs_champion = lambda settings: False
up.GRACE_SECONDS = 1
sys.exit(up.up(Settings(_env_file=None, home=folder / "home")))
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, port: int) -> Iterator[Start]:
    """Starts the program above, in a group of its own, which is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(ending: str = "serves") -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(port), ending]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def eventually(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_everything_that_was_started(start: Start, tmp_path: Path, port: int, number: int) -> None:
    process = start()
    assert process.stdout is not None
    said = ""
    while "fraud --help" not in said:
        line = process.stdout.readline()
        assert line, process.communicate(timeout=60)[1]  # it ended
        said += line
    assert f"http://127.0.0.1:{port}" in said
    assert str(tmp_path / "home") in said
    eventually(lambda: (tmp_path / "grandchild").exists() and (tmp_path / "grandchild").read_text() != "")
    grandchild = int((tmp_path / "grandchild").read_text())
    assert lives(grandchild)
    assert up._is_taken(port)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 0
    eventually(lambda: not lives(grandchild))
    assert not up._is_taken(port)
    assert "ready" in (tmp_path / "home" / "logs" / "server.log").read_text()


@pytest.mark.integration
def test_a_service_that_ends_by_itself_ends_the_rest_and_is_named(start: Start, port: int) -> None:
    process = start("fails")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Parent ended by itself (status 7)" in err
    assert not up._is_taken(port)


def test_a_port_that_is_taken_is_named_before_anything_starts(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "services", lambda _: [Service("Dagster UI", ("never",), port)])
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", port))
        occupant.listen()
        with pytest.raises(SettingsError, match=rf"Port {port} for the Dagster UI is taken"):
            up.up(Settings(_env_file=None, home=tmp_path / "home"))
    assert not (tmp_path / "home").exists()


def test_everything_listens_on_this_machine_alone(tmp_path: Path) -> None:
    wanted = services(Settings(_env_file=None, home=tmp_path, dagster_port=3456, api_port=8765))
    assert {service.port for service in wanted} >= {3456, 8765}
    for service in wanted:
        if service.port is not None:
            assert service.command[service.command.index("--host") + 1] == "127.0.0.1"
            assert service.command[service.command.index("--port") + 1] == str(service.port)


def test_a_server_that_never_answers_is_named_and_not_waited_for_any_longer(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(up, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(up, "SAY_SECONDS", 0.1)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    running = up._Running(tmp_path / "logs", os.environ, Event())
    try:
        silent = Service("Silent server", (sys.executable, "-c", "import time; time.sleep(60)"), port)
        assert not running.start([silent])
        assert running.status == 1
    finally:
        running.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
    said = capsys.readouterr().err
    assert "waiting for the Silent server" in said
    assert "Nothing usable after 0.3 s from the Silent server" in said
    assert str(tmp_path / "logs" / "silent-server.log") in said


def test_loopback_goes_direct_whatever_else_is_named() -> None:
    added = {"127.0.0.1", "localhost", "::1"}
    assert set(direct_to_loopback({})["NO_PROXY"].split(",")) == added
    both = direct_to_loopback({"NO_PROXY": "s3.internal, localhost"})
    assert both["NO_PROXY"] == both["no_proxy"]
    assert set(both["no_proxy"].split(",")) == added | {"s3.internal"}
    assert direct_to_loopback({"no_proxy": "*"})["NO_PROXY"] == "*"
