"""Trainings and verdicts in a real `mlflow server`: also when it is down for the whole run."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import polars as pl
import pytest
from polars import selectors

from fraud_assets.delivery import delivery, outbox
from fraud_assets.delivery.mlflow.records import model_name
from fraud_assets.delivery.mlflow.server import server as named_server
from fraud_assets.events import alerts
from fraud_core.models.bundle import read_bundle
from fraud_core.models.registry import read_latest, versions
from fraud_core.models.scorer import Scorer
from tests.home import ACCEPTED, DRIFTED, WEEKS, Home
from tests.servers.mlflow_server import MlflowServer

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("few_trees_alone")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Not started yet: the first test begins without it."""
    made = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def home(server: MlflowServer, trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A copy of the trained installation that is told of the server. All tests of this file share it."""
    folder = tmp_path_factory.mktemp("tracked")
    shutil.copytree(trained_home, folder, dirs_exist_ok=True)
    made = Home(folder, {"mlflow_url": server.url, "dvc_remote": ""})
    yield made
    made.close()


@pytest.fixture(scope="module")
def trained(home: Home) -> dg.ExecuteInProcessResult:
    """A training while there is no server."""
    return home.run("train")


@pytest.fixture
def client(server: MlflowServer) -> Any:
    return mlflow.MlflowClient(server.url, server.url)


def runs(client: Any, experiment: str, **tags: str) -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    return [] if found is None else list(client.search_runs([found.experiment_id], wanted))


def champion(home: Home) -> str:
    latest = read_latest(home.installation.artifacts.store, home.installation.artifacts.signing_key)
    assert latest is not None
    return latest.version


def named(client: Any, home: Home) -> str:
    """The version that MLflow calls champion."""
    version = client.get_model_version_by_alias(model_name(home.installation.source), "champion")
    return str(version.tags["fraud.version"])


def observed(result: dg.ExecuteInProcessResult, asset: str) -> list[dict[str, Any]]:
    events = [event for event in result.all_events if event.event_type_value == "ASSET_OBSERVATION"]
    observations = [event.event_specific_data.asset_observation for event in events]
    return [dict(observation.metadata) for observation in observations if observation.asset_key.path == [asset]]


def opened(home: Home) -> list[str]:
    """The steps that somebody is alerted of."""
    alerts.tick(home.installation, home.instance, datetime.now(UTC))
    with alerts.open_alert_store(home.installation).writing(datetime.now(UTC)) as page:
        return [about.asset for about in page.opened(alerts.STEP_FAILED)]


# The tests stand in the order in which things happen. First there is no server.


def test_a_server_that_is_down_for_the_whole_run_loses_no_training(
    server: MlflowServer, home: Home, client: Any, trained: dg.ExecuteInProcessResult
) -> None:
    assert trained.success
    refused = home.run(delivery.JOB)
    (failed,) = refused.get_step_failure_events()
    assert failed.step_key == "log_to_mlflow", "the data versions are pushed all the same"
    error = alerts.cause_of(failed.step_failure_data.error)
    assert f"MLflow at {server.url} does not answer" in error
    assert "Start the server, or correct FRAUD_MLFLOW_URL." in error
    assert len(outbox.mlflow(home.installation.settings)) == 1
    assert opened(home) == ["log_to_mlflow"]

    shutil.copytree(home.path / "home", home.path / "undelivered")  # for the last test
    server.start()
    delivered = home.run(delivery.JOB)
    assert delivered.success
    assert not delivery.has_work(home.installation)
    assert opened(home) == []
    (run,) = runs(client, "fraud-small", dagster_run_id=trained.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["fraud.version"] == champion(home) == named(client, home)
    (shown,) = observed(delivered, "model")
    assert shown["mlflow"].value == f"{server.url}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert shown["training_run"].value == trained.run_id


def test_a_training_is_logged_with_all_that_a_person_wants_to_know(
    home: Home, client: Any, trained: dg.ExecuteInProcessResult
) -> None:
    (run,) = runs(client, "fraud-small", dagster_run_id=trained.run_id)
    model = home.installation.artifacts.estimator("model")
    metrics = run.data.metrics
    assert metrics["holdout.average_precision"] == model.holdout.average_precision
    assert metrics["holdout.average_precision_low"] == model.holdout.average_precision_interval.low
    assert metrics["holdout.fraud_rate"] == model.holdout.fraud_rate
    assert not [name for name in metrics if "accuracy" in name]
    assert run.data.params["training_set"] == model.bundle.manifest.lineage.training_set
    assert run.data.params["model"] == model.candidates[0][0]
    assert len(run.data.tags["fraud.data_revision"]) == 40
    datasets = {entry.tags[0].value: entry.dataset for entry in run.inputs.dataset_inputs}
    assert datasets["training"].digest == model.bundle.manifest.lineage.training_set[:32]
    assert json.loads(datasets["training"].profile)["num_rows"] == model.sides["training"].rows
    report = {file.path for file in client.list_artifacts(run.info.run_id, "report")}
    assert report >= {"report/precision_recall.png", "report/calibration.png", "report/cost.png"}
    assert {file.path for file in client.list_artifacts(run.info.run_id, "preprocessor")} >= {"preprocessor/encoder.json"}
    beside = f"models/{model.bundle.version}/runs/{trained.run_id}/tracking.json"
    assert json.loads(home.installation.artifacts.store.get(beside))["mlflow_run_id"] == run.info.run_id


def test_the_registered_champion_scores_as_the_scorer_does(home: Home) -> None:
    rows = home.installation.artifacts.scan("transformed", ACCEPTED).head(200).collect()
    bundle = read_bundle(home.installation.artifacts.store, champion(home), home.installation.artifacts.signing_key)
    place = named_server(home.installation.settings)
    assert place is not None
    with place.connected():
        loaded = mlflow.pyfunc.load_model("models:/fraud-small@champion")
        given = rows.select(bundle.encoder.features).with_columns(selectors.numeric().cast(pl.Float64))
        scores = loaded.predict(given.to_pandas())
    assert scores.tolist() == Scorer(bundle).score_features(rows).tolist()


def test_a_record_that_was_cut_off_goes_on_in_the_same_run_and_the_alias_follows_the_champion(
    home: Home, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = champion(home)
    home.options["review_capacity"] = 20
    home.load()
    trained = home.run("train")
    second = champion(home)
    assert second != first

    def cut(*_: Any) -> None:
        raise ConnectionError("the plug was pulled")

    with monkeypatch.context() as patch:
        patch.setattr("fraud_assets.delivery.mlflow.records.Records._register", cut)
        assert not home.run(delivery.JOB).success
    (run,) = runs(client, "fraud-small", dagster_run_id=trained.run_id)
    assert (run.info.status, named(client, home)) == ("FAILED", first)
    assert home.run(delivery.JOB).success
    (again,) = runs(client, "fraud-small", dagster_run_id=trained.run_id)
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    assert len(client.search_model_versions(f"name = 'fraud-small' and run_id = '{run.info.run_id}'")) == 1
    assert named(client, home) == second


def test_the_alias_moves_back_on_rollback_and_again_on_restoration(home: Home, client: Any) -> None:
    second = champion(home)
    first = next(
        name for name in versions(home.installation.artifacts.store, home.installation.artifacts.signing_key) if name != second
    )
    config = {"reason": "it declined all of Texas", "who": "ann"}
    for job, op, version in (("rollback_champion", "roll_back", first), ("restore_champion", "lift_withdrawal", second)):
        assert home.run(job, config={"ops": {op: {"config": config | {"version": version}}}}).success
        assert delivery.has_work(home.installation)
        assert home.run(delivery.JOB).success
        assert named(client, home) == version == champion(home)


def test_verdicts_are_logged_and_a_person_s_decision_changes_the_same_run(home: Home, client: Any) -> None:
    assert not home.run("materialize_partition", DRIFTED).success
    delivered = home.run(delivery.JOB)
    pointer = home.installation.artifacts.pointer("transformed", DRIFTED)
    assert pointer is not None
    (run,) = runs(client, "fraud-small-drift", **{"fraud.content": pointer.content})
    assert run.data.metrics["accepted"] == 0
    assert run.data.metrics["excess.log_amount"] > run.data.metrics["bound.log_amount"]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"verdict.json"}
    (shown,) = observed(delivered, "transformed")
    assert shown["mlflow_run_id"].value == run.info.run_id
    assert home.decide("accept", DRIFTED).success
    assert home.run(delivery.JOB).success
    (again,) = runs(client, "fraud-small-drift", **{"fraud.content": pointer.content})
    assert again.info.run_id == run.info.run_id
    assert (again.data.metrics["accepted"], again.data.tags["fraud.decided_by"]) == (1, "unverified:ann")


def test_nothing_personal_and_no_secret_reached_the_server(server: MlflowServer, home: Home) -> None:
    installation = home.installation
    raw = installation.artifacts.scan("raw", WEEKS[0]).head(200).collect()
    held = b"".join(path.read_bytes() for path in server.folder.rglob("*") if path.is_file() and path.suffix != ".log")
    assert b"fraud.version" in held
    assert [card for card in raw["card"].unique() if card.encode() in held] == []
    keys = (installation.artifacts.signing_key.secret, installation.card_key.secret)
    assert [key for key in keys if key in held or key.hex().encode() in held] == []


def test_without_a_server_sqlite_and_files_under_the_home_hold_it(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.path / "undelivered", tmp_path / "home")
    shutil.copy(home.source, tmp_path)
    alone = Home(tmp_path, {"mlflow_url": "", "dvc_remote": "off"})
    assert alone.run(delivery.JOB).success
    folder = tmp_path / "home" / "mlflow"
    local = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}", f"sqlite:///{folder / 'mlflow.db'}")
    assert named(local, alone) == champion(alone)
    (run,) = runs(local, "fraud-small")
    assert run.info.artifact_uri.startswith((folder / "artifacts").as_uri())
    assert (Path(run.info.artifact_uri.removeprefix("file://")) / "report" / "cost.png").is_file()
    alone.close()
