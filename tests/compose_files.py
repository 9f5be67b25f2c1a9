"""What docker/ says, as docker-compose and Docker read it, for tests; no engine is asked."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
BINARIES = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
DIGEST = "sha256:" + 64 * "0"
OWN_IMAGES = ("pipeline", "scorer", "ui", "prometheus", "alertmanager", "grafana", "proxy")


def run(*command: str | Path, **variables: str) -> str:
    """What a command prints; it finds this environment's tools, and no variable of this machine's."""
    ended = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PATH": BINARIES, "HOME": "/nonexistent", **variables},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def dockerfile(name: str) -> list[str]:
    """The instructions of an image, each on a line."""
    text = re.sub(r"\\\n\s*", "", (DOCKER / f"{name}.Dockerfile").read_text())
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def compose(folder: Path, *files: str, example: str, **told: str) -> dict[str, Any]:
    """What docker-compose makes of the files, with every profile; `told` stands in the environment file as well."""
    lines = "".join(f"{name}={value}\n" for name, value in told.items())
    (folder / "env").write_text(run(DOCKER / "make-env.sh", DOCKER / example) + lines)
    (folder / "images.env").write_text("".join(f"{name.upper()}_IMAGE=registry/{name}@{DIGEST}\n" for name in OWN_IMAGES))
    given = [f"--env-file={folder / 'env'}", *([f"--env-file={folder / 'images.env'}"] if len(files) > 1 else [])]
    named = [f"--file={DOCKER / name}" for name in files]
    read: dict[str, Any] = json.loads(run("docker-compose", *given, *named, "--profile=*", "config", "--format=json"))
    return read


def listed(name: str, instruction: str) -> list[str]:
    """The words of an instruction that is written as a list, such as CMD; empty where there is none."""
    found = [line for line in dockerfile(name) if re.match(rf"{instruction} .*\[", line)]
    words: list[str] = json.loads(found[-1][found[-1].index("[") :]) if found else []
    return words


def variables(name: str) -> dict[str, str]:
    """What an image sets in the environment."""
    lines = [line for line in dockerfile(name) if line.startswith("ENV ")]
    return dict(word.split("=", 1) for line in lines for word in line.split()[1:])
