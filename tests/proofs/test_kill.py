"""`fraud pipeline` killed at random moments and started again: it goes on from what is finished, and nothing is half-written."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fraud_assets.installation import Installation
from fraud_core.gate import read_verdict
from fraud_core.models.bundle import read_bundle
from fraud_core.models.registry import read_latest
from fraud_core.settings import Settings
from tests.proofs.conftest import ROOT, Record

SOURCE = (ROOT / "sources" / "simulated.toml").read_text(encoding="utf-8")
SMALLER = SOURCE.replace("cardholders = 1_000", "cardholders = 300").replace('last = "2024-12"', 'last = "2024-09"')
SETTINGS = {"FRAUD_MIN_HOLDOUT_FRAUDS": "5", "FRAUD_PROMOTION_LIFT": "1", "FRAUD_DRIFT_DETECTOR": "scipy", "FRAUD_STORE": ""}
ASSETS = ("raw", "quarantine", "transformed")
FITTED = ("preprocessor", "model")


def start(toml: Path, home: Path, program: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", program, "pipeline", "--source-config", str(toml), "--home", str(home)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | SETTINGS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(installation: Installation) -> dict[str, int]:
    """The judged partitions, and when each was written (ns). Fails where a pointer names what is not whole."""
    artifacts = installation.artifacts
    pointers = [pointer for asset in ASSETS for pointer in artifacts.pointers(asset).values()]
    pointers += [pointer for asset in FITTED if (pointer := artifacts.pointer(asset)) is not None]
    for pointer in pointers:
        assert hashlib.sha256(artifacts.store.get(pointer.key)).hexdigest() == pointer.sha256
    written: dict[str, int] = {}
    for key, pointer in artifacts.pointers("transformed").items():
        verdict = read_verdict(artifacts.store, artifacts.signing_key, key)
        if verdict is not None and verdict.content == pointer.content:
            written[key] = artifacts.store.local_path(f"assets/transformed/{key}/latest.json").stat().st_mtime_ns
    return written


def champion(installation: Installation) -> str | None:
    """The champion's version; fails where the pointer names a bundle that is not whole."""
    latest = read_latest(installation.artifacts.store, installation.artifacts.signing_key)
    if latest is not None:
        read_bundle(installation.artifacts.store, latest.version, installation.artifacts.signing_key, latest.manifest_sha256)
    return None if latest is None else latest.version


def test_a_killed_pipeline_goes_on_and_leaves_nothing_half_written(full: bool, record: Record, tmp_path: Path) -> None:
    toml = tmp_path / "smaller.toml"
    toml.write_text(SMALLER, encoding="utf-8")
    program = "fraud_cli.main" if full else "tests.few_trees"

    undisturbed = start(toml, tmp_path / "undisturbed", program)
    begin = time.monotonic()
    output, errors = undisturbed.communicate()
    usual = time.monotonic() - begin
    assert undisturbed.returncode == 0, errors[-3000:]
    expected = json.loads(output.splitlines()[-1])

    home, kills, draw = tmp_path / "killed", 20 if full else 3, random.Random(21)
    installation = Installation.load(Settings(home=home, source=toml))
    parts = draw.sample(range(kills), kills)  # a random moment in each part of a run, in a random order that begins early
    moments: list[dict[str, Any]] = []
    before: dict[str, int] = {}
    homes = 1
    while len(moments) < kills:
        # Once everything stands there is nothing left to disturb: begin again in an empty home.
        if champion(installation) is not None:
            homes += 1
            home = tmp_path / f"killed-{homes}"
            installation, before = Installation.load(Settings(home=home, source=toml)), {}
        begin, process = time.monotonic(), start(toml, home, program)
        wait = 1.0 + (usual - 1.0) * (parts[len(moments)] + draw.random()) / kills
        try:
            _, errors = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        else:
            assert process.returncode == 0, errors[-3000:]  # it ended before: no kill
            usual = min(usual, max(time.monotonic() - begin, 2.0))  # the first run was on a busier machine
        after = finished(installation)
        assert before.items() <= after.items(), "a finished partition was made again, or lost"
        if process.returncode == -signal.SIGKILL:
            moments.append({"after_seconds": round(wait, 1), "partitions": len(after), "champion": champion(installation)})
        before = after

    last = start(toml, home, program)
    output, errors = last.communicate()
    assert last.returncode == 0, errors[-3000:]
    ended = json.loads(output.splitlines()[-1])
    assert {name: ended[name] for name in ("rows", "accepted", "version", "average_precision")} == {
        name: expected[name] for name in ("rows", "accepted", "version", "average_precision")
    }
    record(
        "kill",
        {
            "kills": len(moments),
            "homes": homes,
            "undisturbed_seconds": round(usual, 1),
            "moments": moments,
            "version": ended["version"],
        },
    )
