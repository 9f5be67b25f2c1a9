"""What the full stack starts, what it keeps, and what it says when something is missing."""

import json
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from fraud_cli.commands.up import up
from fraud_cli.stack import full, servers
from fraud_cli.stack.full import FullStack, page_alone
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings
from tests.servers.processes import free_port

AMTOOL = shutil.which("amtool")


@pytest.fixture
def all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every program is installed."""
    monkeypatch.setattr(servers, "find", lambda server: f"/opt/{server}")


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(**given: Any) -> Settings:
        return Settings(_env_file=None, home=tmp_path / "home", **given)

    return make


def test_a_missing_program_is_told_with_its_package_before_anything_is_started(
    all_there: None, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "find", lambda server: None if server in {"prometheus", "redis"} else f"/opt/{server}")
    with pytest.raises(SettingsError, match=r"redis-server, prometheus\. Install it .*apt-get install.* nothing was started"):
        up(settings(), "full")
    assert not settings().home.exists()


def test_what_is_on_no_path_and_in_no_environment_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert servers.find("redis") is None
    (tmp_path / "valkey-server").touch(0o755)
    assert servers.find("redis") == str(tmp_path / "valkey-server")


def test_every_server_binds_loopback_alone(all_there: None, settings: Callable[..., Settings]) -> None:
    for service in FullStack(settings()).services:
        said = " ".join(service.command)
        assert "127.0.0.1" in said, service.name
        assert "0.0.0.0" not in said, service.name
        assert str(service.port) in said, service.name
        assert service.setting.startswith("FRAUD_"), service.name


def test_what_the_settings_name_is_used_instead(all_there: None, settings: Callable[..., Settings]) -> None:
    def names(**given: Any) -> set[str]:
        return {service.name for service in FullStack(settings(**given)).services}

    everything = {"S3 server", "Redis", "MLflow", "Alertmanager", "Prometheus"}
    assert names() == everything
    own = {"store": "s3://acme/cards", "card_key": "ab" * 32, "signing_key": "cd" * 32}
    assert names(**own) == everything - {"S3 server"}
    assert names(history="redis://elsewhere:6379/0") == everything - {"Redis"}
    assert names(mlflow_url="off") == everything - {"MLflow"}
    assert names(alertmanager_url="http://pager:9093") == everything - {"Alertmanager"}

    stack = FullStack(settings(alertmanager_url="http://pager:9093/", **own))
    told, variables = stack.prepare()
    assert told.store == "s3://acme/cards"
    assert {name for name in variables if name.startswith("AWS_")} == set()
    targets = stack.home / "servers" / "prometheus" / "config" / "targets"
    assert json.loads((targets / "alertmanager.yml").read_text()) == [{"targets": ["pager:9093"]}]


def test_credentials_are_made_at_random_once_and_nobody_else_reads_them(
    all_there: None, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    first, variables = FullStack(settings()).prepare()
    again = FullStack(settings()).prepare()[1]
    assert again == variables
    assert first.home == tmp_path / "home" / "full"
    secrets = [variables[name] for name in ("AWS_SECRET_ACCESS_KEY", "FRAUD_CARD_KEY", "FRAUD_SIGNING_KEY", "FRAUD_HISTORY")]
    assert len(set(secrets)) == 4
    holders = [path for path in first.home.rglob("*") if path.is_file() and any(one in path.read_text() for one in secrets)]
    assert first.home / "stack.env" in holders
    assert {stat.S_IMODE(path.stat().st_mode) for path in holders} == {0o600}
    said = " ".join(word for service in FullStack(settings()).services for word in service.command)
    assert [secret for secret in secrets if secret in said] == [], "the arguments of a process can be seen by others"


def test_another_terminal_is_told_the_same(all_there: None, settings: Callable[..., Settings]) -> None:
    stack = FullStack(settings(source=Path("it's mine.toml")))
    _, variables = stack.prepare()
    script = f". '{stack.environment_file}'; exec env -0"
    said = subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True, check=True).stdout
    told = dict(line.split("=", 1) for line in said.split("\0") if line)
    assert {name: told[name] for name in variables} == variables


def test_prometheus_watches_this_installation_by_the_rules_that_ship(all_there: None, settings: Callable[..., Settings]) -> None:
    stack = FullStack(settings(api_port=8111, exporter_port=9222, ui_port=7444, alertmanager_port=9333))
    stack.prepare()
    config = stack.home / "servers" / "prometheus" / "config"
    targets = {path.stem: json.loads(path.read_text())[0]["targets"] for path in (config / "targets").iterdir()}
    ports = {"scorer": 8111, "pipeline": 9222, "desk": 7444, "alertmanager": 9333}
    assert targets == {name: [f"127.0.0.1:{port}"] for name, port in ports.items()}
    shipped = full.OBSERVABILITY / "prometheus"
    for path in shipped.glob("rules/*.yml"):
        assert (config / path.relative_to(shipped)).read_bytes() == path.read_bytes()
    ours, theirs = (yaml.safe_load((folder / "prometheus.yml").read_text()) for folder in (config, shipped))
    signed_in = ours["alerting"]["alertmanagers"][0].pop("basic_auth")
    assert ours == theirs
    assert f":{Path(signed_in['password_file']).read_text()}@127.0.0.1:9333" in stack.prepare()[1]["FRAUD_ALERTMANAGER_URL"]


def test_alerts_need_no_secret_to_be_seen() -> None:
    text = page_alone()
    assert "_file" not in text
    assert "http" not in text
    assert text.count("source_matchers") == (full.OBSERVABILITY / "alertmanager" / "alertmanager.yml").read_text().count(
        "source_matchers"
    )


@pytest.mark.skipif(servers.find("alertmanager") is None, reason="needs Debian's package prometheus-alertmanager")
def test_no_page_of_a_browser_silences_the_stacks_alertmanager(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    others = dict.fromkeys(("s3", "redis", "prometheus"), "/opt/server")
    monkeypatch.setattr(full, "_programs", lambda has: others | {"alertmanager": servers.find("alertmanager")})
    stack = FullStack(settings(alertmanager_port=port))
    told, _ = stack.prepare()
    (service,) = [service for service in stack.services if service.name == "Alertmanager"]
    with subprocess.Popen(service.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            assert service.is_ready is not None
            while not service.is_ready():
                assert process.poll() is None
                time.sleep(0.05)
            silence = {
                "matchers": [{"name": "alertname", "value": ".+", "isRegex": True}],
                "startsAt": "2030-01-01T00:00:00Z",
                "endsAt": "2040-01-01T00:00:00Z",
                "createdBy": "x",
                "comment": "x",
            }
            evil = {"origin": "http://evil.example"}
            with httpx.Client(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
                assert client.post("/api/v2/silences", json=silence, headers=evil).status_code == 401
                asked = evil | {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
                assert client.options("/api/v2/silences", headers=asked).status_code == 401
                assert client.get("/api/v2/alerts", headers=evil).status_code == 401
                assert client.post(f"{told.alertmanager_url}/api/v2/silences", json=silence).status_code == 200  # who knows it
        finally:
            process.terminate()


@pytest.mark.skipif(AMTOOL is None, reason="needs Debian's package prometheus-alertmanager")
def test_alertmanager_takes_that_configuration(tmp_path: Path) -> None:
    (tmp_path / "alertmanager.yml").write_text(page_alone())
    subprocess.run([str(AMTOOL), "check-config", str(tmp_path / "alertmanager.yml")], check=True, stdout=subprocess.DEVNULL)
