"""Real servers as child processes, for tests."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    """A port of the loopback that nobody has at present."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    answers: Callable[[], bool],
    *,
    seconds: float = 60.0,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers; killed at the end if it still runs.

    Args:
        command: what is started.
        log: where its output goes; shown if it does not come up.
        answers: whether it can be used; may raise OSError while it cannot.
        seconds: how long it may take to answer.
        environment: all of its variables; None: this process' own.
        user: under whom it runs; None: this process' own.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, user=user, cwd=log.parent)
    try:
        wait_for(process, answers, log, seconds)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_for(process: subprocess.Popen[bytes], answers: Callable[[], bool], log: Path, seconds: float = 60.0) -> None:
    """Wait until a process can be used."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if answers():
                return
        except OSError:
            pass
        assert process.poll() is None, f"it ended: {log.read_text()}"
        assert time.monotonic() < deadline, f"it did not come up: {log.read_text()}"
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Whether something accepts connections on a port of the loopback."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
