"""What compose.yaml runs, as plain processes: each service's own command, environment and health check, without a container.

A service has an address of its own on the loopback in the place of its name, and folders in the place of its image's and volumes'
paths. Nothing else of a command or of the environment is changed.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from fraud_cli.stack import servers
from tests.compose_files import BINARIES, ROOT, dockerfile, listed, variables
from tests.servers.postgres_server import POSTGRES, PostgresServer
from tests.servers.processes import free_port

# Programs that an image of others starts by itself; here they come from packages.
PROGRAMS = {"prometheus": servers.find("prometheus"), "alertmanager": servers.find("alertmanager"), "s3": servers.find("s3")}


class ComposeProcesses:
    """The services of a compose file, started in the order of what they wait for.

    Args:
        folder: empty; holds volumes, images' files and logs.
        stack: what docker-compose makes of the file.
        leave_out: services that are not started.
    """

    def __init__(self, folder: Path, stack: dict[str, Any], leave_out: set[str]) -> None:
        self._folder, self._stack = folder, stack["services"]
        self._databases = stack["configs"]["databases"]["content"]
        self.names = [name for name in self._stack if name not in leave_out]
        net = f"127.{64 + os.getpid() // 250 % 64}.{os.getpid() % 250 + 1}"
        self.addresses = {name: f"{net}.{10 + at}" for at, name in enumerate(self._stack)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._postgres: PostgresServer | None = None
        (folder / "logs").mkdir()
        (folder / "tmp").mkdir()

    def start(self, patience: float = 150.0) -> None:
        """Start each when those it waits for are healthy, as compose does, and wait for the last one that others wait for."""
        waiting, healthy = list(self.names), set[str]()
        needed = {need for name in self.names for need in self._needs(name)}
        deadline = time.monotonic() + patience
        while waiting or needed - healthy:
            for name in [name for name in waiting if self._needs(name) <= healthy]:
                waiting.remove(name)
                self._begin(name)
            for name in needed - healthy - set(waiting):
                if self.is_healthy(name):
                    healthy.add(name)
            for name, process in self._processes.items():
                assert process.poll() is None, f"{name} ended: {self.log(name)}"
            assert time.monotonic() < deadline, f"not healthy: {needed - healthy}, not started: {waiting}"
            time.sleep(0.3)

    def is_healthy(self, name: str) -> bool:
        """Whether a service's own health check passes."""
        if name in self._processes and name != "daemon" and not self._listens(name):  # the daemon alone has no port
            return False  # the check would only take time from what it waits for
        check = self._stack[name].get("healthcheck", {}).get("test") or ["CMD", *listed(self._image(name), "HEALTHCHECK")]
        kind, *words = [self._here(name, word) for word in check]
        if words[0] == "wget":  # images have it; a machine need not
            with suppress(OSError), urllib.request.urlopen(words[-1], timeout=5) as answer:
                return bool(answer.status == 200)
            return False
        if words[:2] == ["dagster", "api"]:  # it asks localhost, as this asks 127.0.0.1
            words += ["--host", self.addresses[name]]
        if name == "redis":
            words[0] = words[0].replace("redis-cli", f"redis-cli -h {self.addresses[name]}")
        command = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        ended = subprocess.run(command, env=self.environment(name), capture_output=True, timeout=90, check=False, cwd=ROOT)
        return ended.returncode == 0

    def run(self, name: str, *command: str) -> str:
        """What a command prints within a service, as `docker compose exec` would run it; none: the service's own command."""
        words = list(command) or self._command(name)
        ended = subprocess.run(words, env=self.environment(name), capture_output=True, text=True, check=False, cwd=ROOT)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def log(self, name: str) -> str:
        """What a service has said so far."""
        return (self._folder / "logs" / name).read_text()

    def environment(self, name: str) -> dict[str, str]:
        """All of a service's variables: its image's, and those that compose gives it."""
        image = self._image(name)
        given = variables(image) if image else {}
        given |= {key: value for key, value in (self._stack[name].get("environment") or {}).items() if value is not None}
        own = {key: self._here(name, str(value)) for key, value in given.items()}
        # On a container's 0.0.0.0 these are what `auto` means; on loopback it would let everybody in.
        auth = {"scorer": ("API", "keys"), "ui": ("UI", "users"), "pipeline": ("DAGSTER", "users")}
        if image in auth:
            own[f"FRAUD_{auth[image][0]}_AUTH"] = auth[image][1]
        path = os.pathsep.join([BINARIES, *([str(Path(POSTGRES).parent)] if POSTGRES else [])])
        return own | {"PATH": path, "HOME": str(self._folder / "tmp"), "PYTHONPATH": str(ROOT)}

    def image_folder(self, name: str) -> Path:
        """Where the files lie that a service's image holds."""
        folder = self._folder / "images" / self._image(name)
        if not folder.exists():
            folder.mkdir(parents=True)
            self._unpack(name, folder)
        return folder

    def stop(self) -> None:
        """End all, at once."""
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if self._postgres is not None:
            self._postgres.stop()

    # ---- one service

    def _image(self, name: str) -> str:
        """The name of the Dockerfile of ours; empty: the image is others'."""
        found = re.match(r"fraud-(\w+):", self._stack[name]["image"])
        return found[1] if found else ""

    def _needs(self, name: str) -> set[str]:
        return set(self._stack[name].get("depends_on") or {})

    def _begin(self, name: str) -> None:
        if name == "postgres":
            folder = self._folder / "postgres"
            folder.mkdir()
            self._postgres = PostgresServer(folder, self.addresses[name], 5432)
            with psycopg.connect(self._postgres.url, autocommit=True) as connection:
                for statement in filter(str.strip, self._databases.split(";")):
                    connection.execute(statement)
            return
        for mount in self._stack[name].get("volumes", []):
            Path(self._place(name, mount["target"])).mkdir(parents=True, exist_ok=True)
        with (self._folder / "logs" / name).open("wb") as log:
            self._processes[name] = subprocess.Popen(
                self._command(name), env=self.environment(name), stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )

    def _command(self, name: str) -> list[str]:
        given = self._stack[name].get("command") or listed(self._image(name), "CMD")
        words = [self._here(name, word.replace("$$", "$")) for word in given]
        address = self.addresses[name]
        match name:  # what a container's own network and file system say
            case "redis":
                words[-1] = words[-1].replace(
                    "redis-server", f"{servers.find('redis')} --bind {address} --dir {self._volume('redis')}"
                )
            case "s3":
                words.append(f"-filer.port={free_port()}")  # names a socket in /tmp
            case "prometheus":  # Debian's is older than the image's, which expands labels by itself
                words += [f"--web.listen-address={address}:9090", "--enable-feature=expand-external-labels"]
            case "alertmanager":
                words.append(f"--web.listen-address={address}:9093")
        return [str(PROGRAMS[name]), *words] if name in PROGRAMS else words

    def _listens(self, name: str) -> bool:
        """Whether a service has opened any port at its address."""
        listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        packed = "".join(f"{int(part):02X}" for part in reversed(self.addresses[name].split(".")))
        return re.search(rf"{packed}:[0-9A-F]{{4}} 0+:0000 0A ", listening) is not None

    def _here(self, name: str, text: str) -> str:
        """A word or a file of a service, with addresses in the place of names, and folders in the place of paths."""
        text = text.replace("0.0.0.0", self.addresses[name]).replace("127.0.0.1", self.addresses[name])
        others = "|".join(self.addresses)
        text = re.sub(rf'(//|@|"|host: )({others})(?=[:/"\n])', lambda found: found[1] + self.addresses[found[2]], text)
        text = re.sub(rf"^({others})(?=:\*)", lambda found: self.addresses[found[1]], text)
        paths = [mount["target"] for mount in self._stack[name].get("volumes", [])]
        paths += ["/var/lib/dagster", "/etc/prometheus", "/etc/alertmanager"]
        for path in sorted(paths, key=len, reverse=True):
            text = re.sub(rf"(?<![\w/.-]){path}(?=[/\s\"']|$)", self._place(name, path), text)
        return text

    def _place(self, name: str, path: str) -> str:
        """The folder in the place of a path in a container."""
        mounts = {mount["target"]: mount["source"] for mount in self._stack[name].get("volumes", [])}
        if path in mounts and not path.startswith("/var/lib/dagster"):
            return str(self._volume(mounts[path]))
        return f"{self._folder / 'images' / self._image(name)}{path}"

    def _volume(self, name: str) -> Path:
        return self._folder / "volumes" / name

    def _unpack(self, name: str, folder: Path) -> None:
        """What the Dockerfile copies to absolute paths, and rewrites there."""
        for line in dockerfile(self._image(name)):
            words = [word for word in line.split() if not word.startswith("--")]
            if words[0] == "COPY" and words[-1].startswith("/") and "--from=" not in line:
                for source in words[1:-1]:
                    self._copy(name, ROOT / source, folder, words[-1])
            if line.startswith("RUN sed -i"):
                edited = [self._here(name, word) for word in re.findall(r"'[^']*'|\S+", line.removeprefix("RUN "))]
                subprocess.run(["sh", "-c", " ".join(edited)], check=True)

    def _copy(self, name: str, source: Path, folder: Path, target: str) -> None:
        into = folder / target.lstrip("/")
        if source.is_dir():
            shutil.copytree(source, into)
        else:
            file = into / source.name if target.endswith("/") else into
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, file)
        for path in folder.rglob("*.yml"), folder.rglob("*.yaml"):
            for file in path:
                file.write_text(self._here(name, file.read_text()))


def last_json(text: str) -> Any:
    """The object on the last line."""
    return json.loads(text.splitlines()[-1])
