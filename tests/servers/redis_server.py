"""A real Redis on a port of its own, for tests."""

import signal
from contextlib import ExitStack
from pathlib import Path

import redis

from fraud_cli.stack import servers
from tests.api_server import eventually
from tests.servers.processes import free_port, running

REDIS = servers.find("redis")


class RedisServer:
    """Can be stopped and started again on the same port; what it held is kept in an append-only file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = servers.redis(str(REDIS), self.folder, self.port)
        self.process = self._running.enter_context(running(command, self.folder / "redis.log", self._answers))

    def kill(self) -> None:
        """Kill it once the disk has taken what was answered: a busy one may keep it waiting for two seconds."""
        with redis.Redis(port=self.port) as client:
            eventually(lambda: client.info("persistence")["aof_buffer_length"] == 0)
        self.process.send_signal(signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """End it; what it holds stays in the folder."""
        self._running.close()

    def _answers(self) -> bool:
        with redis.Redis(port=self.port) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False
            except redis.BusyLoadingError:
                return False
