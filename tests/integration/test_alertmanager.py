"""Alerts through a real Alertmanager, to a receiver that may be down: told once, for as long as it lasts."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fraud_assets.events import alerts
from tests.home import DRIFTED, Home
from tests.receiver import Receiver
from tests.servers.alertmanager_server import ALERTMANAGER, AlertmanagerServer

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(ALERTMANAGER is None, reason="needs Debian's package prometheus-alertmanager"),
]

CONFIG = """
route:
  receiver: on_call
  group_by: [alertname, asset, partition]
  group_wait: 1s
  group_interval: 2s
  repeat_interval: 4h
receivers:
  - name: on_call
    webhook_configs:
      - url: {url}
        send_resolved: true
"""
GROUP_INTERVAL = 2.0
PATIENCE = 60.0


@dataclass
class Stand:
    """An installation whose alerts go to Alertmanager and, from there and directly, to a receiver each."""

    home: Home
    alertmanager: AlertmanagerServer
    on_call: Receiver
    webhook: Receiver

    def tick(self) -> alerts.Report:
        return alerts.tick(self.home.installation, self.home.instance, datetime.now(UTC))

    def drift(self) -> None:
        """Take the drifted partition, whose check fails."""
        assert not self.home.run("materialize_partition", DRIFTED).success

    def notified(self, status: str) -> list[dict[str, Any]]:
        """Notifications about the drifted partition that the receiver behind Alertmanager took."""
        return [
            body
            for body in self.on_call.taken
            if body["status"] == status and body["groupLabels"].get("alertname") == "FraudCheckFailed"
        ]


@pytest.fixture
def stand(judged_home: Path, tmp_path: Path) -> Iterator[Stand]:
    on_call, webhook = Receiver(), Receiver()
    alertmanager = AlertmanagerServer(tmp_path / "alertmanager", CONFIG.format(url=on_call.url))
    shutil.copytree(judged_home, tmp_path / "copy")
    told = {"alertmanager_url": alertmanager.url, "webhook_url": webhook.url, "dagster_url": "https://dagster.test"}
    home = Home(tmp_path / "copy", told)
    made = Stand(home, alertmanager, on_call, webhook)
    yield made
    home.close()
    alertmanager.stop()
    for receiver in (made.on_call, made.webhook):
        receiver.close()


def test_a_drifted_partition_is_one_notification_until_it_is_accepted(stand: Stand) -> None:
    stand.drift()
    stand.tick()
    eventually(lambda: bool(stand.notified("firing")))
    for _ in range(3):  # posted again and again, as the sensor does
        stand.tick()
        time.sleep(GROUP_INTERVAL / 2)
    (notification,) = stand.notified("firing")
    (alert,) = notification["alerts"]
    assert alert["labels"]["asset"] == "transformed"
    assert alert["labels"]["partition"] == DRIFTED
    assert alert["labels"]["check"] == "drift"
    assert alert["labels"]["severity"] == "error"
    assert "log_amount has drifted" in alert["annotations"]["findings"]
    assert alert["annotations"]["run"].startswith("https://dagster.test/runs/")
    assert alert["generatorURL"] == alert["annotations"]["run"]
    (message,) = stand.webhook.taken
    assert message["partition"] == DRIFTED
    assert stand.notified("resolved") == []

    assert stand.home.decide("accept", DRIFTED).success
    stand.tick()
    eventually(lambda: bool(stand.notified("resolved")))
    assert len(stand.notified("firing")) == 1
    assert "FraudCheckFailed" not in stand.alertmanager.firing()
    eventually(lambda: any(body["groupLabels"]["alertname"] == "FraudPartitionAccepted" for body in stand.on_call.taken))
    assert [message["alert"] for message in stand.webhook.taken] == ["FraudCheckFailed", "FraudPartitionAccepted"]


def test_receivers_that_were_down_are_told_once(stand: Stand) -> None:
    """Longer than several group intervals, so that Alertmanager has given up on a notification more than once."""
    stand.on_call.close()
    stand.webhook.close()
    stand.drift()
    down = time.monotonic() + 4 * GROUP_INTERVAL
    while time.monotonic() < down:
        assert stand.tick().undelivered == 1
        time.sleep(1)
    stand.on_call, stand.webhook = Receiver(port=stand.on_call.port), Receiver(port=stand.webhook.port)
    stand.tick()
    eventually(lambda: bool(stand.notified("firing")))
    for _ in range(4):
        stand.tick()
        time.sleep(GROUP_INTERVAL / 2)
    assert len(stand.notified("firing")) == 1
    assert [message["partition"] for message in stand.webhook.taken] == [DRIFTED]


def test_alertmanager_that_was_restarted_has_the_alert_again(stand: Stand) -> None:
    stand.drift()
    stand.tick()
    eventually(lambda: bool(stand.notified("firing")))
    stand.alertmanager.stop()
    assert "Alertmanager does not take the alerts (ConnectError)" in str(stand.tick())
    shutil.rmtree(stand.alertmanager.folder / "data")  # it remembers nothing, not even whom it told
    stand.alertmanager.start()
    assert stand.alertmanager.firing() == []
    stand.tick()
    assert stand.alertmanager.firing() == ["FraudCheckFailed"]
    eventually(lambda: len(stand.notified("firing")) == 2)
    assert len(stand.webhook.taken) == 1, "the webhook was told already"


def test_an_alert_that_ends_while_alertmanager_is_down_is_resolved_when_it_is_back(stand: Stand) -> None:
    stand.drift()
    stand.tick()
    eventually(lambda: bool(stand.notified("firing")))
    stand.alertmanager.stop()
    stand.home.decide("accept", DRIFTED)
    stand.tick()
    stand.alertmanager.start()
    stand.tick()
    assert "FraudCheckFailed" not in stand.alertmanager.firing()


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.1)
