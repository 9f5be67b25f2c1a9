"""What stands around an installation: a path full of signs, a proxy, a locale that is not UTF-8; and who could read its files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulated import SHORT
from tests.sink import NAME, Sink

pytestmark = pytest.mark.integration


def test_under_any_path_behind_any_proxy_all_is_kept_in_the_home_for_its_owner_alone_and_nothing_leaves(tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text(SHORT)
    home = tmp_path / NAME / "home"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FRAUD_", "AWS_", "DAGSTER_", "PYTHON"))}
    given = {"FRAUD_HOME": str(home), "FRAUD_SOURCE": str(tmp_path / "short.toml"), "FRAUD_DRIFT_DETECTOR": "scipy"}
    given |= {"LC_ALL": "C", "HOME": str(tmp_path / "user"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with Sink() as sink:
        command = [sys.executable, "-m", "fraud_cli.main", "pipeline", "--until", "2024-01-08"]
        ended = subprocess.run(
            command, env=clean | given | sink.environment, umask=0o022, capture_output=True, text=True, check=False
        )
    assert ended.returncode == 0, ended.stderr
    assert "failed" not in ended.stderr
    assert sink.taken == []
    assert not (home / "dagster" / "logs" / "event.log").exists(), "where Dagster notes what it sends later"

    # Data versions, their remote, trackings, runs and events: all are there, and none in a folder whose name was cut short.
    for pattern in ("dvc-remote/history/*.bundle", "dvc-remote/files/md5/*/*", "mlflow/artifacts/*", "mlflow/mlflow.db"):
        assert list(home.glob(pattern)), pattern
    assert {path.name for path in (home / "dagster" / "events").glob("*.db")} == {"event_log.db"}
    assert [path.name for path in (tmp_path / NAME).iterdir()] == ["home"]
    assert {path.name for path in tmp_path.iterdir()} <= {NAME, "cache", "user", "short.toml"}
    assert not list(home.glob("outbox/*/*.json"))
    of_dvc = (
        home / "data-versions" / ".dvc",
        home / "dvc-remote",
    )  # it gives its files rights of its own; the home keeps others out
    ours = [path for path in (home, *home.rglob("*")) if not path.is_symlink() and not any(map(path.is_relative_to, of_dvc))]
    assert [path for path in ours if path.stat().st_mode & 0o077] == []
