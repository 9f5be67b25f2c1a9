"""Faults, and who is told of them: each alert fires while its fault lasts, and is over afterwards; each panel shows something."""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from fraud_core.decisions.log import DecisionLog, to_json
from fraud_core.labels.log import LabelLog
from fraud_core.storage.database import open_database
from fraud_core.storage.queue.spool import Spool
from tests.api_server import Servers, eventually
from tests.dashboard_pictures import draw, expressions
from tests.decided import decided
from tests.observed_system import LAST, OBSERVABILITY, Callers, ObservedSystem, long_ago
from tests.servers.alertmanager_server import ALERTMANAGER
from tests.servers.postgres_server import POSTGRES, PostgresServer
from tests.servers.prometheus_server import PROMETHEUS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(PROMETHEUS is None, reason="needs Debian's package prometheus"),
    pytest.mark.skipif(ALERTMANAGER is None, reason="needs Debian's package prometheus-alertmanager"),
    pytest.mark.skipif(POSTGRES is None, reason="needs Debian's package postgresql"),
]

BURNING = ("FraudScorerErrors", "FraudBudgetBurnsFast", "FraudBudgetBurnsSlowly")
TRAFFIC = ("FraudTrafficDrift", "FraudScoreShift", "FraudFlaggedShare")
# Where they follow from another one that fires, nobody is told of them.
SILENCED = {"FraudScorerErrors", "FraudScorerSlow", "FraudScoreShift", "FraudFlaggedShare", "FraudBudgetBurnsSlowly"}


@pytest.fixture
def system(tmp_path: Path, installation: Any, servers: Servers) -> Iterator[ObservedSystem]:
    # Another session of pytest closes pytest's own folder to the user under whom PostgreSQL runs.
    with tempfile.TemporaryDirectory(prefix="fraud-postgres-") as folder:
        postgres = PostgresServer(Path(folder))
        made = ObservedSystem(tmp_path, installation, servers, postgres)
        yield made
        made.close()
        postgres.stop()


