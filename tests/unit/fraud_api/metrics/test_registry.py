"""Metrics: of one process and of several, whose dead leave their counts and nothing else."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

from fraud_api.metrics.deferred import BulkHistogram, DeferredObservations
from fraud_api.metrics.registry import LATENCY_EDGES
from fraud_api.metrics.workers import WorkersCollector, archive_dead_worker
from fraud_core.access.api_keys import ApiKeys
from fraud_core.features import catalogue
from fraud_core.gate.baseline import Reference, make_reference, write_reference
from tests.api_server import NAMELESS
from tests.conftest import ZONE, transactions
from tests.servers.processes import free_port

COUNTS = """
import sys
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
registry = CollectorRegistry()
Counter("asked", "Questions.", ("kind",), registry=registry).labels("a").inc(float(sys.argv[1]))
Histogram("took", "Seconds.", buckets=(1, 2), registry=registry).observe(1.5)
Gauge("alive", "1 while it lives.", multiprocess_mode="livemax", registry=registry).set(1)
"""


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def with_reference(installation: Any, number: int) -> Reference:
    """Promote a bundle that has a reference, as the pipeline does."""
    matrix = installation.encoder.matrix(catalogue.compute(catalogue.PLAIN, transactions(2_000), ZoneInfo(ZONE)))
    reference = make_reference(installation.bundle(number), matrix, datetime.now(UTC))
    write_reference(installation.store, installation.key, "run", reference)
    installation.promote(number)
    return reference


def dead_worker(folder: Path, asked: int) -> None:
    """A process that counted, and is no more."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", COUNTS, str(asked)], env=environment, check=True)


