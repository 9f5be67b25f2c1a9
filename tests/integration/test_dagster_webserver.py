"""Dagster's web server as we start it: what a web page elsewhere tries is refused, and what its own pages do works."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import dagster as dg
import httpx
import pytest
from playwright.sync_api import Page, sync_playwright
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fraud_cli.instance import environment, open_instance
from fraud_core.access.users import Users
from fraud_core.gate import read_verdict
from fraud_core.gate.records import Decision
from fraud_core.storage.database import open_database
from tests.api_server import eventually
from tests.home import DRIFTED, Home
from tests.servers.processes import free_port

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent
MODULE = ("-m", "fraud_assets.definitions")
CHROMIUM = shutil.which("chromium")
LAUNCH = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


def launch(action: str, **forged: str) -> dict[str, Any]:
    """What Dagster's own launchpad sends to accept or refuse a partition."""
    config = {"reason": "checked with finance", "who": "cfo"}
    tags = [{"key": key, "value": value} for key, value in {"dagster/partition": DRIFTED, **forged}.items()]
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "fraud_assets.definitions",
        "jobName": f"{action}_partition",
    }
    run_config = {"ops": {action: {"config": config}}}
    return {"selector": selector, "runConfigData": run_config, "executionMetadata": {"tags": tags}}


class Servers:
    """The web servers of an installation whose last partition was rejected, and Dagster's daemon."""

    def __init__(self, home: Home, logs: Path, stack: ExitStack) -> None:
        self.home, self._logs, self._stack = home, logs, stack
        self._variables = os.environ | home.environment | environment(home.installation.settings)
        open_instance(home.installation.settings).dispose()
        self._start("daemon", [BIN / "dagster-daemon", "run", *MODULE])
        self.open = self.web("open")

    def web(self, name: str, **variables: str) -> str:
        port = str(free_port())
        command = [BIN / "fraud", "webserver", "--", *MODULE, "--host", "127.0.0.1", "--port", port]
        self._start(name, command, **variables)
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(f"{url}/server_info"), seconds=60)
        return url

    def runs(self) -> list[dg.DagsterRun]:
        with dg.DagsterInstance.from_config(self._variables["DAGSTER_HOME"]) as instance:
            return list(instance.get_runs())

    def decided(self, action: str) -> Decision | None:
        """Who decided what, once the runs are over."""
        eventually(lambda: all(run.is_finished for run in self.runs()), seconds=120)
        assert {run.status for run in self.runs()} <= {dg.DagsterRunStatus.SUCCESS}
        artifacts = self.home.installation.artifacts
        verdict = read_verdict(artifacts.store, artifacts.signing_key, DRIFTED)
        assert verdict is not None
        return verdict.overruled_by if action == "accept" else verdict.refused_by

    def _start(self, name: str, command: list[Any], **variables: str) -> None:
        log = self._stack.enter_context((self._logs / f"{name}.log").open("wb"))
        own = self._variables | variables
        process = subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True)
        self._stack.callback(process.wait, 60)
        self._stack.callback(os.killpg, process.pid, signal.SIGINT)


@pytest.fixture
def servers(new_home: Callable[..., Home], tmp_path: Path) -> Iterator[Servers]:
    home = new_home(automation="off")
    home.run("materialize_partition", DRIFTED)
    with ExitStack() as stack:
        yield Servers(home, tmp_path, stack)


