"""Which MLflow it is, and what is said when it does not take what it is sent."""

import base64
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from fraud_assets.delivery.mlflow.server import server
from fraud_core.errors import DeliveryError, SettingsError
from fraud_core.settings import Settings

PASSWORD = "a-token-of-dagshub"


class Guarded:
    """A server that lets in whoever knows the password, and answers with a status of our choosing."""

    def __init__(self) -> None:
        guarded, self.status, self.asked = self, 200, []
        allowed = "Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                guarded.asked.append(self.path)
                self.send_response(guarded.status if self.headers.get("Authorization") == allowed else 401)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/owner/repo.mlflow"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    made = Guarded()
    yield made
    made.http.shutdown()
    made.http.server_close()


def place(tmp_path: Path, url: str, **options: Any) -> Any:
    return server(Settings(_env_file=None, home=tmp_path, mlflow_url=SecretStr(url), **options))


def test_nothing_named_is_sqlite_and_files_under_the_home(tmp_path: Path) -> None:
    found = place(tmp_path, "")
    assert found.uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert found.artifacts == f"file://{tmp_path}/mlflow/artifacts"
    assert found.run_link("1", "ab") == "http://127.0.0.1:5000/#/experiments/1/runs/ab"
    assert not (tmp_path / "mlflow").exists()


def test_off_is_no_mlflow_at_all(tmp_path: Path) -> None:
    assert place(tmp_path, "off") is None


def test_dagshub_is_asked_with_name_and_token_which_nobody_is_shown(guarded: Guarded, tmp_path: Path) -> None:
    named = place(tmp_path, guarded.url, mlflow_username="ann", mlflow_password=SecretStr(PASSWORD))
    named.ask()
    assert guarded.asked[0].startswith("/owner/repo.mlflow/api/2.0/mlflow/")
    assert named.run_link("1", "ab") == f"{guarded.url}/#/experiments/1/runs/ab"
    with named.connected():
        assert os.environ["MLFLOW_TRACKING_PASSWORD"] == PASSWORD
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ
    assert PASSWORD not in str(Settings(_env_file=None, home=tmp_path, mlflow_password=SecretStr(PASSWORD)))


def test_mlflow_s_own_variables_log_in_too(guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    place(tmp_path, guarded.url).ask()


def test_a_wrong_password_is_told_apart_from_a_server_that_fails(guarded: Guarded, tmp_path: Path) -> None:
    wrong = place(tmp_path, guarded.url, mlflow_username="ann", mlflow_password=SecretStr("wrong-password"))
    with pytest.raises(DeliveryError, match=r"does not let us in \(401\).*FRAUD_MLFLOW_PASSWORD") as refusal:
        wrong.ask()
    assert "wrong-password" not in str(refusal.value)
    guarded.status = 500
    right = place(tmp_path, guarded.url, mlflow_username="ann", mlflow_password=SecretStr(PASSWORD))
    with pytest.raises(DeliveryError, match="answers 500"):
        right.ask()


def test_an_address_with_a_password_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="must not hold a name or password") as refusal:
        place(tmp_path, f"https://ann:{PASSWORD}@dagshub.com/owner/repo.mlflow")
    assert PASSWORD not in str(refusal.value)


def test_a_database_that_does_not_answer_is_told_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="MLflow's database does not answer") as refusal:
        place(tmp_path, f"postgresql://ann:{PASSWORD}@127.0.0.1:1/mlflow").ask()
    assert PASSWORD not in str(refusal.value)
