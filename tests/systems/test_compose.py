"""The command of every service of compose.yaml, with the environment that compose gives it: the smoke test goes through them."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api_server import eventually
from tests.compose_files import DOCKER, compose, run
from tests.compose_processes import PROGRAMS, ComposeProcesses, last_json
from tests.receiver import Receiver
from tests.servers.postgres_server import POSTGRES
from tests.servers.redis_server import REDIS
from tests.simulated import SHORT, SHORT_DRIFTED

MISSING = [name for name, path in {**PROGRAMS, "postgres": POSTGRES, "redis": REDIS}.items() if path is None]
pytestmark = [pytest.mark.integration, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]

GRAFANA = {"grafana"}  # no package of Debian or PyPI brings it; its dashboards are asked of Prometheus elsewhere


@pytest.fixture
def receivers() -> Iterator[tuple[Receiver, Receiver]]:
    """The webhook that the alert sensor tells, and the chat that Alertmanager tells."""
    made = Receiver(), Receiver()
    yield made
    for receiver in made:
        receiver.close()


@pytest.fixture
def stack(tmp_path: Path, receivers: tuple[Receiver, Receiver]) -> Iterator[ComposeProcesses]:
    """All services but one, each as a process of its own."""
    webhook, chat = receivers
    (tmp_path / "short.toml").write_text(SHORT)
    told = {
        "FRAUD_SOURCE": str(tmp_path / "short.toml"),
        "FRAUD_AUTOMATION": "off",  # the pipeline is run by hand, once, as docs/deploy.md says
        "FRAUD_THREADS": "1",
        "FRAUD_WEBHOOK_URL": webhook.url.replace("127.0.0.1", "localhost"),  # an address of loopback is a service of its own
        "ENVIRONMENT": "production",
    }
    read = compose(tmp_path, "compose.yaml", example=".env.example", **told)
    processes = ComposeProcesses(tmp_path, read, leave_out=GRAFANA | {"demo-user"})
    alertmanager = processes.image_folder("alertmanager") / "etc" / "alertmanager"
    (alertmanager / "secrets").mkdir()
    (alertmanager / "secrets" / "slack-url").write_text(chat.url)
    config = alertmanager / "alertmanager.yml"
    config.write_text(re.sub(r"group_wait: \w+", "group_wait: 1s", config.read_text()))
    for name in ("prometheus", "code"):
        processes.image_folder(name)
    try:
        processes.start()
        yield processes
    finally:
        processes.stop()


def test_a_case_is_scored_a_label_given_a_drifted_partition_refused_and_an_alert_delivered(
    stack: ComposeProcesses, receivers: tuple[Receiver, Receiver]
) -> None:
    webhook, chat = receivers
    result = last_json(stack.run("code", "fraud", "pipeline"))
    assert (result["accepted"], result["rejected"]) == (5, 1)
    assert result["version"] is not None

    token = stack.run("scorer", "fraud", "keys", "create", "smoke", "--scope", "score", "--scope", "label").strip()
    api = f"http://{stack.addresses['scorer']}:8000"
    said = run(DOCKER / "smoke.sh", API_URL=api, API_KEY=token)
    assert result["version"] in said
    assert '"sequence":1' in said.replace(" ", "")

    # The refusal is told by the daemon's sensor: to the webhook, and through Alertmanager to the chat.
    eventually(lambda: webhook.taken and chat.taken, seconds=120)
    assert {(alert["check"], alert["partition"]) for alert in webhook.taken} == {("drift", SHORT_DRIFTED)}
    assert SHORT_DRIFTED in str(chat.taken)

    # Somebody signs in to the desk with the password that `demo-user` prints.
    password = re.findall(r"\S+", stack.run("demo-user"))[-1]
    desk = f"http://{stack.addresses['ui']}:7860"
    eventually(lambda: stack.is_healthy("ui"))
    assert httpx.post(f"{desk}/sign-in", data={"name": "demo", "password": password}).status_code == 303
    # Dagster asks the same, under whichever command its image's web server is started.
    dagster = f"http://{stack.addresses['webserver']}:3000"
    assert [httpx.get(dagster, auth=auth).status_code for auth in (None, ("demo", password))] == [401, 200]

    # Each is healthy by its own word, and Prometheus reaches what it watches.
    for name in stack.names:
        eventually(lambda name=name: stack.is_healthy(name))
    prometheus = f"http://{stack.addresses['prometheus']}:9090/api/v1"
    eventually(lambda: all_up(prometheus))
    config = urllib.request.urlopen(f"{prometheus}/status/config").read().decode()
    assert "environment: production" in config


def all_up(prometheus: str) -> bool:
    found = httpx.get(f"{prometheus}/query?query=up").json()["data"]["result"]
    return {one["metric"]["job"] for one in found if one["value"][1] == "1"} == {"fraud-scorer", "fraud-pipeline", "fraud-desk"}