def test_the_dead_leave_their_counts_and_no_files(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(WorkersCollector(tmp_path))
    for at, asked in enumerate([2, 3, 5]):
        dead_worker(tmp_path, asked)
        found = samples(generate_latest(registry).decode())
        assert found["asked_total", (("kind", "a"),)] == sum([2, 3, 5][: at + 1])
        assert found["took_count", ()] == at + 1
        assert found["took_bucket", (("le", "1.0"),)] == 0
        assert found["took_bucket", (("le", "2.0"),)] == at + 1
        assert ("alive", ()) not in found
        assert sorted(path.name for path in tmp_path.glob("*.db")) == ["counter_dead.db", "histogram_dead.db"]


def test_the_files_of_those_who_live_are_left_alone(tmp_path: Path) -> None:
    dead_worker(tmp_path, 2)
    mine = tmp_path / f"counter_{os.getpid()}.db"
    next(tmp_path.glob("counter_*.db")).rename(mine)
    before = mine.read_bytes()
    archive_dead_worker(tmp_path)
    assert mine.read_bytes() == before


def test_served_payments_are_counted_into_the_bins_of_the_reference(call: Any, installation: Any, made_transactions: Any) -> None:
    reference = with_reference(installation, 1)
    api = call(installation.settings)
    for row in made_transactions(40):
        assert api.post("/v1/score", json=row).status_code == 200
    api.post("/v1/score?explain=true", json=NAMELESS)
    found = samples(api.get("/metrics").text)
    for bins in (*reference.columns, reference.scores):
        labels = [(("bin", f"{at:02d}"), ("feature", bins.feature)) for at in range(len(bins.shares))]
        assert sum(found["fraud_traffic_rows_total", label] for label in labels) == 41, bins.feature
        assert [found["fraud_reference_share", label] for label in labels] == pytest.approx(list(bins.shares))
    assert found["fraud_reference_flagged_share", ()] == pytest.approx(reference.flagged)


def test_a_new_champion_brings_its_own_reference_and_no_new_label(call: Any, installation: Any) -> None:
    with_reference(installation, 1)
    api = call(installation.settings)
    api.post("/v1/score", json=NAMELESS)
    before = samples(api.get("/metrics").text)
    second = with_reference(installation, 2)
    api.post("/v1/admin/reload")
    after = samples(api.get("/metrics").text)
    assert {key for key in after if key[0].startswith("fraud_")} - set(before) == {
        ("fraud_model_info", (("version", second.version),)),
    }
    assert [labels for name, labels in after if name == "fraud_model_info"] == [(("version", second.version),)]
    assert after["fraud_model_info", (("version", second.version),)] == 1


def test_a_model_without_a_reference_or_with_a_forged_one_serves(call: Any, installation: Any) -> None:
    api = call(installation.settings)
    installation.promote(1)
    installation.store.put(f"models/{installation.bundle(2).version}/runs/x/reference.json", b"{}")
    for number in (1, 2):
        installation.promote(number)
        api.post("/v1/admin/reload")
        score = api.post("/v1/score", json=NAMELESS | {"transaction_id": f"payment-{number}"}).json()
        assert score["model_version"] == installation.bundle(number).version
        assert not any(name == "fraud_traffic_rows_total" for name, _ in samples(api.get("/metrics").text))


def test_before_the_first_model_no_age_is_told(call: Any, installation: Any) -> None:
    api = call(installation.settings)
    found = {name for name, _ in samples(api.get("/metrics").text)}
    assert "fraud_model_loaded" in found
    assert not found & {"fraud_model_info", "fraud_model_promoted_timestamp_seconds", "fraud_reference_flagged_share"}


def test_a_failed_reload_is_told_and_its_end_too(call: Any, installation: Any) -> None:
    installation.promote(1)
    api = call(installation.settings.model_copy(update={"poll_seconds": 600.0}))
    good = installation.store.get("models/latest.json")
    installation.store.put("models/latest.json", good[:-9] + b"!" + good[-8:])
    api.post("/v1/admin/reload")
    found = samples(api.get("/metrics").text)
    assert (found["fraud_model_reload_failing", ()], found["fraud_model_reload_failures_total", ()]) == (1, 1)
    installation.store.put("models/latest.json", good)
    api.post("/v1/admin/reload")
    found = samples(api.get("/metrics").text)
    assert (found["fraud_model_reload_failing", ()], found["fraud_model_reload_failures_total", ()]) == (0, 1)
    assert found["fraud_model_loaded", ()] == 1


def test_metrics_may_ask_for_a_key_of_their_own(call: Any, installation: Any) -> None:
    keys = ApiKeys.of(installation.settings)
    tokens = {scope: keys.create(scope, [scope])[1] for scope in ("score", "metrics", "admin")}
    api = call(installation.settings.model_copy(update={"metrics_access": "key"}), asks_for_keys=True)
    assert api.get("/metrics").status_code == 401
    answers = {scope: api.get("/metrics", headers={"Authorization": f"Bearer {token}"}) for scope, token in tokens.items()}
    assert {scope: answer.status_code for scope, answer in answers.items()} == {"score": 403, "metrics": 200, "admin": 200}
    scorer = api.post("/v1/score", json=NAMELESS, headers={"Authorization": f"Bearer {tokens['metrics']}"})
    assert scorer.status_code == 403


def test_metrics_may_have_a_port_of_their_own(call: Any, installation: Any) -> None:
    installation.promote(1)
    port = free_port()
    api = call(installation.settings.model_copy(update={"metrics_port": port}))
    assert api.get("/metrics").status_code == 404
    api.post("/v1/score", json=NAMELESS)
    found = samples(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
    assert found["fraud_decisions_total", (("decision", "approve"),)] == 1
    assert found["fraud_model_loaded", ()] == 1


def test_latencies_have_edges_where_the_objective_and_its_neighbours_are(call: Any, installation: Any) -> None:
    api = call(installation.settings)
    api.get("/healthz")
    edges = {float(dict(labels)["le"]) for name, labels in samples(api.get("/metrics").text) if name.endswith("seconds_bucket")}
    assert edges >= {0.005, 0.010, 0.025, 0.050, 0.100}


def test_what_cannot_be_asked_keeps_neither_the_pointer_nor_the_other_metrics_from_being_followed(
    call: Any, installation: Any
) -> None:
    api = call(installation.settings)

    def gone() -> int:
        raise OSError("no disk")

    api.app.state.services.metrics.watch_backlog(gone)
    version = installation.promote(1)
    api.post("/v1/admin/reload")
    found = samples(api.get("/metrics").text)
    assert found["fraud_model_info", (("version", version),)] == 1
    api.app.state.services.metrics.watch_backlog(lambda: 7)
    api.post("/v1/admin/reload")
    assert samples(api.get("/metrics").text)["fraud_decision_log_backlog", ()] == 7


def test_payments_that_the_model_without_history_scored_are_not_counted(call: Any, installation: Any) -> None:
    with_reference(installation, 1)
    api = call(installation.settings)
    services = api.app.state.services
    served = services.follower.served
    narrow = np.zeros((1, len(served.scorer.features) - 1))
    services.metrics.scored(served, narrow, [0.5])
    api.post("/v1/score", json=NAMELESS)
    found = samples(api.get("/metrics").text)
    rows = [
        value for (name, labels), value in found.items() if name == "fraud_traffic_rows_total" and ("feature", "age") in labels
    ]
    assert sum(rows) == 1


def test_observations_that_are_counted_together_are_those_that_were_noted() -> None:
    values = [*LATENCY_EDGES, 0.0, 0.0049, 0.3, 70.0, *np.random.default_rng(3).exponential(0.05, 3_000).tolist()]
    registry = CollectorRegistry()
    one_by_one = Histogram("one", "By itself.", buckets=LATENCY_EDGES, registry=registry)
    together = BulkHistogram("all", "Together.", ("of",), buckets=LATENCY_EDGES, registry=registry).labels("a")
    counter = Counter("grown", "By how much.", registry=registry)
    notes = DeferredObservations()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda value: (notes.add(together, value), notes.add(counter, 1)), values))
    for value in values:
        one_by_one.observe(value)
    notes.count()
    found = samples(generate_latest(registry).decode())
    for le in [*(floatToGoString(edge) for edge in LATENCY_EDGES), "+Inf"]:
        assert found["all_bucket", (("le", le), ("of", "a"))] == found["one_bucket", (("le", le),)], le
    assert found["all_sum", (("of", "a"),)] == pytest.approx(found["one_sum", ()])
    assert found["grown_total", ()] == len(values)
