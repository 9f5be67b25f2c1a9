"""Images, compose files, workflows and the scripts of a release: valid by the tools' own word, and closed where they must be."""

import ipaddress
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_core.settings import Settings
from tests.compose_files import DIGEST, DOCKER, OWN_IMAGES, ROOT, compose, dockerfile, run

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = sorted(DOCKER.glob("*.sh"))
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
SHELLCHECK = shutil.which("shellcheck")

PUBLISHED = {
    "webserver": 3000,
    "scorer": 8000,
    "ui": 7860,
    "grafana": 3001,
    "prometheus": 9090,
    "mlflow": 5000,
    "alertmanager": 9093,
}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compose(tmp_path_factory.mktemp("local"), "compose.yaml", example=".env.example")


@pytest.fixture(scope="module")
def ec2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compose(tmp_path_factory.mktemp("ec2"), "compose.yaml", "compose.ec2.yaml", example="ec2.env.example")


@pytest.fixture(params=["local", "ec2"])
def stack(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each of the two."""
    read: dict[str, Any] = request.getfixturevalue(request.param)
    return read


def open_ports(stack: dict[str, Any]) -> set[tuple[str, int]]:
    """Services, and their ports that are published on an address which is not loopback."""
    return {
        (name, int(port["published"]))
        for name, service in stack["services"].items()
        for port in service.get("ports", [])
        if not ipaddress.ip_address(port.get("host_ip", "0.0.0.0")).is_loopback
    }


# Linters


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    assert run("hadolint", "--no-color", path) == ""


def test_the_compose_file_follows_the_specification() -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / "compose.yaml")


def test_workflows_follow_their_schema_and_zizmor_finds_no_weakness() -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    run("zizmor", "--offline", "--no-progress", *WORKFLOWS)


@pytest.mark.skipif(SHELLCHECK is None, reason="needs Debian's package shellcheck")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_shellcheck_has_nothing_to_say(path: Path) -> None:
    assert run("shellcheck", path) == ""


# Images


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_rests_on_a_digest_runs_as_nobody_special_and_says_how_it_is(path: Path) -> None:
    lines = dockerfile(path.stem)
    assert [
        line for line in lines if line.startswith("FROM ") and not re.search(r":[\w.-]+@sha256:[0-9a-f]{64}( AS \w+)?$", line)
    ] == []
    users = [line.removeprefix("USER ") for line in lines if line.startswith("USER ")]
    assert re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", users[-1])
    assert [line for line in lines if line.startswith("HEALTHCHECK ") and " CMD [" in line]


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("scorer", {"fraud_api", "fraud_cli", "fraud_core"}),
        ("ui", {"fraud_cli", "fraud_core", "fraud_ui"}),
        ("pipeline", {"fraud_assets", "fraud_cli", "fraud_core"}),
    ],
)
def test_an_image_installs_its_own_lock_alone_by_hash_and_holds_its_own_packages(name: str, packages: set[str]) -> None:
    lines = dockerfile(name)
    (locks,) = [line for line in lines if "uv pip sync" in line]
    assert re.search(r"--no-build --require-hashes .*requirements/(\w+)\.txt$", locks)[1] == name  # type: ignore[index]
    installs = [line for line in lines if "pip install" in line and line != locks]
    assert [line for line in installs if "--no-deps" not in line] == []
    assert {line.split()[1] for line in lines if line.startswith("COPY fraud_")} == packages


def test_what_a_dockerfile_copies_is_there_and_is_let_in() -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for path in DOCKERFILES:
        for line in dockerfile(path.stem):
            if line.startswith("COPY ") and "--from=" not in line:
                for source in [word for word in line.split()[1:-1] if not word.startswith("--")]:
                    assert (ROOT / source).exists(), f"{path.name}: {source}"
                    assert any(Path(source.split("/")[0]).match(pattern) for pattern in let_in), f"{path.name}: {source}"


def test_prometheus_in_its_image_learns_where_it_is_from_the_environment() -> None:
    text = (ROOT / "observability" / "prometheus" / "prometheus.yml").read_text()
    (rewriting,) = [line for line in dockerfile("prometheus") if "sed -i" in line]
    for old, new in re.findall(r"'s\|(.*?)\|(.*?)\|'", rewriting):
        assert text.count(old) == 1
        text = text.replace(old, new)
    assert yaml.safe_load(text)["global"]["external_labels"] == {
        "environment": "${ENVIRONMENT}",
        "grafana": "${GRAFANA_URL}",
        "docs": "${DOCS_URL}",
    }
    own = {path.name for path in (ROOT / "observability" / "prometheus" / "targets").iterdir()}
    assert {path.name for path in (DOCKER / "targets").iterdir()} == own


# Services


def test_on_a_machine_of_ones_own_everything_is_on_loopback_where_people_know_it(local: dict[str, Any]) -> None:
    assert open_ports(local) == set()
    ports = {(name, int(port["published"])) for name, service in local["services"].items() for port in service.get("ports", [])}
    assert ports == set(PUBLISHED.items())


def test_on_ec2_nothing_but_the_proxy_is_published(ec2: dict[str, Any]) -> None:
    assert open_ports(ec2) == {("proxy", 80), ("proxy", 443)}


def test_the_public_network_reaches_the_scorer_and_the_desk_alone(ec2: dict[str, Any]) -> None:
    assert {name for name, service in ec2["services"].items() if "public" in service["networks"]} == {"proxy", "scorer", "ui"}
    assert set(ec2["services"]["proxy"]["networks"]) == {"public"}


def test_no_service_shares_the_host_s_network_or_has_rights_it_need_not_have(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        assert "network_mode" not in service, name
        assert "privileged" not in service, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("read_only") or name == "postgres", name
        assert [mount["source"] for mount in service.get("volumes", []) if "docker.sock" in mount["source"]] == []
    assert {name for name, service in stack["services"].items() if "cap_add" in service} <= {"proxy"}


def test_every_service_runs_from_a_pinned_image_as_a_plain_user_and_is_asked_how_it_is(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        if not service["image"].startswith(("registry/", "fraud-")):
            assert re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", service["image"]), name
            assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), name
            assert service["healthcheck"]["test"], name
        else:
            assert service.get("user") is None, f"{name}: its image says who it is"
        if service.get("restart") != "no":
            assert service.get("healthcheck", {}).get("disable") is not True, name


def test_on_ec2_images_are_named_by_digest_and_nothing_is_built(ec2: dict[str, Any]) -> None:
    assert [name for name, service in ec2["services"].items() if "build" in service or "@sha256:" not in service["image"]] == []


def test_a_service_waits_for_what_it_needs_to_be_healthy(stack: dict[str, Any]) -> None:
    needs = {name: service.get("depends_on", {}) for name, service in stack["services"].items()}
    assert {need["condition"] for of in needs.values() for need in of.values()} == {"service_healthy"}
    assert {name for of in needs.values() for name in of} <= needs.keys()
    assert needs["daemon"].keys() == {"webserver"}
    assert needs["webserver"].keys() == {"code"}


def test_with_a_real_bucket_nobody_is_given_keys_of_it(ec2: dict[str, Any]) -> None:
    given = {variable for service in ec2["services"].values() for variable in service.get("environment", {})}
    assert given & {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"} == set()
    assert "s3" not in ec2["services"]


def test_a_variable_of_ours_in_a_compose_file_or_an_image_is_a_setting() -> None:
    settings = {f"FRAUD_{name.upper()}" for name in Settings.model_fields}
    texts = [
        path.read_text()
        for path in (*DOCKER.glob("*.yaml"), *DOCKERFILES, *DOCKER.glob(".env.example"), *DOCKER.glob("*.env.example"))
    ]
    named = {name for text in texts for name in re.findall(r"\bFRAUD_[A-Z_]+\b", text)}
    assert named
    assert named - settings == set()


def test_the_core_runs_without_what_watches_it(local: dict[str, Any]) -> None:
    core = {name for name, service in local["services"].items() if "core" in service["profiles"]}
    full = {name for name, service in local["services"].items() if "full" in service["profiles"]}
    assert full - core == {"exporter", "prometheus", "grafana"}
    assert {need for name in core for need in local["services"][name].get("depends_on", {})} <= core


@pytest.mark.parametrize(
    "secret", ["POSTGRES_PASSWORD", "REDIS_PASSWORD", "GRAFANA_PASSWORD", "S3_SECRET_KEY", "FRAUD_SIGNING_KEY"]
)
def test_no_secret_has_a_default(secret: str, tmp_path: Path) -> None:
    given = run(DOCKER / "make-env.sh")
    (tmp_path / "env").write_text("".join(line for line in given.splitlines(True) if not line.startswith(secret)))
    with pytest.raises(AssertionError, match=f"{secret} is missing a value: make docker/.env with docker/make-env.sh"):
        run("docker-compose", f"--env-file={tmp_path / 'env'}", f"--file={DOCKER / 'compose.yaml'}", "--profile=*", "config")


def test_secrets_are_made_anew_each_time_and_fit_the_keys() -> None:
    first, second = (dict(re.findall(r"^(\w+)=(.*)$", run(DOCKER / "make-env.sh"), re.M)) for _ in range(2))
    assert re.fullmatch(r"[0-9a-f]{64}", first["FRAUD_CARD_KEY"])
    assert {name for name in first if first[name] == second[name]} == {"COMPOSE_PROFILES"}


# Workflows


def jobs() -> dict[str, dict[str, Any]]:
    read = {path.stem: yaml.safe_load(path.read_text()) for path in WORKFLOWS}
    assert all(workflow["permissions"] == {} for workflow in read.values())
    return {f"{name}/{key}": job for name, workflow in read.items() for key, job in workflow["jobs"].items()}


def test_every_action_is_pinned_by_its_commit() -> None:
    used = [step["uses"] for job in jobs().values() for step in job.get("steps", []) if "uses" in step]
    assert used
    assert [name for name in used if not re.search(r"@[0-9a-f]{40}$", name)] == []


def test_a_job_may_read_the_code_and_only_those_of_a_release_log_in_to_aws() -> None:
    allowed = {name: job["permissions"] for name, job in jobs().items()}
    logging_in = {name for name, rights in allowed.items() if rights.get("id-token") == "write"}
    assert logging_in == {"release/images", "release/deploy"}
    assert {json.dumps({key: value for key, value in rights.items() if key != "id-token"}) for rights in allowed.values()} == {
        '{"contents": "read"}'
    }
    assert {job["environment"] for name, job in jobs().items() if name in logging_in} == {"production"}


def test_no_long_lived_aws_key_is_used_and_nothing_is_deployed_as_latest() -> None:
    text = "".join(path.read_text() for path in (*WORKFLOWS, *SCRIPTS, *DOCKER.glob("compose*.yaml"), *DOCKERFILES))
    assert re.findall(r"secrets\.AWS|aws-access-key|aws-secret|:latest", text, re.I) == []


def test_nothing_is_deployed_before_ci_has_passed_and_a_failed_deployment_is_taken_back() -> None:
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    assert release["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert (release["images"]["needs"], release["deploy"]["needs"]) == ("ci", "images")
    *_, start, smoke, back = release["deploy"]["steps"]
    assert "deploy.sh start $GITHUB_SHA" in start["run"]
    assert smoke["run"] == "docker/smoke.sh"
    assert back["if"] == f"(failure() || cancelled()) && steps.{start['id']}.conclusion != 'skipped'"
    assert "deploy.sh back $GITHUB_SHA" in back["run"]


def test_ci_tests_every_python_there_is_and_builds_scans_and_tries_every_image() -> None:
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert [entry["python"] for entry in ci["tests"]["strategy"]["matrix"]["include"]] == ["3.11", "3.12"]
    assert ci["tests"]["steps"][-1]["run"] == ".ci/run"
    steps = "".join(step.get("run", "") for step in ci["stack"]["steps"])
    assert set(re.search(r"scan\.sh fraud-\{([\w,]+)\}", steps)[1].split(",")) == {path.stem for path in DOCKERFILES}  # type: ignore[index]
    assert "docker/smoke.sh" in steps


# The page


PAGE = (ROOT / "docs" / "deploy.md").read_text()


def test_the_page_names_every_variable_and_secret_that_must_be_set() -> None:
    texts = "".join(path.read_text() for path in WORKFLOWS)
    needed = set(re.findall(r"\b(?:vars|secrets)\.(\w+)", texts))
    needed |= set(re.findall(r"\$\{(\w+)", "".join(path.read_text() for path in DOCKER.glob("compose*.yaml"))))
    needed -= {f"{name.upper()}_IMAGE" for name in OWN_IMAGES}  # a release writes them
    rows = set(re.findall(r"^\| `(\w+)`", PAGE, re.M))
    assert needed - rows == set()
    assert rows - needed == set(), "the page names what nothing reads"


def test_policies_on_the_page_give_named_rights_on_named_things() -> None:
    policies = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.S)]
    statements = [statement for policy in policies for statement in policy["Statement"]]
    assert len(policies) == 3
    for statement in statements:
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        assert [action for action in actions if "*" in action] == []
        if statement.get("Resource") == "*":  # these two know no resource
            assert set(actions) <= {"ecr:GetAuthorizationToken", "ssm:GetCommandInvocation"}


# Scripts


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """What deploy.sh finds on EC2, but docker, aws and curl only write down what they are asked.

    The release that the file `broken` names does not come up.
    """
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, answer in {
        "aws": "echo login",
        "curl": f'cat "{tmp_path}/imds"',
        "docker": f'[[ $1 != login ]] || cat >/dev/null; broken=$(cat "{tmp_path}/broken" 2>/dev/null || echo none)\n'
        '[[ "$*" != *" up "* || "$*" != *"/$broken/"* ]]',
    }.items():
        (commands / name).write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"{tmp_path}/asked"\n{answer}\n')
        (commands / name).chmod(0o755)
    (tmp_path / "imds").write_text("401")
    for commit in ("aaa", "bbb", "ccc"):
        release = tmp_path / "releases" / commit
        release.mkdir(parents=True)
        (release / "images.env").write_text(f"SCORER_IMAGE=1.dkr.ecr.eu-central-1.amazonaws.com/fraud-scorer@{DIGEST}\n")
    return tmp_path


def deploy(machine: Path, *arguments: str) -> int:
    environment = {"PATH": f"{machine / 'bin'}{os.pathsep}{os.environ['PATH']}", "FRAUD_ROOT": str(machine)}
    return subprocess.run([DOCKER / "deploy.sh", *arguments], env=environment, capture_output=True, check=False).returncode


def started(machine: Path) -> list[str]:
    """The releases that were started, in order."""
    return re.findall(r"releases/(\w+)/compose\.ec2\.yaml up ", (machine / "asked").read_text())


def test_a_release_that_does_not_come_up_is_left_for_the_one_before_it(machine: Path) -> None:
    assert deploy(machine, "start", "aaa") == 0
    assert deploy(machine, "start", "bbb") == 0
    (machine / "broken").write_text("ccc")
    assert deploy(machine, "start", "ccc") != 0
    assert deploy(machine, "back", "ccc") == 0
    assert started(machine) == ["aaa", "bbb", "ccc", "bbb"]
    assert (machine / "present").read_text() == "bbb"
    asked = (machine / "asked").read_text()
    assert asked.index("pull --quiet") < asked.index(" up ")
    assert "docker login --username AWS --password-stdin 1.dkr.ecr.eu-central-1.amazonaws.com" in asked
    assert "ecr get-login-password --region eu-central-1" in asked


def test_the_same_release_again_forgets_no_way_back(machine: Path) -> None:
    for commit in ("aaa", "bbb", "bbb"):
        assert deploy(machine, "start", commit) == 0
    assert deploy(machine, "back", "bbb") == 0
    assert (machine / "present").read_text() == "aaa"


def test_leaving_a_release_that_never_began_keeps_the_present_one(machine: Path) -> None:
    for commit in ("aaa", "bbb"):
        assert deploy(machine, "start", commit) == 0
    assert deploy(machine, "start", "ddd") != 0  # it was not brought to the machine
    assert deploy(machine, "back", "ddd") == 0
    assert (machine / "present").read_text() == "bbb"


def test_there_is_no_way_back_from_the_first_release(machine: Path) -> None:
    assert deploy(machine, "start", "aaa") == 0
    assert deploy(machine, "back", "aaa") == 1
    assert started(machine) == ["aaa"]


def test_nothing_starts_on_a_machine_that_answers_imdsv1(machine: Path) -> None:
    (machine / "imds").write_text("200")
    assert deploy(machine, "start", "aaa") == 1
    assert "docker" not in (machine / "asked").read_text()