def test_each_fault_is_told_while_it_lasts_and_each_panel_shows_it(
    system: ObservedSystem, made_transactions: Any, tmp_path: Path
) -> None:
    home, fires, over = system.home, system.wait_until_fires, system.wait_until_over
    assert home.run("land").success

    system.desk.expect("take_case")

    # Nobody is there; then a scorer without a model.
    fires("FraudScorerDown", "FraudExporterDown")
    with Callers(system.start_scorer(), made_transactions(500)).calling(3) as callers:
        over("FraudScorerDown")
        fires("FraudNoModel", *BURNING)
        assert not system.notified("firing") & set(BURNING), "they follow from the missing model"

        # A champion, but an old one.
        system.promote(1, long_ago(days=60))
        over("FraudNoModel", *BURNING)
        fires("FraudModelStale")
        eventually(lambda: label_reviews(system) > 0)

        # A pipeline whose sensor does not run, whose data does not come, and whose outbox is not emptied.
        queue = home.installation.settings.home / "outbox" / "mlflow"
        queue.mkdir(parents=True)
        (queue / "1.json").write_text("{}")
        system.start_exporter()
        over("FraudExporterDown")
        fires("FraudAlertSensorStuck", "FraudNoNewData", "FraudOutboxBacklog")
        (queue / "1.json").unlink()
        eventually(lambda: system.prometheus.query("fraud_labels_kept_total"))

        # A check fails: the sensor's way, once. Its messages are not taken at first, and nobody decides.
        with system.alert_sensor():
            for week in ("2024-01-01", "2024-01-08", "2024-01-15"):
                assert home.run("materialize_partition", week).success
            assert not home.run("materialize_partition", LAST).success
            fires("FraudAlertsUndelivered", "FraudPartitionWaiting")
            eventually(lambda: "FraudCheckFailed" in system.notified("firing"))
            over("FraudAlertSensorStuck", "FraudNoNewData", "FraudOutboxBacklog")
            system.webhook.status = 200
            assert home.decide("accept", LAST).success
            refused = {
                "dagster/row_count": 997,
                "quarantined": 3 + round(997 * home.installation.source.quality.quarantined_share),
            }
            home.instance.report_runless_asset_event(dg.AssetMaterialization("raw", partition=LAST, metadata=refused))
            fires("FraudQuarantineShare")

            # Other payments than those it was validated on; then the usual ones, for the newest champion.
            callers.shifted = True
            fires(*TRAFFIC)
            callers.shifted = False
            system.promote(2, datetime.now(UTC))
            over("FraudModelStale", "FraudAlertsUndelivered", "FraudPartitionWaiting", "FraudQuarantineShare")
            eventually(lambda: "FraudCheckFailed" in system.notified("resolved"))

            # A disk that takes nothing more.
            with system.full_disk():
                fires("FraudRecordingFailing")
            over("FraudRecordingFailing")

            # The desk fails, and cannot show a case; then it does not answer.
            system.desk.failed("take_case")
            system.desk.could_not_show(1)
            fires("FraudDeskErrors")
            over("FraudDeskErrors")
            system.desk_server.status = 503
            fires("FraudDeskDown")
            system.desk_server.status = 200
            over("FraudDeskDown")

            # A damaged pointer; a slow scorer; a database that is gone.
            pointer = system.installation.store.local_path("models/latest.json")
            good = pointer.read_bytes()
            pointer.write_bytes(good.replace(b'"sequence":2', b'"sequence":3'))
            system.postgres.stop()
            with system.slow_scorer():
                fires("FraudModelReloadFailing", "FraudScorerSlow", "FraudBudgetBurnsFast")
            pointer.write_bytes(good)
            spool = Spool(home.installation.settings.home / "spool" / "decisions.sqlite", 100_000, "")
            spool.append([to_json(decided(f"spooled-{at}")) for at in range(1_500)])
            fires("FraudDecisionLogBacklog")
            system.postgres.start()
            over("FraudModelReloadFailing", "FraudScorerSlow", "FraudDecisionLogBacklog", *TRAFFIC, *BURNING)

            # It dies, and is back.
            assert system.scorer is not None
            system.scorer.process.kill()
            system.scorer.process.wait()
            fires("FraudScorerDown")
            callers.url = system.start_scorer()
            over("FraudScorerDown")

    names = {rule["alert"] for group in shipped_rules()["groups"] for rule in group["rules"]}
    assert set(system.fired) >= names, "each alert fired"
    told_over = names - SILENCED
    eventually(lambda: system.notified("resolved") >= told_over)
    assert system.notified("firing") >= told_over
    assert system.notified("firing") & {"FraudCheckFailed"}
    for alert in system.fired.values():
        assert "<no value>" not in json.dumps(alert["annotations"])
        assert "<error" not in json.dumps(alert["annotations"])

    ended = time.time()
    folder = Path(os.environ.get("FRAUD_PICTURES", tmp_path))
    for path in sorted((OBSERVABILITY / "grafana" / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        for title, expression in expressions(dashboard):
            assert system.prometheus.query_range(expression, system.started, ended, 0.5), f"{title}: {expression}"
        draw(dashboard, system.prometheus, system.started, ended, folder / f"dashboard-{path.stem}.png")


def shipped_rules() -> Any:
    return yaml.safe_load((OBSERVABILITY / "prometheus" / "rules" / "alerts.yml").read_text())


def label_reviews(system: ObservedSystem) -> int:
    """An analyst's word about some payments that the scorer sent to review; returns how many."""
    settings = system.home.installation.settings
    engine = open_database(settings)
    decided_lately = DecisionLog(engine, 30).recent(long_ago(days=1), 10_000)
    reviewed = [record for record in decided_lately if record.decision == "review"][:20]
    now = datetime.now(UTC)
    for at, record in enumerate(reviewed):
        LabelLog(engine).append(
            transaction_id=record.transaction_id,
            outcome="legitimate" if at % 3 else "fraud",
            source="analyst",
            author="ann",
            event_time=record.timestamp,
            known_at=now,
        )
    engine.dispose()
    return len(reviewed)
