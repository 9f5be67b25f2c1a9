"""The Dagster instance under the home, and the runs of processes that were killed."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from pydantic import SecretStr

from fraud_cli.instance import MACHINE_TAG, PID_TAG, environment, open_instance, own_process
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, home=tmp_path / "home", source=Path("sources/simulated.toml"))


def test_the_instance_lies_under_the_home_and_sends_nothing(settings: Settings) -> None:
    home = Path(environment(settings)["DAGSTER_HOME"])
    assert home == settings.home / "dagster"
    config = yaml.safe_load((home / "dagster.yaml").read_text())
    assert config["telemetry"] == {"enabled": False}
    assert config["event_log_storage"]["class"] == "ConsolidatedSqliteEventLogStorage"
    assert config["event_log_storage"]["config"]["base_dir"] == str(home / "events")


def test_a_home_that_was_moved_is_described_anew(settings: Settings, tmp_path: Path) -> None:
    environment(settings)
    settings.home.rename(tmp_path / "moved")
    moved = settings.model_copy(update={"home": tmp_path / "moved"})
    text = (Path(environment(moved)["DAGSTER_HOME"]) / "dagster.yaml").read_text()
    assert str(settings.home) not in text


def test_processes_find_the_same_installation_from_any_folder(settings: Settings) -> None:
    variables = environment(settings)
    assert variables["FRAUD_HOME"] == str(settings.home)
    assert Path(variables["FRAUD_SOURCE"]) == Path.cwd() / "sources" / "simulated.toml"


def test_opening_leaves_the_environment_of_this_process_alone(settings: Settings) -> None:
    before = dict(os.environ)
    with open_instance(settings):
        assert dict(os.environ) == before


def test_what_a_killed_process_left_running_is_marked_as_failed_and_nothing_else_is(settings: Settings) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    killed = own_process() | {PID_TAG: str(ended.pid)}
    tags = {
        "of a killed process": killed,
        "of a process elsewhere": killed | {MACHINE_TAG: "another"},
        "of this process": own_process(),
        "of the UI": {},
    }
    with open_instance(settings) as instance:
        runs = {}
        for name, tag in tags.items():
            run = dg.DagsterRun("train", tags=tag, status=dg.DagsterRunStatus.STARTED)
            runs[name] = instance.add_run(run).run_id
    with open_instance(settings) as instance:
        status = {}
        for name, identity in runs.items():
            run = instance.get_run_by_id(identity)
            assert run is not None
            status[name] = run.status
    assert status == {
        "of a killed process": dg.DagsterRunStatus.FAILURE,
        "of a process elsewhere": dg.DagsterRunStatus.STARTED,
        "of this process": dg.DagsterRunStatus.STARTED,
        "of the UI": dg.DagsterRunStatus.STARTED,
    }


@pytest.mark.parametrize("url", ["mysql://fraud:hunter2@host/name", "hunter2", "/hunter2/x.sqlite"])
def test_another_database_than_postgresql_is_refused_without_repeating_its_url(settings: Settings, url: str) -> None:
    with pytest.raises(SettingsError, match="FRAUD_DAGSTER_DATABASE must look like postgresql://") as refused:
        environment(settings.model_copy(update={"dagster_database": SecretStr(url)}))
    assert "hunter2" not in str(refused.value)


def test_the_database_s_url_goes_to_dagster_s_processes_and_into_no_file(settings: Settings) -> None:
    given = settings.model_copy(update={"dagster_database": SecretStr("postgresql://fraud:hunter2@host/name")})
    variables = environment(given)
    assert variables["FRAUD_DAGSTER_DATABASE"] == "postgresql+psycopg2://fraud:hunter2@host/name"
    text = (Path(variables["DAGSTER_HOME"]) / "dagster.yaml").read_text()
    assert yaml.safe_load(text)["storage"] == {"postgres": {"postgres_url": {"env": "FRAUD_DAGSTER_DATABASE"}}}
    assert "hunter2" not in text


def test_with_a_broker_what_may_be_spread_goes_to_workers_and_its_url_into_no_file(settings: Settings) -> None:
    shared = {"dagster_database": SecretStr("postgresql://fraud@host/name"), "broker": SecretStr("redis://:hunter2@host:6379/1")}
    variables = environment(settings.model_copy(update=shared))
    assert variables["FRAUD_BROKER"] == "redis://:hunter2@host:6379/1"
    text = (Path(variables["DAGSTER_HOME"]) / "dagster.yaml").read_text()
    assert "hunter2" not in text
    config = yaml.safe_load(text)
    assert config["run_launcher"]["class"] == "WorkerRunLauncher"
    assert config["run_launcher"]["config"]["broker"] == {"env": "FRAUD_BROKER"}
    assert config["run_monitoring"]["max_resume_run_attempts"] > 0


def test_without_a_broker_runs_stay_on_this_machine(settings: Settings) -> None:
    text = (Path(environment(settings)["DAGSTER_HOME"]) / "dagster.yaml").read_text()
    assert "run_launcher" not in yaml.safe_load(text)
