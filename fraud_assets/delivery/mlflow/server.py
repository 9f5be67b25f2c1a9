"""The MLflow that the settings name: a tracking server, a SQL database of one, or SQLite and files under the home."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from fraud_core.errors import DeliveryError, SettingsError
from fraud_core.settings import Settings
from fraud_core.system.paths import plain

OFF = "off"
PATIENCE = httpx.Timeout(5.0)
LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
KEPT = "What is to be logged is kept, and logged later."

# Names under which MLflow's pages are reached; by default all of a private network's would do, which DNS rebinding can have.
LOOPBACK_HOSTS = "127.0.0.1:*,localhost:*,[::1]:*"

# A server that hangs must end. MLflow reads these from the environment alone.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(frozen=True)
class Server:
    """Where MLflow keeps what is logged.

    Attributes:
        uri: what MLflow is given; of a database it holds the password.
        pages: where people look, without a slash at the end.
        artifacts: folder of the artifacts, as a URI; None: the server has a place of its own.
        credentials: MLflow's variables that log in.
    """

    uri: str
    pages: str
    artifacts: str | None
    credentials: tuple[tuple[str, str], ...]

    def run_link(self, experiment: str, run: str) -> str:
        """Where people see a run."""
        return f"{self.pages}/#/experiments/{experiment}/runs/{run}"

    def ask(self) -> None:
        """Ask whether it takes what it is sent.

        Raises:
            DeliveryError: it does not answer, does not let us in, or is no tracking server; the message says what to do.
        """
        if self.uri.startswith(("http://", "https://")):
            self._ask_server()
        else:
            self._ask_database()

    def _ask_server(self) -> None:
        given, environment = dict(self.credentials), os.environ
        user, password = (given.get(name) or environment.get(name, "") for name in LOGIN)
        token = environment.get("MLFLOW_TRACKING_TOKEN", "")
        try:
            answer = httpx.get(
                f"{self.uri}/api/2.0/mlflow/experiments/search",
                params={"max_results": 1},
                auth=(user, password) if user or password else None,
                headers={"Authorization": f"Bearer {token}"} if token and not user else {},
                timeout=PATIENCE,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DeliveryError(
                f"MLflow at {self.pages} does not answer ({type(error).__name__}). {KEPT} "
                "Start the server, or correct FRAUD_MLFLOW_URL."
            ) from error
        if answer.status_code in {401, 403}:
            raise DeliveryError(
                f"MLflow at {self.pages} does not let us in ({answer.status_code}). {KEPT} "
                "Set FRAUD_MLFLOW_USERNAME and FRAUD_MLFLOW_PASSWORD (at DagsHub: your name and a token)."
            )
        if not answer.is_success:
            raise DeliveryError(
                f"MLflow at {self.pages} answers {answer.status_code}. {KEPT} Look at the server's log, and at FRAUD_MLFLOW_URL."
            )

    def _ask_database(self) -> None:
        engine = None
        try:
            engine = sqlalchemy.create_engine(self.uri)
            engine.connect().close()
        except (SQLAlchemyError, ImportError) as error:
            raise DeliveryError(
                f"MLflow's database does not answer ({type(error).__name__}). {KEPT} "
                "Start the database, or correct FRAUD_MLFLOW_URL."
            ) from error
        finally:
            if engine is not None:
                engine.dispose()

    @property
    def for_pages(self) -> dict[str, str]:
        """Variables of a process `mlflow server` that shows what the database holds, and does nothing else."""
        return QUIET | {
            "MLFLOW_BACKEND_STORE_URI": self.uri,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_SERVER_ALLOWED_HOSTS": LOOPBACK_HOSTS,
        }

    @contextmanager
    def connected(self) -> Iterator[None]:
        """MLflow's variables, set for a while."""
        names = QUIET | dict(self.credentials) | {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_REGISTRY_URI": self.uri}
        before = {name: os.environ.get(name) for name in names}
        os.environ.update(names)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def server(settings: Settings) -> Server | None:
    """The MLflow of an installation; None where tracking is switched off.

    Raises:
        SettingsError: the tracking server's address holds a password.
    """
    url = "" if settings.mlflow_url is None else settings.mlflow_url.get_secret_value()
    if url == OFF:
        return None
    secret = "" if settings.mlflow_password is None else settings.mlflow_password.get_secret_value()
    credentials = tuple((name, value) for name, value in zip(LOGIN, (settings.mlflow_username, secret), strict=True) if value)
    if url.startswith(("http://", "https://")):
        if urlsplit(url).username is not None:
            raise SettingsError(
                "FRAUD_MLFLOW_URL must not hold a name or password, for a server's address is shown; "
                "set FRAUD_MLFLOW_USERNAME and FRAUD_MLFLOW_PASSWORD."
            )
        return Server(url.rstrip("/"), url.rstrip("/"), None, credentials)
    own = folder(settings)
    pages = f"http://127.0.0.1:{settings.mlflow_port}"
    # MLflow makes the folder that it reads in this URL, quoted or not.
    embedded = sqlalchemy.URL.create("sqlite", database=str(plain(own) / "mlflow.db")).render_as_string()
    return Server(url or embedded, pages, (own / "artifacts").as_uri(), credentials)


def folder(settings: Settings) -> Path:
    """Where the embedded MLflow lies, and what is remembered about any."""
    return settings.home / "mlflow"
