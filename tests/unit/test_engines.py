"""Dagster's instance files for workers, ECS and Kubernetes, as far as they can be checked without a cluster."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config
from dagster_aws.ecs import EcsRunLauncher
from pydantic import SecretStr

from fraud_assets.definitions import build
from fraud_assets.installation import Installation
from fraud_cli.instance import environment
from fraud_core.settings import Settings
from tests.compose_files import DOCKER, ROOT, variables

# Keys that Dagster's chart documents in its values.yaml (1.12), as far as ours uses them; None: anything, as Kubernetes takes it.
IMAGE: dict[str, Any] = {"repository": None, "tag": None, "pullPolicy": None}
CHART: dict[str, Any] = {
    "global": {"postgresqlSecretName": None, "dagsterHome": None, "serviceAccountName": None},
    "dagsterWebserver": {"image": IMAGE, "envSecrets": [{"name": None}], "service": {"type": None, "port": None}},
    "dagster-user-deployments": {
        "enabled": None,
        "deployments": [
            {
                "name": None,
                "image": IMAGE,
                "codeServerArgs": None,
                "port": None,
                "includeConfigInLaunchedRuns": {"enabled": None},
                "envConfigMaps": [{"name": None}],
                "envSecrets": [{"name": None}],
                "volumes": None,
                "volumeMounts": None,
                "podSecurityContext": None,
                "securityContext": None,
                "resources": None,
            }
        ],
    },
    "runLauncher": {
        "type": None,
        "config": {
            "k8sRunLauncher": {
                "imagePullPolicy": None,
                "failPodOnRunFailure": None,
                "resources": None,
                "runK8sConfig": {"jobSpecConfig": None, "podTemplateSpecMetadata": None},
            }
        },
    },
    "dagsterDaemon": {
        "enabled": None,
        "image": IMAGE,
        "runCoordinator": {
            "enabled": None,
            "type": None,
            "config": {"customRunCoordinator": {"module": None, "class": None, "config": None}},
        },
        "runMonitoring": {
            "enabled": None,
            "startTimeoutSeconds": None,
            "pollIntervalSeconds": None,
            "maxResumeRunAttempts": None,
        },
        "runRetries": {"enabled": None, "maxRetries": None},
    },
    "postgresql": {"enabled": None, "postgresqlHost": None, "postgresqlUsername": None, "postgresqlDatabase": None},
    "generatePostgresqlPasswordSecret": None,
    **{name: {"enabled": None} for name in ("rabbitmq", "redis", "flower", "ingress", "telemetry")},
}


def unknown(given: Any, known: Any, at: str = "") -> list[str]:
    """Keys of a document that the other does not know."""
    if known is None:
        return []
    if isinstance(known, list):
        return [wrong for number, one in enumerate(given) for wrong in unknown(one, known[0], f"{at}[{number}]")]
    if not isinstance(given, dict):
        return [at]
    return [
        wrong
        for name, value in given.items()
        for wrong in (unknown(value, known[name], f"{at}.{name}") if name in known else [f"{at}.{name}"])
    ]


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text())
    return document


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    settings = Settings(_env_file=None, home=tmp_path_factory.mktemp("home"), source=ROOT / "sources" / "simulated.toml")
    return Installation.load(settings)


@pytest.mark.parametrize("name", ["celery", "ecs"])
def test_dagster_takes_the_instance_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_DAGSTER_DATABASE", "postgresql+psycopg2://fraud@nowhere/dagster")
    config, custom = dagster_instance_config(str(DOCKER / name))
    assert custom is None
    assert config["storage"] == {"postgres": {"postgres_url": {"env": "FRAUD_DAGSTER_DATABASE"}}}
    assert config["telemetry"] == {"enabled": False}


def test_the_ecs_launcher_takes_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_ECS_EXECUTION_ROLE", "arn:aws:iam::1:role/execution")
    monkeypatch.setenv("FRAUD_ECS_TASK_ROLE", "arn:aws:iam::1:role/task")
    launcher = read("ecs/dagster.yaml")["run_launcher"]
    assert (launcher["module"], launcher["class"]) == (EcsRunLauncher.__module__.rpartition(".")[0], EcsRunLauncher.__name__)
    checked = process_config(EcsRunLauncher.config_type(), launcher["config"])
    assert checked.success, checked.errors
    assert checked.value["task_definition"]["task_role_arn"] == "arn:aws:iam::1:role/task"
    assert not process_config(EcsRunLauncher.config_type(), launcher["config"] | {"cpu": "2048"}).success


def test_ecs_tasks_are_told_settings_but_no_secret_and_share_the_image_s_home() -> None:
    config = read("ecs/dagster.yaml")["run_launcher"]["config"]
    kinds = {f"FRAUD_{name.upper()}": str(field.annotation) for name, field in Settings.model_fields.items()}
    named = [name for name in config["env_vars"] if name.startswith("FRAUD_")]
    assert [name for name in named if "SecretStr" in kinds[name]] == []
    assert config["task_definition"]["mount_points"][0]["containerPath"] == variables("pipeline")["FRAUD_HOME"]


def test_the_workers_instance_file_is_what_the_command_writes(tmp_path: Path) -> None:
    shared = {"dagster_database": SecretStr("postgresql://fraud@host/name"), "broker": SecretStr("redis://host:6379/1")}
    settings = Settings(_env_file=None, home=tmp_path).model_copy(update=shared)
    written = Path(environment(settings)["DAGSTER_HOME"]) / "dagster.yaml"
    assert yaml.safe_load(written.read_text()) == read("celery/dagster.yaml")


def test_the_chart_knows_every_key_of_our_values() -> None:
    values = read("kubernetes/values.yaml")
    assert unknown(values, CHART) == []
    assert unknown(values | {"runlauncher": {}}, CHART) == [".runlauncher"]


def test_kubernetes_runs_the_code_location_of_the_image_with_its_home_and_user() -> None:
    values = read("kubernetes/values.yaml")
    (code,) = values["dagster-user-deployments"]["deployments"]
    dockerfile = (DOCKER / "pipeline.Dockerfile").read_text()
    assert code["codeServerArgs"][-1] in dockerfile
    assert {mount["mountPath"] for mount in code["volumeMounts"]} == {variables("pipeline")["FRAUD_HOME"], "/tmp"}
    assert f"USER {code['podSecurityContext']['runAsUser']}:" in dockerfile
    assert {volume["name"] for volume in code["volumes"]} == {mount["name"] for mount in code["volumeMounts"]}
    kind = values["runLauncher"]["type"]
    assert list(values["runLauncher"]["config"]) == [kind[0].lower() + kind[1:]]


def test_only_runs_that_may_begin_anew_are_retried(installation: Installation) -> None:
    jobs = [job for job in build(installation).resolve_all_job_defs() if not job.name.startswith("__")]
    assert {job.name for job in jobs if "dagster/max_retries" in job.tags} == {"make_raw", "make_transformed"}
    for name in ("celery", "ecs"):
        assert read(f"{name}/dagster.yaml")["run_retries"]["max_retries"] == 0
    assert read("kubernetes/values.yaml")["dagsterDaemon"]["runRetries"]["maxRetries"] == 0


def test_the_daemon_of_no_engine_is_asked_to_resume_what_its_launcher_cannot() -> None:
    assert read("kubernetes/values.yaml")["dagsterDaemon"]["runMonitoring"]["maxResumeRunAttempts"] == 0
    assert "max_resume_run_attempts" not in read("ecs/dagster.yaml")["run_monitoring"]
