"""The client by itself: its wheel holds the client alone, and works in an interpreter that has nothing but httpx."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
USE = """
import asyncio, sys
sys.path[:0] = sys.argv[1:]
import httpx
from fraud_client.client import AsyncFraudClient, FraudClient
from fraud_client.errors import UnavailableError

seen = []
def handle(request):
    seen.append(request.headers["user-agent"])
    return httpx.Response(503, json={"ready": False})

async def ready():
    async with AsyncFraudClient("http://scorer", transport=httpx.MockTransport(handle)) as client:
        return await client.ready()

with FraudClient("http://scorer", transport=httpx.MockTransport(handle)) as client:
    assert not client.ready().ready
assert not asyncio.run(ready()).ready
print(sys.modules["fraud_client"].__path__[0], *sorted(set(seen)), sep="\\n")
"""


def run(command: list[Any], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy without a network, as `make client` does."""
    folder = tmp_path_factory.mktemp("client")
    shutil.copytree(ROOT / "fraud_client", folder / "fraud_client", ignore=shutil.ignore_patterns("__pycache__"))
    run([sys.executable, "-c", BUILD, folder], folder / "fraud_client")
    (found,) = folder.glob("*.whl")
    return found


def needed(name: str, into: Path) -> None:
    """Link what a distribution installs, and what it needs, into a folder."""
    installed = distribution(name)
    for top in {file.parts[0] for file in installed.files or () if file.parts[0] not in {"..", "__pycache__"}}:
        if not (into / top).exists():
            (into / top).symlink_to(str(installed.locate_file(top)))
    for requirement in map(Requirement, installed.requires or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed(requirement.name, into)


def test_the_wheel_holds_the_client_alone_and_needs_httpx_alone(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
    own = {path.name for path in (ROOT / "fraud_client").iterdir() if path.suffix == ".py" or path.name == "py.typed"}
    assert names == {f"fraud_client/{name}" for name in own}
    assert [Requirement(line).name for line in re.findall(r"^Requires-Dist: (.*)$", metadata, re.M)] == ["httpx"]


def test_the_wheel_works_in_an_interpreter_that_has_nothing_but_httpx(wheel: Path, tmp_path: Path) -> None:
    needed("httpx", tmp_path)
    # -I and -S: neither this environment, nor this folder, nor the user's packages are looked at.
    where, agent = run([sys.executable, "-I", "-S", "-c", USE, wheel, tmp_path], tmp_path).split()
    assert where == f"{wheel}/fraud_client"
    assert agent == f"fraud-client/{wheel.name.split('-')[1]}"


def test_the_client_has_the_version_of_the_product() -> None:
    versions = {
        tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"] for folder in (ROOT, ROOT / "fraud_client")
    }
    assert len(versions) == 1
