"""Every command of README and docs is carried out, page by page, as a reader would; what needs Docker or AWS is linted."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.documents import PAGES, ROOT, Block, blocks
from tests.servers.postgres_server import POSTGRES, PostgresServer
from tests.servers.processes import free_port
from tests.servers.redis_server import REDIS, RedisServer
from tests.servers.s3_server import WEED, S3Server
from tests.shared_data import shared_file

pytestmark = pytest.mark.integration

# One reader, one sandbox: these pages are read one after the other. Every other page is read by itself.
WALKS = (
    ("README.md", "docs/quick-start.md", "docs/guides/service.md", "docs/guides/on-call.md", "docs/history.md"),
    ("docs/desk.md", "docs/operations.md"),  # there are users in the database that is backed up
    ("docs/own-data.md", "docs/own-field.md"),
)

# Commands that are not carried out here, and why. Each must stand in a document.
NOT_RUN = {
    "make setup": "takes minutes, and made the environment that this runs in",
    "make test": "runs this very test",
    "make lint": "CI runs it before the tests",
    "make types": "CI runs it before the tests",
    "make rehearse": "CI runs it before the tests",
    "make systems": "runs this very test",
    "make docs": "tests/integration/test_site.py builds the site",
    "fraud users card anna": "asks a person at a terminal",
}

# Commands that go on until Ctrl-C: the variable of their port, the port that the documents name, what answers in the end.
SERVERS = {
    "make run": ("FRAUD_API_PORT", 8000, "/readyz"),
    "fraud serve": ("FRAUD_API_PORT", 8000, "/readyz"),
    "prometheus": ("PROMETHEUS_PORT", 9090, "/-/ready"),
    "prometheus-alertmanager": ("ALERTMANAGER_PORT", 9093, "/-/ready"),
}
LISTEN = '--web.listen-address="127.0.0.1:${}"'  # Debian's two servers know no variable
OTHER_PORTS = {"FRAUD_DAGSTER_PORT": 3000, "FRAUD_UI_PORT": 7860, "FRAUD_MLFLOW_PORT": 5000, "FRAUD_EXPORTER_PORT": 9109}

# The simulated source with fewer cards, months and days, and trainings that look at less.
SMALLER = {
    'last = "2024-12"': 'last = "2024-06"',
    "cardholders = 1_000": "cardholders = 80",
    "merchants = 800": "merchants = 80",
    "fraud_rate = 0.008": "fraud_rate = 0.06",
    "holdout_days = 60": "holdout_days = 40",
    "validation_days = 45": "validation_days = 25",
    "training_days = 60": "training_days = 30",
}
QUICKER = {
    "FRAUD_MAX_TRAINING_ROWS": "1000",
    "FRAUD_BOOTSTRAP_DRAWS": "100",
    "FRAUD_MIN_HOLDOUT_FRAUDS": "5",
    "FRAUD_PROMOTION_MARGIN": "1",
    "FRAUD_PROMOTION_DECLINE": "1",
    "FRAUD_PROMOTION_LIFT": "1",
    "FRAUD_DRIFT_DETECTOR": "scipy",
    "FRAUD_AUTOMATION": "off",  # nothing trains while a page is read
    "FRAUD_API_DRAIN_SECONDS": "0",
    "FRAUD_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
}
SHARED = {"fraud_data.csv"}  # of the files that the pages name, what a reader would fetch
# Elsewhere no data version and no record is delivered: that costs seconds with each command.
DELIVERED = {"FRAUD_MLFLOW_URL": {"docs/mlflow.md"}, "FRAUD_DVC_REMOTE": {"docs/data-versions.md"}}

PRELUDE = """\
set -euo pipefail
started=()
stop() {
    for process in "${started[@]}"; do kill -TERM -- "-$process" 2>/dev/null || true; done
    for process in "${started[@]}"; do wait "$process" || true; done
}
trap stop EXIT
serve() {  # serve URL COMMAND...: run it until the end of the walk, and go on when it answers
    if curl -sf -o /dev/null "$1"; then echo "it runs already"; return; fi
    setsid "${@:2}" >>servers.log 2>&1 &
    started+=($!)
    local end=$((SECONDS + 180))
    until curl -sf -o /dev/null "$1"; do
        ((SECONDS < end)) || { cat servers.log; echo "it did not answer"; exit 1; }
        kill -0 $! 2>/dev/null || { cat servers.log; echo "it ended before it answered"; exit 1; }
        sleep 0.2
    done
}
"""


def pages(walk: tuple[str, ...]) -> list[Block]:
    """The blocks of a walk."""
    return [block for page in walk for block in blocks(ROOT / page)]


def is_run(block: Block) -> bool:
    return block.language in {"bash", "python"} and block.needs not in LINTED


LINTED = {"docker", "aws", "root"}
ALL = [block for path in PAGES for block in blocks(path)]
ALONE = [str(path.relative_to(ROOT)) for path in PAGES if not any(str(path.relative_to(ROOT)) in walk for walk in WALKS)]
READ = [walk for walk in (*WALKS, *((page,) for page in ALONE)) if any(is_run(block) for block in pages(walk))]


def plain(line: str) -> str:
    """A line without its comment, and without the path to the environment."""
    return re.sub(r"\s+#\s.*$", "", line).strip().removeprefix(".venv/bin/")


def clone(folder: Path) -> None:
    """Make a folder as git and `make setup` would, whose environment is this one's and whose simulated source is smaller."""
    folder.mkdir()
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in {"build", "data", "sources"}:
            (folder / path.name).symlink_to(path)
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (folder / ".venv" / ".setup-stamp").touch()  # make has nothing to set up
    shutil.copytree(ROOT / "sources", folder / "sources")
    small = (ROOT / "sources" / "simulated.toml").read_text(encoding="utf-8")
    for old, new in SMALLER.items():
        assert old in small
        small = small.replace(old, new)
    (folder / "sources" / "simulated.toml").write_text(small, encoding="utf-8")


