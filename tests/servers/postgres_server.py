"""A real PostgreSQL on a port of its own, for tests. It refuses to run as root, so root hands it to the user `postgres`."""

import os
import shutil
import signal
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg

from tests.servers.processes import free_port, running

_BINARIES = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
POSTGRES = shutil.which("postgres", path=os.pathsep.join([*map(str, _BINARIES), os.environ.get("PATH", "")]))


class PostgresServer:
    """Can be stopped and started again; a database `fraud` whose owner is `fraud`."""

    def __init__(self, folder: Path, address: str = "127.0.0.1", port: int | None = None) -> None:
        assert POSTGRES is not None
        self._user = "postgres" if os.geteuid() == 0 else None
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir()
        if self._user is not None:
            self._let_in()
            shutil.chown(folder, self._user)
            shutil.chown(self.data, self._user)
        self.address, self.port = address, port or free_port()
        self.url = f"postgresql://fraud@{address}:{self.port}/fraud"
        initdb = str(Path(POSTGRES).with_name("initdb"))
        initialize = [initdb, "-D", str(self.data), "-U", "fraud", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run(initialize, check=True, user=self._user, cwd=folder, stdout=subprocess.DEVNULL)
        self._running = ExitStack()
        self.start()
        with psycopg.connect(self._postgres, autocommit=True) as connection:
            connection.execute("create database fraud")

    @property
    def _postgres(self) -> str:
        return f"postgresql://fraud@{self.address}:{self.port}/postgres"

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._let_in()
        options = ["-c", f"listen_addresses={self.address}", "-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off"]
        command = [str(POSTGRES), "-D", str(self.data), "-p", str(self.port), *options]
        self.process = self._running.enter_context(running(command, self.folder / "postgres.log", self._answers, user=self._user))

    def stop(self) -> None:
        """End it at once; what was committed stays."""
        self.process.send_signal(signal.SIGINT)  # does not wait for those who are connected
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self._running.close()

    def _let_in(self) -> None:
        """Open pytest's folders to the server's user; every session of pytest on the machine closes them again as it begins."""
        for folder in [self.data, *self.data.parents] if self._user is not None else []:
            if folder.owner() == "root" and folder.is_relative_to("/tmp"):
                folder.chmod(folder.stat().st_mode | 0o755)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._postgres, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