@pytest.fixture
def page() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def test_no_page_of_another_site_and_no_typed_name_decides_but_who_signed_in_does(
    servers: Servers, page: Page, tmp_path: Path
) -> None:
    # ---- from outside: each is refused, and nothing is queued
    inline = f"mutation {{ launchRun(executionParams: {graphql(launch('accept'))}) {{ __typename }} }}"
    by_get = f"/graphql?query={quote(inline)}"
    evil, own = "http://evil.example", servers.open.removeprefix("http://")
    with httpx.Client(base_url=servers.open) as client:
        for method, path, headers, status in (
            ("GET", by_get, {}, 405),
            ("GET", by_get, {"accept": "text/html"}, 405),
            ("HEAD", by_get, {}, 405),
            ("GET", by_get, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 403),
            ("POST", by_get, {"origin": evil}, 403),
            ("POST", by_get, {"origin": "null"}, 403),
            ("POST", by_get, {"origin": "http://127.0.0.1:1"}, 403),
            ("POST", by_get, {"sec-fetch-site": "same-site"}, 403),
            ("POST", by_get, {"host": "evil.example:3000", "origin": "http://evil.example:3000"}, 421),
            ("POST", "/report_asset_check/transformed", {"origin": evil}, 403),
            ("GET", "/", {"host": "evil.example"}, 421),
        ):
            assert client.request(method, path, headers=headers).status_code == status, (method, headers)
        assert client.get("/").headers["x-frame-options"] == "DENY"
        followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        assert client.get("/runs", headers=followed).status_code == 200, "a link from a chat leads here"
        framed = followed | {"sec-fetch-dest": "iframe"}
        assert client.get("/runs", headers=framed).status_code == 403
    for origin in (evil, "null"):
        with (
            pytest.raises(InvalidStatus, match="403"),
            connect(f"ws://{own}/graphql", origin=origin, subprotocols=["graphql-ws"]),
        ):
            pass
    with connect(f"ws://{own}/graphql", origin=servers.open, subprotocols=["graphql-ws"]) as socket:  # type: ignore[arg-type,list-item]
        socket.send('{"type": "connection_init"}')
        assert "connection_ack" in str(socket.recv(10))

    # ---- the same by a browser that shows somebody else's page
    attack(page, tmp_path / "elsewhere", servers.open, by_get)
    assert servers.runs() == []

    # ---- Dagster's own page works; nobody signed in, so the name that was typed is worth nothing
    page.goto(f"{servers.open}/jobs")
    page.get_by_text("accept_partition").first.wait_for(timeout=60_000)
    forged = launch("accept", **{"fraud/signed_in": "cfo"})
    body = {"query": LAUNCH, "variables": {"params": forged}}
    sent = "body => fetch('/graphql', {method: 'POST', headers: {'content-type': 'application/json'}, body}).then(r => r.json())"
    assert page.evaluate(sent, httpx.Request("POST", evil, json=body).content.decode())["data"]["launchRun"]["run"]
    accepted = servers.decided("accept")
    assert accepted is not None
    assert accepted.who == "unverified:cfo"

    # ---- where people sign in, it is the desk's users of the role `lead`, under their own names
    users = Users(open_database(servers.home.installation.settings))
    (_, lead), (_, analyst) = users.create("anna", "lead"), users.create("ben", "analyst")
    closed = servers.web("closed", FRAUD_DAGSTER_AUTH="users")
    for auth in (None, ("anna", "wrong"), ("ben", analyst), ("carl", lead)):
        refused = httpx.get(closed, auth=auth)
        assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
    refusal = {"query": LAUNCH, "variables": {"params": launch("refuse")}}
    answer = httpx.post(f"{closed}/graphql", json=refusal, auth=("anna", lead))
    assert answer.json()["data"]["launchRun"]["run"]
    refused_by = servers.decided("refuse")
    assert refused_by is not None
    assert refused_by.who == "anna", "not the `cfo` that she typed"
    users.revoke("anna")
    eventually(lambda: httpx.get(closed, auth=("anna", lead)).status_code == 401, seconds=20)


def attack(page: Page, folder: Path, target: str, by_get: str) -> None:
    """Show a page of another origin that tries a picture, a form, a script and a WebSocket, and wait for what they come to."""
    folder.mkdir()
    (folder / "index.html").write_text(
        f"""<h1>cat pictures</h1><img src="{target}{by_get}"><iframe src="{target}/runs"></iframe>
        <form method="post" enctype="text/plain" action="{target}{by_get}" target="there"></form><iframe name="there"></iframe>
        <script>
        const ended = [fetch("{target}{by_get}", {{method: "POST", mode: "no-cors", body: "x"}}).then(() => 0, () => 0),
            new Promise(done => new WebSocket("{target.replace("http", "ws")}/graphql", "graphql-ws").onerror = done)]
        document.forms[0].submit()
        Promise.all(ended).then(() => document.title = "done")
        </script>"""
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        page.goto(f"http://localhost:{server.server_port}")
        page.wait_for_function("document.title == 'done' && document.images[0].complete")
        page.wait_for_load_state("networkidle")
    finally:
        server.shutdown()
        server.server_close()


def graphql(value: Any) -> str:
    """A value as GraphQL writes it within a query."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {graphql(one)}" for name, one in value.items()) + "}"
    return '"' + str(value) + '"'


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