@dataclass(frozen=True)
class Reader:
    """Follows pages in a folder that looks like a clone of the repository, with ports of its own."""

    folder: Path
    variables: dict[str, str]

    @classmethod
    def at(cls, folder: Path, **more: str) -> "Reader":
        """A reader in a clone, with ports of their own and what is set otherwise than by default."""
        inherited = {name: os.environ[name] for name in ("HOME", "LANG", "CI", "USER") if name in os.environ}
        path = f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}"
        ports = [variable for variable, _, _ in SERVERS.values()] + list(OTHER_PORTS)
        given = {variable: str(free_port()) for variable in ports}
        return cls(folder, inherited | {"PATH": path, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)} | QUICKER | given | more)

    def run(self, script: str) -> None:
        """Run a script to its end, which must be a good one."""
        ended = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout[-6000:]

    def script(self, walk: tuple[str, ...]) -> str:
        """What the pages tell the reader to do."""
        parts = [PRELUDE]
        for block in pages(walk):
            if block.title is not None or is_run(block):
                parts.append(f"echo '@@ {block.where}'\n")
            if block.title is not None:
                parts.append(
                    f"mkdir -p \"$(dirname {block.title})\"\ncat >{block.title} <<'END OF BLOCK'\n{block.text}END OF BLOCK\n"
                )
            elif is_run(block) and block.language == "python":
                parts.append(f"python - <<'END OF BLOCK'\n{block.text}END OF BLOCK\n")
            elif is_run(block):
                parts += [self._line(line) + "\n" for line in block.text.splitlines()]
        text = "".join(parts)
        known = {port: variable for variable, port, _ in SERVERS.values()} | {n: v for v, n in OTHER_PORTS.items()}
        for port, variable in known.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{self.variables[variable]}")
        return text

    def _line(self, line: str) -> str:
        command = plain(line)
        if command in NOT_RUN:
            return ":"
        for beginning, (variable, _, route) in SERVERS.items():
            if re.match(rf"{beginning}(\s|$)", command):
                listen = f" {LISTEN.format(variable)}" if not variable.startswith("FRAUD_") else ""
                return f'serve "http://127.0.0.1:${variable}{route}" {command}{listen}'
        return line


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which two models were promoted; the second is tracked, and its data have versions."""
    folder = tmp_path_factory.mktemp("documents") / "installed"
    clone(folder)
    Reader.at(folder, FRAUD_MLFLOW_URL="off", FRAUD_DVC_REMOTE="off").run("fraud pipeline --until 2024-05")
    Reader.at(folder).run("fraud pipeline")
    return folder


@dataclass(frozen=True)
class Server:
    """A server that a page may need: whether it is installed, how it starts in a folder, and what it sets."""

    binary: str | None
    start: Callable[[Path], tuple[dict[str, str], Callable[[], None]]]


def _s3(folder: Path) -> tuple[dict[str, str], Callable[[], None]]:
    server = S3Server(folder, "acme-fraud")
    return server.environment, server.stop


def _postgres(folder: Path) -> tuple[dict[str, str], Callable[[], None]]:
    server = PostgresServer(folder)
    return {"FRAUD_DATABASE": server.url}, server.stop


def _redis(folder: Path) -> tuple[dict[str, str], Callable[[], None]]:
    server = RedisServer(folder)
    return {"FRAUD_HISTORY": server.url}, server.stop


RUN_WITH = {"s3": Server(WEED, _s3), "postgres": Server(POSTGRES, _postgres), "redis": Server(REDIS, _redis)}


@pytest.fixture(scope="module")
def readers(installed: Path) -> Iterator[dict[tuple[str, ...], Future[None]]]:
    """All walks, two at a time: most of a walk is waiting for a process to start."""

    def follow(walk: tuple[str, ...]) -> None:
        folder = installed.with_name(re.sub(r"\W+", "-", walk[0]))
        shutil.copytree(installed, folder, symlinks=True)
        with ExitStack() as servers:
            variables = {name: "off" for name, using in DELIVERED.items() if not using & set(walk)}
            for need in sorted({block.needs for block in pages(walk) if block.needs in RUN_WITH}):
                own = folder.with_name(f"{folder.name}-{need}")
                own.mkdir()
                given, stop = RUN_WITH[need].start(own)
                servers.callback(stop)
                variables |= given
            for name in sorted({name for block in pages(walk) for name in re.findall(r"data/(\S+\.csv)", block.text)} & SHARED):
                (folder / "data").mkdir(exist_ok=True)
                (folder / "data" / name).symlink_to(shared_file(name))
            reader = Reader.at(folder, **variables)
            reader.run(reader.script(walk))

    with ThreadPoolExecutor(2) as pool:
        yield {walk: pool.submit(follow, walk) for walk in READ}


@pytest.mark.parametrize("walk", READ, ids=lambda walk: walk[0])
def test_what_a_page_tells_its_reader_to_do_can_be_done(
    walk: tuple[str, ...], readers: dict[tuple[str, ...], Future[None]]
) -> None:
    readers[walk].result()
