"""Notes harm no run, and are delivered ever more patiently."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from fraud_assets.delivery import delivery, outbox
from fraud_assets.schedule import sensors
from fraud_assets.schedule.proposals import PAUSES
from fraud_assets.schedule.sensors import next_delivery
from fraud_assets.stages.champion import with_revision
from fraud_assets.training.training import TrainedModel
from fraud_core.gate import read_verdict
from fraud_core.storage.artifacts import Estimator

Make = Callable[..., TrainedModel]


@pytest.fixture
def bench(bench: Any) -> Any:
    """Six months, versions of the data on, and an MLflow that is not there."""
    return bench.with_settings(dvc_remote="", mlflow_url=SecretStr("http://127.0.0.1:1"))


def note_a_verdict(bench: Any) -> None:
    verdict = read_verdict(bench.installation.artifacts.store, bench.installation.artifacts.signing_key, "2024-01")
    assert verdict is not None
    delivery.note_verdict(bench.installation, verdict, pytest.fail)


def run_of(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, job: str = delivery.JOB) -> None:
    instance.add_run(dg.DagsterRun(job_name=job, status=status))


def test_nothing_is_launched_while_nothing_waits(bench: Any) -> None:
    with dg.instance_for_test() as instance:
        assert next_delivery(bench.installation, instance, datetime.now(UTC)).why == "Nothing waits to be delivered."


def test_what_waits_is_delivered_when_nothing_else_is_under_way(bench: Any) -> None:
    note_a_verdict(bench)
    with dg.instance_for_test() as instance:
        assert next_delivery(bench.installation, instance, datetime.now(UTC)).run_key is not None
        run_of(instance, dg.DagsterRunStatus.STARTED, "train")
        assert next_delivery(bench.installation, instance, datetime.now(UTC)).why == "A run of train is under way."


def test_after_failures_it_waits_longer_and_longer_and_never_longer_than_an_hour(bench: Any) -> None:
    note_a_verdict(bench)
    with dg.instance_for_test() as instance:
        run_of(instance, dg.DagsterRunStatus.SUCCESS)
        for pause in [*PAUSES, PAUSES[-1]]:
            run_of(instance, dg.DagsterRunStatus.FAILURE)
            now = datetime.now(UTC)
            waits = next_delivery(bench.installation, instance, now + pause - timedelta(seconds=20))
            assert waits.why.startswith("The last delivery failed")
            assert next_delivery(bench.installation, instance, now + pause + timedelta(seconds=20)).run_key is not None
    assert PAUSES[-1] == timedelta(hours=1)


def test_a_note_that_cannot_be_written_is_told_and_harms_no_run(
    bench: Any, make_model: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    model = make_model(bench, log_amount=1.4)
    written = Estimator(fitted=model, inputs="", facts={"version": model.bundle.version})
    pointer = bench.installation.artifacts.write("model", None, written)
    monkeypatch.setattr(outbox.Outbox, "put", full)
    assert delivery.note(bench.installation, pointer, "a run", written, logging.getLogger("run")) == {"data_revision": "none"}
    assert "No space left on device" in caplog.text
    assert f"the job `{delivery.JOB}`" in caplog.text


def test_switched_off_nothing_is_noted_and_nothing_waits(bench: Any) -> None:
    off = bench.with_settings(dvc_remote="off", mlflow_url=SecretStr("off"))
    note_a_verdict(off)
    assert not (off.installation.settings.home / "outbox").exists()
    assert not delivery.has_work(off.installation)


def test_the_revision_is_in_the_manifest_and_not_in_the_version(bench: Any, make_model: Make) -> None:
    bundle = make_model(bench, log_amount=1.4).bundle
    named = with_revision(bundle, "ab" * 20)
    assert named.manifest.lineage.data_revision == "ab" * 20
    assert named.version == named.manifest.learned.version == bundle.version


def test_the_sensor_says_which_job_it_launches(bench: Any) -> None:
    (sensor,) = [sensor for sensor in sensors.build(bench.installation) if sensor.name == "deliver"]
    assert sensor.job_name == delivery.JOB
